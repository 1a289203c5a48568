"""mmcv's ``ConvModule`` over resized maps, with the resizing after the products where that is less work."""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from ..layers.resampling import conv_of_maps, resize
from ..layers.tracing import is_exporting


def convolve(module: ConvModule, maps: Sequence[Tensor], size: tuple[int, int], align_corners: bool) -> Tensor:
    """``module(cat([resize(m, size) for m in maps], 1))`` with the same numbers to rounding.

    Args:
        module: Convolution, normalisation and activation. Where it is more than a plain convolution of odd side in
            front of them, and in exported graphs, it is called as it is.
        maps: Float (B, C_m, h_m, w_m), one or more.
        size: (H, W) pixels of the output.
        align_corners: As in ``torch.nn.functional.interpolate``.

    Returns:
        Float (B, O, H, W).
    """
    if is_exporting() or not _is_plain(module):
        resized = [resize(m, size, align_corners) for m in maps]
        return module(resized[0] if len(resized) == 1 else torch.cat(resized, dim=1))
    x = conv_of_maps(maps, module.conv.weight, module.conv.bias, size, align_corners)
    if module.with_norm:
        x = module.norm(x)
    return module.activate(x) if module.with_activation else x


def _is_plain(module: ConvModule) -> bool:
    conv = module.conv
    side = conv.kernel_size[0]
    return (
        type(conv) is nn.Conv2d
        and module.order == ('conv', 'norm', 'act')
        and not module.with_explicit_padding
        and not module.with_spectral_norm
        and conv.padding_mode == 'zeros'
        and conv.kernel_size == (side, side)
        and side % 2 == 1
        and conv.padding == (side // 2, side // 2)
        and conv.stride == conv.dilation == (1, 1)
        and conv.groups == 1
        and not conv._forward_hooks
        and not conv._forward_pre_hooks
    )
