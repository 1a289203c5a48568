"""Position tables: resizing to another grid, and the relative position bias of a grid.

A relative position table holds one value per head for every offset between two patches of an h x w grid, then three
rows that involve the class token: class token to patch, patch to class token, class token to itself (BEiT, section 2.3
of the paper; the row order is the official code's).

Resizing follows the official segmentation code (microsoft/unilm, ``beit/semantic_segmentation``): old offsets are
placed at a geometric progression, so that near offsets keep their values and far ones are stretched, then read at unit
steps by an interpolating bicubic spline. The official code calls SciPy's ``interp2d``, which is gone; on a regular grid
that was the tensor-product not-a-knot spline, so here it is two small matrices, one for each axis, which also makes it
differentiable.

NOTE(reference): the official code handles square grids only; here each axis has its own progression.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .kept import constant
from .tracing import is_exporting

Grid = tuple[int, int]

NUM_CLS_ROWS = 3
"""Rows of a relative position table after those of the patch offsets."""


def num_relative_positions(grid: Grid) -> int:
    """Rows of the relative position table of an (h, w) grid, those of the class token included."""
    h, w = grid
    return (2 * h - 1) * (2 * w - 1) + NUM_CLS_ROWS


def square_grid(num_rows: int) -> Grid | None:
    """The square grid whose relative position table has ``num_rows`` rows, ``None`` if there is none."""
    side = round(max(num_rows - NUM_CLS_ROWS, 0) ** 0.5)
    grid = ((side + 1) // 2, (side + 1) // 2)
    return grid if side % 2 and num_relative_positions(grid) == num_rows else None


def _geometric_ratio(num_steps: int, reach: int) -> float:
    """Ratio q in [1.01, 1.5] with 1 + q + ... + q^(num_steps - 1) = reach, by bisection like the official code."""
    low, high = 1.01, 1.5
    ratio = high
    while high - low > 1e-6:
        ratio = (low + high) / 2.0
        if (1.0 - ratio**num_steps) / (1.0 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    return ratio


def _spline_weights(nodes: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Matrix (Q, S) that maps values at S increasing nodes to an interpolating cubic spline's values at Q queries.

    End condition not-a-knot; fewer than four nodes give the polynomial through them. Queries beyond the nodes take the
    value at the edge.
    """
    num_nodes = len(nodes)
    # Unit scale keeps the powers well conditioned.
    scale = max(float(np.abs(nodes).max()), 1.0)
    x = nodes / scale
    q = np.clip(queries, nodes[0], nodes[-1]) / scale
    if num_nodes < 4:
        basis, at = np.vander(x, num_nodes), np.vander(q, num_nodes)
        return at @ np.linalg.inv(basis)

    # Second derivatives m at the nodes: continuity of the slope inside, equal third derivatives at nodes 1 and S - 2.
    step = np.diff(x)
    system = np.zeros((num_nodes, num_nodes))
    values = np.zeros((num_nodes, num_nodes))
    inner = np.arange(1, num_nodes - 1)
    system[inner, inner - 1] = step[:-1]
    system[inner, inner] = 2 * (step[:-1] + step[1:])
    system[inner, inner + 1] = step[1:]
    values[inner, inner - 1] = 6 / step[:-1]
    values[inner, inner] = -6 / step[:-1] - 6 / step[1:]
    values[inner, inner + 1] = 6 / step[1:]
    system[0, :3] = step[1], -(step[0] + step[1]), step[0]
    system[-1, -3:] = step[-1], -(step[-2] + step[-1]), step[-2]
    second = np.linalg.solve(system, values)

    left = np.clip(np.searchsorted(x, q, side='right') - 1, 0, num_nodes - 2)
    h = step[left]
    a = (x[left + 1] - q) / h
    b = (q - x[left]) / h
    rows = np.arange(len(q))
    weights = np.zeros((len(q), num_nodes))
    weights[rows, left] += a
    weights[rows, left + 1] += b
    cubic = (h**2 / 6)[:, None]
    return weights + cubic * ((a**3 - a)[:, None] * second[left] + (b**3 - b)[:, None] * second[left + 1])


@constant(maxsize=64)
def axis_weights(src: int, dst: int) -> Tensor:
    """Resizing matrix (2 dst - 1, 2 src - 1), float64, for the offsets of one axis from ``src`` patches to ``dst``."""
    if src == dst:
        return torch.eye(2 * src - 1, dtype=torch.float64)
    num_steps = src - 1
    queries = np.arange(-(dst - 1), dst, dtype=np.float64)
    if num_steps == 0:
        return torch.ones(len(queries), 1, dtype=torch.float64)
    ratio = _geometric_ratio(num_steps, dst - 1)
    reach = np.cumsum(ratio ** np.arange(num_steps))
    nodes = np.concatenate([-reach[::-1], [0.0], reach])
    return torch.from_numpy(_spline_weights(nodes, queries))


def resize_relative_position_table(table: Tensor, src_grid: Grid, dst_grid: Grid) -> Tensor:
    """Resizes a relative position table from one grid to another, square or not. Differentiable.

    Args:
        table: Float (num_relative_positions(src_grid), n heads).
        src_grid: (h, w) the table was made for.
        dst_grid: (h, w) wanted.

    Returns:
        Float (num_relative_positions(dst_grid), n heads) of the table's dtype; the table itself if the grids are equal.
        The class token's rows are unchanged.

    Raises:
        ValueError: The table's rows do not fit ``src_grid``.
    """
    src_grid, dst_grid = tuple(src_grid), tuple(dst_grid)
    _check_rows(table, src_grid)
    if src_grid == dst_grid:
        return table
    (src_h, src_w), (dst_h, dst_w) = src_grid, dst_grid
    # float64 costs nothing here, and the progression's weights alternate in sign; MPS has no float64.
    exact = torch.float32 if table.device.type == 'mps' else torch.float64
    rows_weight = axis_weights(src_h, dst_h).to(table.device, exact)
    cols_weight = axis_weights(src_w, dst_w).to(table.device, exact)
    offsets = table[:-NUM_CLS_ROWS].to(exact).view(2 * src_h - 1, 2 * src_w - 1, -1)
    offsets = torch.einsum('yY,YXn,xX->yxn', rows_weight, offsets, cols_weight)
    return torch.cat([offsets.flatten(0, 1).to(table.dtype), table[-NUM_CLS_ROWS:]])


def resize_absolute_position(
    pos_embed: Tensor, src_grid: Grid, dst_grid: Grid, num_prefix: int = 1, mode: str = 'bicubic'
) -> Tensor:
    """Resizes absolute position embeddings from one grid to another. Differentiable.

    Args:
        pos_embed: Float (1, num_prefix + h w, D).
        src_grid: (h, w) the embeddings were made for.
        dst_grid: (h, w) wanted.
        num_prefix: Leading tokens without a place on the grid (the class token), kept as they are.
        mode: ``bicubic`` or ``bilinear`` (the paper's SETR-PUP experiments).

    Returns:
        Float (1, num_prefix + h' w', D) of the same dtype; ``pos_embed`` itself if the grids are equal.

    Raises:
        ValueError: The number of embeddings does not fit ``src_grid``.
    """
    src_grid, dst_grid = tuple(src_grid), tuple(dst_grid)
    if pos_embed.shape[1] != num_prefix + src_grid[0] * src_grid[1]:
        raise ValueError(
            f'{pos_embed.shape[1]} position embeddings do not fit the grid {src_grid} and {num_prefix} more'
        )
    if not is_exporting() and src_grid == dst_grid:
        return pos_embed
    prefix, patches = pos_embed[:, :num_prefix], pos_embed[:, num_prefix:]
    patches_1Dhw = patches.float().transpose(1, 2).unflatten(2, src_grid)
    patches_1Dhw = F.interpolate(patches_1Dhw, size=dst_grid, mode=mode, align_corners=False)
    return torch.cat([prefix, patches_1Dhw.flatten(2).transpose(1, 2).to(pos_embed.dtype)], dim=1)


def _check_rows(table: Tensor, grid: Grid) -> None:
    if table.shape[0] != num_relative_positions(grid):
        raise ValueError(
            f'a relative position table of {table.shape[0]} rows does not fit the grid {tuple(grid)}, '
            f'which needs {num_relative_positions(grid)}'
        )


@torch.library.custom_op('mmseg_beit::expand_table', mutates_args=())
def expand_table(table: Tensor, h: int, w: int) -> Tensor:
    """Table (R, n) of an (h, w) grid to bias (n, 1 + h w, 1 + h w), without an index tensor.

    The bias between patches depends on (y_query - y_key, x_query - x_key) only: it is Toeplitz in y, and each of its
    blocks is Toeplitz in x. So the blocks of all 2h - 1 row offsets are made once, (n, 2h - 1, w, w), and each query
    row copies its run of h of them.
    """
    num_heads = table.shape[1]
    offsets = table[:-NUM_CLS_ROWS].t().reshape(num_heads, 2 * h - 1, 2 * w - 1)
    # Reversed in y: the block of row offset d = y_query - y_key stands at h - 1 - d, so that keys run forwards.
    # unfold gives [.., x, k] = offsets[.., x + k]; key x_key = w - 1 - k.
    blocks = offsets.flip(1).unfold(2, w, 1).flip(3)
    cls_rows = table[-NUM_CLS_ROWS:]
    bias = _empty_bias(table, h, w)
    bias[:, 0, :] = cls_rows[0, :, None]
    bias[:, :, 0] = cls_rows[1, :, None]
    bias[:, 0, 0] = cls_rows[2]
    patch_bias = bias[:, 1:, 1:].unflatten(1, (h, w)).unflatten(3, (h, w))  # (n, y, x, y_key, x_key)
    for y in range(h):
        patch_bias[:, y] = blocks[:, h - 1 - y : 2 * h - 1 - y].transpose(1, 2)
    return bias


@expand_table.register_fake
def _empty_bias(table: Tensor, h: int, w: int) -> Tensor:
    num_tokens = 1 + h * w
    # The memory-efficient CUDA kernel reads bias rows that begin at multiples of 16 bytes without copying them.
    row_stride = -(-num_tokens // 8) * 8 if table.is_cuda else num_tokens
    return table.new_empty(table.shape[1], num_tokens, row_stride)[..., :num_tokens]


@torch.library.custom_op('mmseg_beit::reduce_bias', mutates_args=())
def reduce_bias(grad_bias: Tensor, h: int, w: int) -> Tensor:
    """Adjoint of :func:`expand_table`: gradient (n, N, N) of the bias to gradient (R, n) of the table.

    Adds up each block's runs, then the diagonals of the blocks: no scatter.
    """
    # Sums of up to a million terms are kept in float32 at least.
    exact = torch.promote_types(grad_bias.dtype, torch.float32)
    patch_grad = grad_bias[:, 1:, 1:].unflatten(1, (h, w)).unflatten(3, (h, w))
    block_grad = grad_bias.new_zeros(grad_bias.shape[0], 2 * h - 1, w, w, dtype=exact)
    for y in range(h):
        block_grad[:, h - 1 - y : 2 * h - 1 - y] += patch_grad[:, y].transpose(1, 2)
    # Diagonals: row x of a flipped block holds the offsets x .. x + w - 1. Padding rows to 2w and reading them back
    # at 2w - 1 moves row x to column x, so that equal offsets stand below each other.
    sheared = F.pad(block_grad.flip(3), (0, w)).flatten(2)[..., : w * (2 * w - 1)].unflatten(2, (w, 2 * w - 1))
    offsets_grad = sheared.sum(2).flip(1).flatten(1).t()
    cls_grad = torch.stack(
        [
            grad_bias[:, 0, 1:].sum(1, dtype=exact),
            grad_bias[:, 1:, 0].sum(1, dtype=exact),
            grad_bias[:, 0, 0].to(exact),
        ]
    )
    return torch.cat([offsets_grad, cls_grad]).to(grad_bias.dtype)


@reduce_bias.register_fake
def _(grad_bias: Tensor, h: int, w: int) -> Tensor:
    return grad_bias.new_empty(num_relative_positions((h, w)), grad_bias.shape[0])


def _expand_table_backward(ctx, grad_bias: Tensor) -> tuple[Tensor, None, None]:
    return reduce_bias(grad_bias, *ctx.grid), None, None


def _expand_table_context(ctx, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
    ctx.grid = inputs[1:]


expand_table.register_autograd(_expand_table_backward, setup_context=_expand_table_context)


def relative_position_bias(table: Tensor, grid: Grid) -> Tensor:
    """The bias that attention over an (h, w) grid adds to its scores. Differentiable once.

    Args:
        table: Float (num_relative_positions(grid), n heads); resize it first if it belongs to another grid.
        grid: (h, w) patches.

    Returns:
        Float (n, N, N) of the table's dtype with N = 1 + h w: query by key, the class token first, patches row by row.
        On CUDA its rows may be padded in memory (last stride 1, row stride a multiple of 8).

    Raises:
        ValueError: The table's rows do not fit the grid.
    """
    _check_rows(table, grid)
    return expand_table(table, *grid)
