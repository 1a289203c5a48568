"""Convolutions over maps that are only resized: their products at the maps' own resolution.

``conv(resize(x))`` is linear in x and its channel products do not depend on the pixel, so they are taken before the
resizing: a k x k kernel gives k k small maps of products ("taps"), and resizing, shifting by the tap's offset, cutting
at the zero border and summing over taps are one banded matrix for each axis. A map four times smaller in both sides
costs a sixteenth of the products. The numbers are those of the plain form to rounding, at any size ratio.

On a CPU in float32 the maps that are not much smaller go through :mod:`~mmseg_beit.models.layers.winograd`.

Shape suffixes: h, w a map's pixels, H, W the output's, C channels in, O channels out, k side of the kernel.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .interpolation import interpolation_matrix
from .tracing import is_exporting
from .winograd import winograd_conv

# Scratch of one chunk of output channels, in bytes; see the same constant of the Winograd convolution.
_SCRATCH_BYTES = 28 << 20


def use_winograd(x: Tensor, weight: Tensor, size: tuple[int, int]) -> bool:
    """The rule: whether a convolution at full resolution goes through the Winograd form.

    Measured on one core (AVX-512), direct over Winograd, forward and both gradients together: 768 channels at 64x64
    2.1, at 32x32 1.4 for two images and 0.6 for one; 768 to 256 at 32x32, two images, 1.8; 512 at 64x64 2.0; 256 at
    128x128 1.7, at 64x64 1.9; 128 at 128x128 1.3 (forward alone 1.1).
    """
    num_tiles = x.shape[0] * size[0] * size[1] / 16
    plain = x.device.type == 'cpu' and x.dtype == torch.float32 and weight.shape[2:] == (3, 3)
    return plain and min(weight.shape[:2]) >= 128 and num_tiles >= 128


def use_taps(m: Tensor, weight: Tensor, size: tuple[int, int]) -> bool:
    """The rule: whether a map's products are taken before its resizing.

    Compares products per output channel: the resizing afterwards is two of its own, of matrices that are mostly zeros.
    Measured on one core, 768 channels, 64x64 to 128x128: 0.60 s, and 0.64 s at full resolution with Winograd's form (a
    direct convolution: 1.5 s).
    """
    (_, channels, h, w), (height, width), kernel = m.shape, size, weight.shape[2]
    taps = h * w * kernel**2 * channels + kernel * h * height * w * kernel + kernel * w * height * width
    # A Winograd product costs 1.3 of a plain one, its transforms included.
    at_full = 1.3 * 2.25 if use_winograd(m, weight, size) else kernel**2
    return taps < at_full * height * width * channels


def conv_of_maps(
    maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None, size: tuple[int, int], align_corners: bool
) -> Tensor:
    """``conv2d(cat([resize(m, size) for m in maps], 1), weight, bias, padding=k // 2)``, resized bilinearly.

    Differentiable once. Runs under autocast in its dtype, as ``conv2d`` does.

    Args:
        maps: Float (B, C_m, h_m, w_m), one or more.
        weight: (O, sum of C_m, k, k), k odd.
        bias: (O,) or ``None``.
        size: (H, W) pixels of the output.
        align_corners: As in ``torch.nn.functional.interpolate``.

    Returns:
        Float (B, O, H, W), channels last in memory unless all is plain.

    Raises:
        ValueError: The kernel is not square and odd, or the channels do not add up.
    """
    kernel = weight.shape[2]
    if weight.shape[3] != kernel or kernel % 2 == 0:
        raise ValueError(f'the kernel must be square and odd, not {tuple(weight.shape[2:])}')
    if sum(m.shape[1] for m in maps) != weight.shape[1]:
        raise ValueError(f'the maps have {sum(m.shape[1] for m in maps)} channels, the weight takes {weight.shape[1]}')
    device = maps[0].device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        maps = [m.to(dtype) for m in maps]
        weight = weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    near, far = [], []
    for m, w in zip(maps, weight.split([m.shape[1] for m in maps], dim=1), strict=True):
        (far if use_taps(m, w, size) else near).append((m, w))
    out = None
    if far:
        op = _far_conv if device == 'cpu' else _plain_far_conv
        out = op([m for m, _ in far], [w for _, w in far], *size, align_corners)
    if near:
        resized = [resize(m, size, align_corners) for m, _ in near]
        x = resized[0] if len(near) == 1 else torch.cat(resized, dim=1)
        w = weight if len(near) == len(maps) else torch.cat([w for _, w in near], dim=1)
        if use_winograd(x, w, size):
            summand = winograd_conv(x, w)
            summand = summand if bias is None else summand.add_(bias[:, None, None])
        else:
            summand = F.conv2d(x, w, bias, padding=kernel // 2)
        return summand if out is None else summand.add_(out)
    return out if bias is None else out.add_(bias[:, None, None])


def resize(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Bilinear resizing of (B, C, h, w) to (B, C, H, W); the same tensor where the size is right."""
    if not is_exporting() and tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=align_corners)


@lru_cache(maxsize=256)
def tap_matrix(src: int, dst: int, align_corners: bool, kernel: int) -> Tensor:
    """Resizing and convolving along one axis as a matrix over the taps.

    Returns:
        Float32 (dst, kernel * src) on the CPU: block t is the resizing read t - kernel // 2 pixels further on, zero
        beyond its ends. Do not write into it.
    """
    margin = kernel // 2
    padded = F.pad(interpolation_matrix(src, dst, align_corners), (0, 0, margin, margin))
    return torch.cat([padded[t : t + dst] for t in range(kernel)], dim=1)


def _plain_far_conv(
    maps: Sequence[Tensor], weights: Sequence[Tensor], height: int, width: int, align_corners: bool
) -> Tensor:
    """The far maps' share in plain torch, (B, O, H, W). Autograd keeps none of the taps."""
    out = None
    for m, weight in zip(maps, weights, strict=True):
        batch, channels, h, w = m.shape
        num_out, _, kernel, _ = weight.shape
        rows, cols = (matrix.to(m) for matrix in _tap_matrices(m, weight, height, width, align_corners))
        taps = m.permute(0, 2, 3, 1).reshape(batch, 1, h * w, channels) @ _by_rows(weight)
        across = torch.bmm(rows.expand(batch, -1, -1), taps.view(batch, kernel * h, -1))
        across = across.view(batch * height, w * kernel, num_out)
        summand = torch.bmm(cols.expand(batch * height, -1, -1), across).view(batch, height, width, num_out)
        out = summand if out is None else out + summand
    return out.permute(0, 3, 1, 2)


def _tap_matrices(m: Tensor, weight: Tensor, height: int, width: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Matrices (H, k h) over (tap, pixel) and (W, w k) over (pixel, tap), as the products lie in memory."""
    kernel = weight.shape[2]
    rows = tap_matrix(m.shape[2], height, align_corners, kernel)
    cols = tap_matrix(m.shape[3], width, align_corners, kernel)
    return rows, cols.view(width, kernel, -1).transpose(1, 2).reshape(width, -1)


def _by_rows(weight: Tensor) -> Tensor:
    """(O, C, k, k) to one matrix (C, k O) for each row of the kernel."""
    return weight.permute(2, 1, 3, 0).flatten(2)


@torch.library.custom_op('mmseg_beit::far_conv', mutates_args=())
def _far_conv(maps: list[Tensor], weights: list[Tensor], height: int, width: int, align_corners: bool) -> Tensor:
    """The far maps' share on a CPU, (B, O, H, W) channels last, a few output channels at a time."""
    out = _empty_far_conv(maps, weights, height, width, align_corners)
    rows, cols = _joint_matrices(maps, weights, height, width, align_corners)
    for chunk in _channel_chunks(maps, weights, height):
        matrices = [_by_rows(weight[chunk]) for weight in weights]
        for image in range(len(out)):
            across = out.new_empty(height, cols.shape[1], chunk.stop - chunk.start)
            parts = across.split([w.shape[2] * m.shape[3] for m, w in zip(maps, weights, strict=True)], dim=1)
            for m, matrix, to_rows, part in zip(maps, matrices, rows, parts, strict=True):
                taps = torch.bmm(_pixels(m[image]).expand(len(matrix), -1, -1), matrix)
                torch.mm(to_rows, taps.view(to_rows.shape[1], -1), out=part.view(height, -1))
                del taps
            out[image, chunk] = torch.bmm(cols.expand(height, -1, -1), across).permute(2, 0, 1)
    return out


@_far_conv.register_fake
def _empty_far_conv(maps: list[Tensor], weights: list[Tensor], height: int, width: int, align_corners: bool) -> Tensor:
    # Not a view, or autograd would refuse to add to it in place.
    shape = (maps[0].shape[0], weights[0].shape[0], height, width)
    return torch.empty(shape, dtype=maps[0].dtype, device=maps[0].device, memory_format=torch.channels_last)


@torch.library.custom_op('mmseg_beit::far_conv_backward', mutates_args=())
def _far_conv_backward(
    grad: Tensor, maps: list[Tensor], weights: list[Tensor], align_corners: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of the maps, channels last, and of the weights; the adjoints of the same products."""
    grad_maps, grad_weights = _empty_far_grads(grad, maps, weights, align_corners)
    height, width = grad.shape[2:]
    rows, cols = _joint_matrices(maps, weights, height, width, align_corners)
    for grad_map in grad_maps:
        grad_map.zero_()
    for chunk in _channel_chunks(maps, weights, height):
        matrices = [_by_rows(weight[chunk]) for weight in weights]
        grad_matrices = [torch.zeros_like(matrix) for matrix in matrices]
        for image in range(len(grad)):
            across = torch.bmm(cols.t().expand(height, -1, -1), grad[image, chunk].permute(1, 2, 0))
            parts = across.split([w.shape[2] * m.shape[3] for m, w in zip(maps, weights, strict=True)], dim=1)
            for i, part in enumerate(parts):
                taps = torch.mm(rows[i].t(), part.view(height, -1)).view(len(matrices[i]), -1, matrices[i].shape[2])
                grad_matrices[i].baddbmm_(_pixels(maps[i][image]).t().expand(len(taps), -1, -1), taps)
                grad_pixels = grad_maps[i][image].permute(1, 2, 0).flatten(0, 1)
                for of_row, matrix in zip(taps, matrices[i], strict=True):
                    grad_pixels.addmm_(of_row, matrix.t())
                del taps
        for grad_weight, grad_matrix in zip(grad_weights, grad_matrices, strict=True):
            kernel = len(grad_matrix)
            grad_weight[chunk] = grad_matrix.unflatten(2, (kernel, -1)).permute(3, 1, 0, 2)
    return grad_maps, grad_weights


@_far_conv_backward.register_fake
def _empty_far_grads(
    grad: Tensor, maps: list[Tensor], weights: list[Tensor], align_corners: bool
) -> tuple[list[Tensor], list[Tensor]]:
    return [torch.empty_like(m, memory_format=torch.channels_last) for m in maps], [
        w.new_empty(w.shape) for w in weights
    ]


def _joint_matrices(
    maps: list[Tensor], weights: list[Tensor], height: int, width: int, align_corners: bool
) -> tuple[list[Tensor], Tensor]:
    """The matrices along the height, one for each map, and those along the width side by side."""
    pairs = [_tap_matrices(m, w, height, width, align_corners) for m, w in zip(maps, weights, strict=True)]
    return [rows.to(maps[0]) for rows, _ in pairs], torch.cat([cols for _, cols in pairs], dim=1).to(maps[0])


def _channel_chunks(maps: list[Tensor], weights: list[Tensor], height: int) -> list[slice]:
    """Output channels whose products fit the scratch, in equal shares."""
    kernel, num_out = weights[0].shape[2], weights[0].shape[0]
    taps = max(m.shape[2] * m.shape[3] for m in maps) * kernel**2
    across = sum(m.shape[3] for m in maps) * kernel * height
    fitting = max(_SCRATCH_BYTES // (max(taps, across) * maps[0].itemsize), 16)
    size = -(-num_out // -(-num_out // fitting))
    return [slice(start, min(start + size, num_out)) for start in range(0, num_out, size)]


def _pixels(image: Tensor) -> Tensor:
    """A map (C, h, w) as a matrix (h w, C), without a copy where it is laid out plainly or channels last."""
    return image.flatten(1).t() if image.is_contiguous() else image.permute(1, 2, 0).flatten(0, 1)


def _far_context(ctx, inputs: tuple, output: Tensor) -> None:
    maps, weights, _, _, ctx.align_corners = inputs
    ctx.num_maps = len(maps)
    ctx.save_for_backward(*maps, *weights)


def _far_backward(ctx, grad: Tensor) -> tuple:
    maps, weights = ctx.saved_tensors[: ctx.num_maps], ctx.saved_tensors[ctx.num_maps :]
    grad_maps, grad_weights = _far_conv_backward(grad, list(maps), list(weights), ctx.align_corners)
    return grad_maps, grad_weights, None, None, None


_far_conv.register_autograd(_far_backward, setup_context=_far_context)
