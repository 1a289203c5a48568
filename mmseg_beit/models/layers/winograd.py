"""3x3 convolutions with a quarter of the products: Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv:1509.09308).

A tile of 4 x 4 outputs costs 6 x 6 channel products instead of 9 x 16. NOTE(paper): the interpolation points are 0, 1,
-1, 1/2, -2 and infinity instead of 0, 1, -1, 2, -2 and infinity; mixing a point with another's inverse halves the
rounding error (Barabasz et al., arXiv:1803.10986). Measured over 768 channels: 1.5e-6 of the output's norm in float32,
2e-7 for a direct convolution. Not for half precision.

Shape suffixes: H, W pixels, C channels in, O channels out, t tiles (4 x 4 pixels, row by row), i, j the place in a
6 x 6 tile.
"""

import torch
from torch import Tensor

from .kept import constant

# Scratch of one strip of tiles, in bytes. Blocks beyond 32 MB come fresh from the system at every allocation (glibc),
# and zeroing their pages takes longer than the transforms that fill them.
_SCRATCH_BYTES = 28 << 20


@constant(maxsize=8)
def _transforms(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices of the transforms of outputs (4, 6), weights (6, 3) and inputs (6, 6)."""
    outputs = [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 0.5, -2.0, 0.0],
        [0.0, 1.0, 1.0, 0.25, 4.0, 0.0],
        [0.0, 1.0, -1.0, 0.125, -8.0, 1.0],
    ]
    weights = [
        [1.0, 0.0, 0.0],
        [1 / 3, 1 / 3, 1 / 3],
        [-1 / 3, 1 / 3, -1 / 3],
        [-16 / 15, -8 / 15, -4 / 15],
        [1 / 15, -2 / 15, 4 / 15],
        [0.0, 0.0, 1.0],
    ]
    inputs = [
        [1.0, -1.5, -2.0, 1.5, 1.0, 0.0],
        [0.0, -1.0, 0.5, 2.5, 1.0, 0.0],
        [0.0, 1.0, -2.5, 0.5, 1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 0.5, -1.0, -0.5, 1.0, 0.0],
        [0.0, 1.0, -1.5, -2.0, 1.5, 1.0],
    ]
    return tuple(torch.tensor(matrix, dtype=torch.float64).to(dtype) for matrix in (outputs, weights, inputs))


def winograd_conv(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution with stride 1 and zero padding 1. Differentiable once.

    Args:
        x: Float32 or float64 (B, C, H, W) on the CPU; best channels last in memory.
        weight: (O, C, 3, 3) of the same dtype.

    Returns:
        (B, O, H, W), channels last in memory.
    """
    return _convolve(x, weight)


@torch.library.custom_op('mmseg_beit::winograd_conv', mutates_args=())
def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    outs, _, to_tiles = _transforms(x.dtype)
    weight_ijCO = _transform_weight(weight)
    tiles_y, tiles_x = -(-height // 4), -(-width // 4)
    out = _empty_out(x, weight)
    whole_tiles = height % 4 == width % 4 == 0
    out_BHWO = out.permute(0, 2, 3, 1)
    if not whole_tiles:
        out_BHWO = x.new_empty(batch, 4 * tiles_y, 4 * tiles_x, weight.shape[0])
    for image, start, count in _strips(batch, tiles_y, tiles_x, max(weight.shape[:2]), x.itemsize):
        tiles_itjC = _tiles(x[image], to_tiles, start, count, tiles_x)
        product_ijtO = x.new_empty(6, 6, count * tiles_x, weight.shape[0])
        for i in range(6):
            torch.bmm(tiles_itjC[i].transpose(0, 1), weight_ijCO[i], out=product_ijtO[i])
        del tiles_itjC
        # Along the height, then along the width into place.
        rows = torch.mm(outs, product_ijtO.view(6, -1)).view(4, 6, count, tiles_x, -1)
        del product_ijtO
        for y in range(count):
            for p in range(4):
                place = out_BHWO[image, 4 * (start + y) + p].view(tiles_x, 4, -1)
                torch.bmm(outs.expand(tiles_x, -1, -1), rows[p, :, y].transpose(0, 1), out=place)
    if not whole_tiles:
        out.copy_(out_BHWO[:, :height, :width].permute(0, 3, 1, 2))
    return out


@_convolve.register_fake
def _empty_out(x: Tensor, weight: Tensor) -> Tensor:
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    # Not a view, or autograd would refuse to add to it in place.
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@torch.library.custom_op('mmseg_beit::winograd_weight_grad', mutates_args=())
def _weight_grad(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient (O, C, 3, 3) of the weight: both maps' tiles multiplied place by place, then transformed back."""
    batch, channels, height, width = x.shape
    outs, of_weight, to_tiles = _transforms(x.dtype)
    from_outs = outs.t().contiguous()
    tiles_y, tiles_x = -(-height // 4), -(-width // 4)
    num_out = grad.shape[1]
    grad_ijCO = x.new_zeros(6, 6, channels, num_out)
    for image, start, count in _strips(batch, tiles_y, tiles_x, max(channels, num_out), x.itemsize):
        tiles_itjC = _tiles(x[image], to_tiles, start, count, tiles_x)
        grads_itjO = _tiles(grad[image], from_outs, start, count, tiles_x)
        for i in range(6):
            grad_ijCO[i].baddbmm_(tiles_itjC[i].permute(1, 2, 0), grads_itjO[i].transpose(0, 1))
    grad_weight = torch.mm(torch.kron(of_weight, of_weight).t(), grad_ijCO.view(36, -1))
    return grad_weight.view(3, 3, channels, num_out).permute(3, 2, 0, 1).contiguous()


@_weight_grad.register_fake
def _(grad: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(grad.shape[1], x.shape[1], 3, 3)


def _context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    # The input's gradient is the convolution with the kernel turned around.
    grad_x = _convolve(grad, weight.flip(2, 3).transpose(0, 1)) if ctx.needs_input_grad[0] else None
    return grad_x, _weight_grad(grad, x) if ctx.needs_input_grad[1] else None


_convolve.register_autograd(_backward, setup_context=_context)


def _transform_weight(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) to (6, 6, C, O)."""
    of_weight = _transforms(weight.dtype)[1]
    taps = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return torch.mm(torch.kron(of_weight, of_weight), taps).view(6, 6, *weight.shape[1::-1])


def _tiles(image: Tensor, matrix: Tensor, start: int, count: int, tiles_x: int) -> Tensor:
    """Transforms ``count`` rows of tiles of (C, H, W) from row ``start`` on: (6, count * tiles_x, 6, C).

    The matrix is (6, 6) for inputs, whose tiles reach one pixel beyond the 4 x 4 outputs on every side, and (6, 4) for
    gradients of outputs.
    """
    channels, height, width = image.shape
    side = matrix.shape[1]
    margin = (side - 4) // 2
    top = 4 * start - margin
    first, last = max(top, 0), min(top + 4 * count + 2 * margin, height)
    strip = image.new_zeros(4 * count + 2 * margin, 4 * tiles_x + 2 * margin, channels)
    strip[first - top : last - top, margin : margin + width] = image[:, first:last].permute(1, 2, 0)
    across = image.new_empty(len(strip), tiles_x * 6 * channels)
    for row, of_row in zip(strip, across, strict=True):
        windows = row.as_strided((tiles_x, side, channels), (4 * channels, channels, 1))
        torch.bmm(matrix.expand(tiles_x, -1, -1), windows, out=of_row.view(tiles_x, 6, channels))
    tiles = image.new_empty(6, count, tiles_x * 6 * channels)
    for y in range(count):
        torch.mm(matrix, across[4 * y : 4 * y + side], out=tiles[:, y])
    return tiles.view(6, count * tiles_x, 6, channels)


def _strips(batch: int, tiles_y: int, tiles_x: int, channels: int, itemsize: int) -> list[tuple[int, int, int]]:
    """(image, first row of tiles, rows of tiles) of each piece of work that fits the scratch."""
    rows = max(_SCRATCH_BYTES // (36 * tiles_x * channels * itemsize), 1)
    return [(i, y, min(rows, tiles_y - y)) for i in range(batch) for y in range(0, tiles_y, rows)]
