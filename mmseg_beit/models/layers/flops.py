"""Arithmetic of our operators for ``torch.utils.flop_counter``, which cannot look inside them.

Every multiplication of the dense matrices is counted, zeros included, as the counter does for torch's own products.
Some versions of torch do not count their fused attention on a CPU, and none so far ``baddbmm_``: mended here, so that
all are counted alike.
"""

import math
from collections.abc import Sequence

import torch
from torch.utils.flop_counter import flop_registry, register_flop_formula

from . import resampling, toeplitz_attention, winograd  # noqa: F401 - they define the operators

Shape = Sequence[int]


def attention_flops(q: Shape, k: Shape, *args: object, **_: object) -> int:
    """Two products over all pairs of a query and a key."""
    batch, heads, queries, width = q
    return 4 * batch * heads * queries * k[2] * width


def attention_backward_flops(grad: Shape, q: Shape, k: Shape, *args: object, **_: object) -> int:
    """The weights again, and a product for each of their, the query's, the key's and the value's gradients."""
    batch, heads, queries, width = q
    return 10 * batch * heads * queries * k[2] * width


register_flop_formula(torch.ops.mmseg_beit.toeplitz_attention)(attention_flops)
register_flop_formula(torch.ops.mmseg_beit.toeplitz_attention_backward)(attention_backward_flops)
if torch.ops.aten.baddbmm_ not in flop_registry:
    flop_registry[torch.ops.aten.baddbmm_] = flop_registry[torch.ops.aten.baddbmm]
for _name, _formula in (('', attention_flops), ('_backward', attention_backward_flops)):
    _fused = getattr(torch.ops.aten, f'_scaled_dot_product_flash_attention_for_cpu{_name}')
    if _fused not in flop_registry:
        register_flop_formula(_fused)(_formula)


@register_flop_formula(torch.ops.mmseg_beit.winograd_conv)
def winograd_conv_flops(x: Shape, weight: Shape, out_shape: Shape | None = None, **_: object) -> int:
    """Products at 36 places of each tile, and the transforms of inputs, weights and outputs."""
    (num_out, channels), tiles = weight[:2], _num_tiles(x)
    weights = 36 * 9 * channels * num_out
    inputs = tiles * channels * (4 * 36 + 6 * 36)
    outputs = tiles * num_out * (4 * 36 + 4 * 24)
    return 2 * (36 * tiles * channels * num_out + weights + inputs + outputs)


@register_flop_formula(torch.ops.mmseg_beit.winograd_weight_grad)
def winograd_weight_grad_flops(grad: Shape, x: Shape, out_shape: Shape | None = None, **_: object) -> int:
    """As the forward pass, with the transform of gradients (4 x 4 to 6 x 6) in place of the outputs'."""
    num_out, channels, tiles = grad[1], x[1], _num_tiles(x)
    weights = 36 * 9 * channels * num_out
    inputs = tiles * channels * (4 * 36 + 6 * 36)
    grads = tiles * num_out * (4 * 24 + 6 * 24)
    return 2 * (36 * tiles * channels * num_out + weights + inputs + grads)


@register_flop_formula(torch.ops.mmseg_beit.far_conv)
def far_conv_flops(
    maps: Sequence[Shape], weights: Sequence[Shape], height: int, width: int, *args: object, **_: object
) -> int:
    """Products at the maps' pixels, then along the height, then along the width."""
    total = 0
    for (batch, channels, h, w), (num_out, _, kernel, _) in zip(maps, weights, strict=True):
        products = kernel**2 * h * w * channels
        resizing = height * kernel * h * w * kernel + height * width * w * kernel
        total += 2 * batch * num_out * (products + resizing)
    return total


@register_flop_formula(torch.ops.mmseg_beit.winograd_conv_half)
def winograd_conv_half_flops(x: Shape, weight: Shape, out_shape: Shape | None = None, **_: object) -> int:
    """The products; the transforms do not multiply."""
    return 2 * 16 * x[0] * math.ceil(x[2] / 2) * math.ceil(x[3] / 2) * weight[1] * weight[2]


@register_flop_formula(torch.ops.mmseg_beit.far_conv_backward)
def far_conv_backward_flops(
    grad: Shape, maps: Sequence[Shape], weights: Sequence[Shape], *args: object, **_: object
) -> int:
    """The products twice, for maps and weights, and the resizing once."""
    height, width = grad[2:]
    products = sum(2 * w[0] * w[2] ** 2 * math.prod(m) for m, w in zip(maps, weights, strict=True))
    return far_conv_flops(maps, weights, height, width) + products


def _num_tiles(x: Shape) -> int:
    return x[0] * math.ceil(x[2] / 4) * math.ceil(x[3] / 4)
