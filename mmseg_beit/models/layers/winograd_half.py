"""3x3 convolutions in bfloat16 with four ninths of the products: Winograd's F(2x2, 3x3) (arXiv:1509.09308).

A tile of 2 x 2 outputs costs 4 x 4 channel products instead of 9 x 4. Its transforms only add and subtract, so they
stay benign in bfloat16: over 768 channels the output's error is 6.1e-3 of its norm, where a direct convolution of the
same bfloat16 tensors has 2.9e-3. F(4x4, 3x3), which float32 takes, would lose ten times as much. For prediction only:
there is no backward pass.

Shape suffixes: H, W pixels, C channels in, O channels out, t tiles (2 x 2 pixels), i, j the place in a 4 x 4 tile.
"""

import torch
from torch import Tensor

# Transformed inputs of one strip of tiles, in bytes: with the products as large again they stay in a CPU's outer cache
# (measured: 768 channels at 128x128 in 228 ms, 256 ms with a quarter of it, 253 ms with four times as much).
_SCRATCH_BYTES = 6 << 20


def transform_weight(weight: Tensor) -> Tensor:
    """Float (O, C, 3, 3) to bfloat16 (16, C, O), by way of float32."""
    g = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])
    taps = weight.float().permute(2, 3, 1, 0).reshape(9, -1)
    return torch.mm(torch.kron(g, g), taps).view(16, *weight.shape[1::-1]).bfloat16()


@torch.library.custom_op('mmseg_beit::winograd_conv_half', mutates_args=())
def winograd_conv_half(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution with stride 1 and zero padding 1.

    Args:
        x: bfloat16 (B, C, H, W) on the CPU; best channels last in memory.
        weight: bfloat16 (16, C, O) from :func:`transform_weight`.

    Returns:
        bfloat16 (B, O, H, W), channels last in memory.
    """
    height, width = x.shape[2:]
    tiles_y, tiles_x = -(-height // 2), -(-width // 2)
    out = _empty_out(x, weight)
    whole_tiles = height % 2 == width % 2 == 0
    x_BHWC, out_BHWO = x.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1)
    if not whole_tiles:
        out_BHWO = x.new_empty(len(x), 2 * tiles_y, 2 * tiles_x, weight.shape[2])
    step = max(_SCRATCH_BYTES // (16 * tiles_x * max(weight.shape[1:]) * x.itemsize), 1)
    for image, out_image in zip(x_BHWC, out_BHWO, strict=True):
        for start in range(0, tiles_y, step):
            count = min(step, tiles_y - start)
            tiles_ijytC = _tiles(image, start, count, tiles_x)
            product = torch.bmm(tiles_ijytC.view(16, count * tiles_x, -1), weight)
            _write_outputs(product.view(4, 4, count, tiles_x, -1), out_image[2 * start : 2 * (start + count)])
    if not whole_tiles:
        out.copy_(out_BHWO[:, :height, :width].permute(0, 3, 1, 2))
    return out


@winograd_conv_half.register_fake
def _empty_out(x: Tensor, weight: Tensor) -> Tensor:
    shape = (x.shape[0], weight.shape[2], *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _tiles(image_HWC: Tensor, start: int, count: int, tiles_x: int) -> Tensor:
    """Transforms ``count`` rows of tiles from row ``start`` on: (4, 4, count, tiles_x, C)."""
    height, width, channels = image_HWC.shape
    top = 2 * start - 1
    first, last = max(top, 0), min(top + 2 * count + 2, height)
    strip = image_HWC.new_zeros(2 * count + 2, 2 * tiles_x + 2, channels)
    strip[first - top : last - top, 1 : 1 + width] = image_HWC[first:last]
    down = image_HWC.new_empty(4, count, 2 * tiles_x + 2, channels)
    _differences([strip[i : i + 2 * count - 1 : 2] for i in range(4)], down)
    tiles = image_HWC.new_empty(4, 4, count, tiles_x, channels)
    _differences([down[:, :, j : j + 2 * tiles_x - 1 : 2] for j in range(4)], tiles.transpose(0, 1))
    return tiles


def _differences(d: list[Tensor], out: Tensor) -> None:
    """The transform of inputs along one axis: four entries to four."""
    torch.sub(d[0], d[2], out=out[0])
    torch.add(d[1], d[2], out=out[1])
    torch.sub(d[2], d[1], out=out[2])
    torch.sub(d[1], d[3], out=out[3])


def _write_outputs(product_ijytO: Tensor, rows_HWO: Tensor) -> None:
    """The transform of outputs along both axes, four entries to two each, into their rows (2 y, W, O)."""
    _, _, count, tiles_x, num_out = product_ijytO.shape
    places = rows_HWO.view(count, 2, tiles_x, 2, num_out)
    m = product_ijytO
    sums = torch.add(m[1], m[2]).add_(m[0]), torch.sub(m[1], m[2]).sub_(m[3])
    for row, m in enumerate(sums):
        torch.add(m[1], m[2], out=places[:, row, :, 0]).add_(m[0])
        torch.sub(m[1], m[2], out=places[:, row, :, 1]).sub_(m[3])
