"""Building blocks in plain torch, without registry or configs."""

from .attention import Attention, SharedRelativePositionBias
from .block import DropPath, FeedForward, TransformerBlock
from .patch_embed import PatchEmbed
from .position import (
    Grid,
    num_relative_positions,
    relative_position_bias,
    resize_absolute_position,
    resize_relative_position_table,
    square_grid,
)

__all__ = [
    'Attention',
    'DropPath',
    'FeedForward',
    'Grid',
    'PatchEmbed',
    'SharedRelativePositionBias',
    'TransformerBlock',
    'num_relative_positions',
    'relative_position_bias',
    'resize_absolute_position',
    'resize_relative_position_table',
    'square_grid',
]
