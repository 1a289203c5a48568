"""Convolutions over maps that are only resized: their products at the maps' own resolution.

``conv(resize(x))`` is linear in x and its channel products do not depend on the pixel, so they are taken before the
resizing: a k x k kernel gives k k small maps of products ("taps"), and resizing, shifting by the tap's offset, cutting
at the zero border and summing over taps are one banded matrix for each axis. A map four times smaller in both sides
costs a sixteenth of the products. The numbers are those of the plain form to rounding, at any size ratio.

On a CPU in float32 the maps that are not much smaller go through :mod:`~mmseg_beit.models.layers.winograd`.

Shape suffixes: h, w a map's pixels, H, W the output's, C channels in, O channels out, k side of the kernel.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from .hardware import multiplies_bfloat16_by_vectors
from .kept import kept
from .taps import by_rows, in_order_of_taps, plain_far_conv, resize, tap_matrices, taps_are_faster
from .winograd import winograd_conv
from .winograd_half import transform_weight, winograd_conv_half

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


def use_winograd_half(x: Tensor, weight: Tensor, size: tuple[int, int]) -> bool:
    """The rule for predictions in bfloat16 (without gradients): whether the smaller Winograd form serves.

    Measured on two cores with AVX-512 BF16, direct over Winograd: 768 channels at 128x128 1.6, 64x64 1.6, 32x32 1.8;
    1024 at 64x64 1.7; 512 at 64x64 and 32x32 1.5; 768 to 256 at 32x32 1.4; 256 at 128x128 1.1, at 64x64 and 32x32 1.2;
    128 at 128x128 0.8.
    """
    num_tiles = x.shape[0] * size[0] * size[1] / 4
    plain = x.device.type == 'cpu' and x.dtype == torch.bfloat16 and weight.shape[2:] == (3, 3)
    return plain and min(weight.shape[:2]) >= 256 and num_tiles >= 256 and multiplies_bfloat16_by_vectors()


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


def _is_far(m: Tensor, weight: Tensor, size: tuple[int, int], align_corners: bool) -> bool:
    """What decides for one map: on a GPU a measurement where one can be taken, else the rule."""
    by_rule = use_taps(m, weight, size)
    if m.device.type != 'cuda' or tuple(m.shape[2:]) == tuple(size) or torch.compiler.is_compiling():
        return by_rule
    return taps_are_faster(m, weight, size, align_corners, by_rule)


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
    dtype = maps[0].dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        maps = [m.to(dtype) for m in maps]
        bias = None if bias is None else bias.to(dtype)
    ends = list(accumulate(m.shape[1] for m in maps))
    shares = [slice(end - m.shape[1], end) for m, end in zip(maps, ends, strict=True)]
    far = [_is_far(m, weight[:, share], size, align_corners) for m, share in zip(maps, shares, strict=True)]
    predicting = not (torch.is_grad_enabled() and any(t.requires_grad for t in (*maps, weight)))
    out = None
    if not all(far):
        resized = [resize(m, size, align_corners) for m, is_far in zip(maps, far, strict=True) if not is_far]
        x = resized[0] if len(resized) == 1 else torch.cat(resized, dim=1)
        near_shares = [share for share, is_far in zip(shares, far, strict=True) if not is_far]
        out = _conv_of_near(x, weight, near_shares, bias, predicting)
        if not any(far):
            return out
    far_maps = [m for m, is_far in zip(maps, far, strict=True) if is_far]
    far_shares = [share for share, is_far in zip(shares, far, strict=True) if is_far]
    of_far = _far_weights(far_maps, weight, far_shares, predicting)
    if out is None:
        out = _conv_of_far(far_maps, of_far, size, align_corners)
        return out if bias is None else out.add_(bias[:, None, None])
    if device == 'cpu' and predicting and not torch.compiler.is_compiling():
        _fill_far(out, far_maps, of_far, align_corners, add=True)
        return out
    return out.add_(_conv_of_far(far_maps, of_far, size, align_corners))


def _conv_of_near(x: Tensor, weight: Tensor, shares: list[slice], bias: Tensor | None, predicting: bool) -> Tensor:
    """The convolution of maps (B, C, H, W) that have the output's size, with their shares of the weight's channels."""

    def share_of_weight() -> Tensor:
        whole = x.shape[1] == weight.shape[1]
        return (weight if whole else torch.cat([weight[:, share] for share in shares], dim=1)).to(x.dtype)

    places = tuple((share.start, share.stop) for share in shares)
    like_weight = weight[:, : x.shape[1]]
    size = tuple(x.shape[2:])
    if predicting and use_winograd_half(x, like_weight, size):
        prepared = kept(weight, ('winograd half', places), lambda: transform_weight(share_of_weight()))
        out = winograd_conv_half(x, prepared)
    elif use_winograd(x, like_weight, size):
        out = winograd_conv(x, share_of_weight())
    else:
        prepared = kept(weight, ('near', places, x.dtype), share_of_weight) if predicting else share_of_weight()
        return F.conv2d(x, prepared, bias, padding=weight.shape[2] // 2)
    return out if bias is None else out.add_(bias[:, None, None])


def _far_weights(maps: list[Tensor], weight: Tensor, shares: list[slice], predicting: bool) -> list[Tensor]:
    """Each far map's share (O, C_m, k, k) of the weight in the maps' dtype."""
    dtype = maps[0].dtype

    def in_dtype() -> list[Tensor]:
        return [weight[:, share].to(dtype) for share in shares]

    if maps[0].device.type != 'cpu' or not predicting or weight.requires_grad or weight.dtype == dtype:
        return in_dtype()
    places = tuple((share.start, share.stop) for share in shares)
    return kept(weight, ('far', places, dtype), lambda: [in_order_of_taps(w) for w in in_dtype()])


def _conv_of_far(maps: list[Tensor], weights: list[Tensor], size: tuple[int, int], align_corners: bool) -> Tensor:
    """The share of the maps (B, C_m, h_m, w_m) whose products are taken before their resizing: (B, O, H, W)."""
    conv = _far_conv if maps[0].device.type == 'cpu' else plain_far_conv
    return conv(maps, weights, *size, align_corners)


@torch.library.custom_op('mmseg_beit::far_conv', mutates_args=())
def _far_conv(maps: list[Tensor], weights: list[Tensor], height: int, width: int, align_corners: bool) -> Tensor:
    """The far maps' share on a CPU, (B, O, H, W) channels last."""
    out = _empty_far_conv(maps, weights, height, width, align_corners)
    _fill_far(out, maps, weights, align_corners, add=False)
    return out


def _fill_far(out: Tensor, maps: list[Tensor], weights: list[Tensor], align_corners: bool, add: bool) -> None:
    """Writes or adds the far maps' share to (B, O, H, W), a few output channels at a time."""
    height, width = out.shape[2:]
    rows, cols = _joint_matrices(maps, weights[0].shape[2], height, width, align_corners)
    for chunk in _channel_chunks(maps, weights, height):
        _far_chunk(maps, [_by_taps(weight[chunk]) for weight in weights], rows, cols, out[:, chunk], add)


def _by_taps(weight: Tensor) -> Tensor:
    """(O, C, k, k) as matrices (row of the kernel, C, column, O): a view of a weight that is laid out for it."""
    by_taps = weight.permute(2, 1, 3, 0)
    return by_taps if by_taps.stride(3) == 1 else by_taps.contiguous()


def _far_chunk(
    maps: list[Tensor], matrices: list[Tensor], rows: list[Tensor], cols: Tensor, out: Tensor, add: bool
) -> None:
    """Fills the output channels ``out``, (B, O, H, W), of matrices (k, C, k, O) for each map, or adds to them."""
    height, num_out = out.shape[2], out.shape[1]
    kernel = len(matrices[0])
    for image, of_image in enumerate(out.permute(0, 2, 3, 1)):
        across = out.new_empty(height, cols.shape[1], num_out)
        parts = across.split([kernel * m.shape[3] for m in maps], dim=1)
        for m, of_map, to_rows, part in zip(maps, matrices, rows, parts, strict=True):
            pixels = _pixels(m[image])
            taps = pixels.new_empty(kernel, len(pixels), kernel, num_out)
            for of_row, to_row in zip(taps, of_map, strict=True):
                if to_row.is_contiguous():
                    torch.mm(pixels, to_row.flatten(1), out=of_row.flatten(1))
                    continue
                for column in range(kernel):
                    torch.mm(pixels, to_row[:, column], out=of_row[:, column])
            torch.mm(to_rows, taps.view(to_rows.shape[1], -1), out=part.view(height, -1))
            del taps
        product = torch.bmm(cols.expand(height, -1, -1), across)
        if add:
            of_image += product
        else:
            of_image.copy_(product)


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
    rows, cols = _joint_matrices(maps, weights[0].shape[2], height, width, align_corners)
    for grad_map in grad_maps:
        grad_map.zero_()
    for chunk in _channel_chunks(maps, weights, height):
        matrices = [by_rows(weight[chunk]) for weight in weights]
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
    maps: list[Tensor], kernel: int, height: int, width: int, align_corners: bool
) -> tuple[list[Tensor], Tensor]:
    """The matrices along the height, one for each map, and those along the width side by side."""
    pairs = [tap_matrices(m, kernel, height, width, align_corners) for m in maps]
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
