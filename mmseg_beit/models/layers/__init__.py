"""Building blocks in plain torch, without registry or configs."""

from . import flops  # noqa: F401 - tells torch's counter the arithmetic of our operators
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
from .resampling import conv_of_maps, resize
from .toeplitz_attention import toeplitz_attention
from .winograd import winograd_conv

__all__ = [
    'ATTENTION_IMPLS',
    'Attention',
    'DropPath',
    'FeedForward',
    'Grid',
    'PatchEmbed',
    'RelativePosition',
    'TransformerBlock',
    'conv_of_maps',
    'num_relative_positions',
    'relative_position_bias',
    'resize',
    'resize_absolute_position',
    'resize_relative_position_table',
    'square_grid',
    'toeplitz_attention',
    'winograd_conv',
]
