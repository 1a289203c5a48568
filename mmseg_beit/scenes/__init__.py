"""The embedded default data set: a seeded renderer of street and landscape photographs with exact masks.

``compose`` draws a layout, ``canvas`` finds by ray casting what each pixel meets, ``light`` shades it with cast
shadows, haze and reflections, ``photo`` is lens and sensor, ``writer`` makes the folder. NumPy and OpenCV only: it
stands apart from ``mmseg_beit.datasets``, which reads the folder, so that rendering processes need not load torch.
"""

from .labels import LABELS, UNLABELLED
from .render import render_scene
from .writer import Request, write_scenes

__all__ = ['LABELS', 'UNLABELLED', 'Request', 'render_scene', 'write_scenes']
