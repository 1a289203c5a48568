"""BEiT semantic segmentation on OpenMMLab: backbone, heads, checkpoints and every stage that makes them.

Importing the package is cheap: nothing heavier than the version is loaded until a registry is asked for a class.
It also sees to it that importing mmsegmentation, from here on, neither chats nor brings in packages that are not used.
"""

from mmseg_beit import _quiet

__version__ = '0.1.0'

__all__ = ['__version__']

_quiet.install()
