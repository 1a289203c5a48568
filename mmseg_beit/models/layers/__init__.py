"""Building blocks in plain torch, without registry or configs."""

from .attention import ATTENTION_IMPLS, Attention, RelativePosition
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
from .toeplitz_attention import toeplitz_attention

__all__ = [
    'ATTENTION_IMPLS',
    'Attention',
    'DropPath',
    'FeedForward',
    'Grid',
    'PatchEmbed',
    'RelativePosition',
    'TransformerBlock',
    'num_relative_positions',
    'relative_position_bias',
    'resize_absolute_position',
    'resize_relative_position_table',
    'square_grid',
    'toeplitz_attention',
]
