"""Products of a convolution taken before its input's resizing ("taps") in plain torch, and when a GPU gains by it.

See :mod:`~mmseg_beit.models.layers.resampling` for the idea; on a CPU an operator of its own there does the same in
less memory.

Shape suffixes: h, w a map's pixels, H, W the output's, C channels in, O channels out, k side of the kernel.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .choice import choose
from .interpolation import interpolation_matrix
from .kept import constant
from .tracing import is_exporting

# On a GPU predictions go by the rule for this many calls with one shape: pictures of a size of their own each would be
# measured for nothing.
_PATIENCE = 20


def resize(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Bilinear resizing of (B, C, h, w) to (B, C, H, W); the same tensor where the size is right."""
    if not is_exporting() and tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=align_corners)


@constant(maxsize=256)
def tap_matrix(src: int, dst: int, align_corners: bool, kernel: int) -> Tensor:
    """Resizing and convolving along one axis as a matrix over the taps.

    Returns:
        Float32 (dst, kernel * src) on the CPU: block t is the resizing read t - kernel // 2 pixels further on, zero
        beyond its ends. Do not write into it.
    """
    margin = kernel // 2
    padded = F.pad(interpolation_matrix(src, dst, align_corners), (0, 0, margin, margin))
    return torch.cat([padded[t : t + dst] for t in range(kernel)], dim=1)


def plain_far_conv(
    maps: Sequence[Tensor], weights: Sequence[Tensor], height: int, width: int, align_corners: bool
) -> Tensor:
    """The far maps' share in plain torch, (B, O, H, W). Autograd keeps none of the taps."""
    out = None
    for m, weight in zip(maps, weights, strict=True):
        batch, channels, h, w = m.shape
        num_out, _, kernel, _ = weight.shape
        rows, cols = _matrices_like(m, kernel, height, width, align_corners)
        taps = m.permute(0, 2, 3, 1).reshape(batch, 1, h * w, channels) @ by_rows(weight)
        across = torch.bmm(rows.expand(batch, -1, -1), taps.view(batch, kernel * h, -1))
        across = across.view(batch * height, w * kernel, num_out)
        summand = torch.bmm(cols.expand(batch * height, -1, -1), across).view(batch, height, width, num_out)
        out = summand if out is None else out + summand
    return out.permute(0, 3, 1, 2)


def tap_matrices(m: Tensor, kernel: int, height: int, width: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Matrices (H, k h) over (tap, pixel) and (W, w k) over (pixel, tap), as the products lie in memory."""
    rows = tap_matrix(m.shape[2], height, align_corners, kernel)
    cols = tap_matrix(m.shape[3], width, align_corners, kernel)
    return rows, cols.view(width, kernel, -1).transpose(1, 2).reshape(width, -1)


def by_rows(weight: Tensor) -> Tensor:
    """(O, C, k, k) to one matrix (C, k O) for each row of the kernel."""
    return weight.permute(2, 1, 3, 0).flatten(2)


def in_order_of_taps(weight: Tensor) -> Tensor:
    """The weight (O, C, k, k) with its numbers in memory in the order (row of the kernel, C, column, O)."""
    return weight.permute(2, 1, 3, 0).contiguous().permute(3, 1, 0, 2)


def _matrices_like(m: Tensor, kernel: int, height: int, width: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """:func:`tap_matrices` on a map's device and in its dtype; on a GPU kept there, as a copy would wait for it."""
    if m.device.type == 'cpu' or torch.compiler.is_compiling():
        rows, cols = tap_matrices(m, kernel, height, width, align_corners)
        return rows.to(m), cols.to(m)
    return _matrices_on(m.device, m.dtype, tuple(m.shape[2:]), kernel, height, width, align_corners)


@constant(maxsize=64)
def _matrices_on(
    device: torch.device,
    dtype: torch.dtype,
    map_size: tuple[int, int],
    kernel: int,
    height: int,
    width: int,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    like = torch.empty(1, 1, *map_size, device='meta')
    rows, cols = tap_matrices(like, kernel, height, width, align_corners)
    return rows.to(device, dtype), cols.to(device, dtype)


def taps_are_faster(m: Tensor, weight: Tensor, size: tuple[int, int], align_corners: bool, by_rule: bool) -> bool:
    """Measures once for each shape whether a map's products before the resizing beat those after it.

    Args:
        m: Float (B, C, h, w); only its looks matter.
        weight: (O, C, k, k), likewise.
        size: (H, W) pixels of the output.
        align_corners: Of the resizing.
        by_rule: The answer where nothing can be measured.
    """
    training = torch.is_grad_enabled() and (m.requires_grad or weight.requires_grad)
    channels_last = not m.is_contiguous() and m.is_contiguous(memory_format=torch.channels_last)
    looks = (tuple(m.shape), tuple(weight.shape), tuple(size), align_corners, m.dtype, channels_last)
    key = ('convolution', *looks, 'training' if training else 'prediction', str(m.device))
    candidates = {name: partial(trial, name, *looks, m.device, training) for name in ('taps', 'full size')}
    rule = 'taps' if by_rule else 'full size'
    return choose(key, candidates, m.device, rule, patience=0 if training else _PATIENCE) == 'taps'


def trial(
    name: str,
    map_shape: tuple[int, int, int, int],
    weight_shape: tuple[int, int, int, int],
    size: tuple[int, int],
    align_corners: bool,
    dtype: torch.dtype,
    channels_last: bool,
    device: torch.device,
    training: bool,
) -> Callable[[], object]:
    """What a measurement runs: ``taps`` or ``full size`` on random tensors, with both gradients where training."""
    generator = torch.Generator(device).manual_seed(0)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    m = torch.randn(map_shape, dtype=dtype, device=device, generator=generator).to(memory_format=memory_format)
    weight = torch.randn(weight_shape, dtype=dtype, device=device, generator=generator)
    grad = torch.randn(map_shape[0], weight_shape[0], *size, dtype=dtype, device=device, generator=generator)
    m.requires_grad_(training)
    weight.requires_grad_(training)

    def run() -> tuple[Tensor, ...]:
        if name == 'taps':
            out = plain_far_conv([m], [weight], *size, align_corners)
        else:
            out = F.conv2d(resize(m, size, align_corners), weight, padding=weight_shape[2] // 2)
        return (out.detach(), *torch.autograd.grad(out, (m, weight), grad)) if training else (out,)

    return run if training else torch.no_grad()(run)
