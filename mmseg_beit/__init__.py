"""BEiT semantic segmentation on OpenMMLab: backbone, heads, checkpoints and every stage that makes them.

Importing the package is cheap: nothing heavier than the version is loaded until a registry is asked for a class.
"""

__version__ = '0.1.0'

__all__ = ['__version__']
