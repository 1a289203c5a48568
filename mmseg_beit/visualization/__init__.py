"""Overlays, legends and colours as functions on arrays, and the visualizer that the runner draws with."""

from .legend import LegendEntry, add_legend, legend_entries
from .overlay import blend, class_shares, color_mask, region_borders
from .palette import class_palette, distinct_palette
from .visualizer import SegLocalVisualizer

__all__ = [
    'LegendEntry',
    'SegLocalVisualizer',
    'add_legend',
    'blend',
    'class_palette',
    'class_shares',
    'color_mask',
    'distinct_palette',
    'legend_entries',
    'region_borders',
]
