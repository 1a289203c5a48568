"""Forms of size-dependent steps for graphs whose height and width stay open (ONNX, ``torch.export``).

In eager mode sizes are numbers and the resizing of a position table is planned in Python. A graph with open sizes must
hold the plan for every size: one small matrix for each number of patches up to a limit, picked by index.

Shape suffixes: h x w patches at hand, S x T the grid of the table, n heads.
"""

import torch
from torch import Tensor, nn

from .position import NUM_CLS_ROWS, Grid, axis_weights


class OpenGridBias(nn.Module):
    """The relative position bias of any grid up to a limit, from tables made for one grid.

    Args:
        grid: (S, T) the tables are made for.
        max_patches: Largest h and w.
    """

    def __init__(self, grid: Grid, max_patches: int) -> None:
        super().__init__()
        self.grid = grid
        self.max_patches = max_patches
        self.register_buffer('row_weights', _all_axis_weights(grid[0], max_patches), persistent=False)
        self.register_buffer('col_weights', _all_axis_weights(grid[1], max_patches), persistent=False)

    def forward(self, table: Tensor, h: int, w: int) -> Tensor:
        """Bias (n, N, N) of an (h, w) grid with N = 1 + h w, from a table (R, n)."""
        offsets_YXn = table[:-NUM_CLS_ROWS].view(2 * self.grid[0] - 1, 2 * self.grid[1] - 1, -1)
        rows = self._weights(self.row_weights, h)  # (2h - 1, 2S - 1)
        cols = self._weights(self.col_weights, w)
        offsets = torch.matmul(rows, offsets_YXn.flatten(1)).unflatten(1, offsets_YXn.shape[1:])
        offsets = torch.matmul(cols, offsets)  # (2h - 1, 2w - 1, n)

        # Two gathers of whole slices, first along x, then along y: no index of N x N entries.
        blocks = offsets[:, _differences(w, table.device)]  # (2h - 1, w, w, n): y offset, x of query, x of key
        patches = blocks[_differences(h, table.device)]  # (h, h, w, w, n): y of query, y of key, ...
        patches = patches.permute(4, 0, 2, 1, 3).reshape(-1, h * w, h * w)
        to_patch, to_cls, cls_to_cls = table[-NUM_CLS_ROWS:].unsqueeze(2).unsqueeze(3).unbind(0)  # each (n, 1, 1)
        first_row = torch.cat([cls_to_cls, to_patch.expand(-1, 1, h * w)], dim=2)
        other_rows = torch.cat([to_cls.expand(-1, h * w, 1), patches], dim=2)
        return torch.cat([first_row, other_rows], dim=1)

    def _weights(self, all_weights: Tensor, patches: int) -> Tensor:
        middle = self.max_patches - 1
        return all_weights[patches - 1, middle - (patches - 1) : middle + patches]


def _all_axis_weights(src: int, max_patches: int) -> Tensor:
    """Float32 (P, 2P - 1, 2 src - 1): the resizing matrix of each number of patches, its middle row at P - 1."""
    stack = torch.zeros(max_patches, 2 * max_patches - 1, 2 * src - 1)
    for patches in range(1, max_patches + 1):
        stack[patches - 1, max_patches - patches : max_patches - 1 + patches] = axis_weights(src, patches)
    return stack


def _differences(length: int, device: torch.device) -> Tensor:
    """int64 (length, length): query minus key, shifted to start at 0."""
    index = torch.arange(length, device=device)
    return index[:, None] - index[None, :] + (length - 1)


class OpenSizePool(nn.Module):
    """``AdaptiveAvgPool2d`` as two matrix products, for maps of any size.

    Args:
        size: Rows and columns of the output.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Float (B, C, H, W) to (B, C, size, size)."""
        rows = self._weights(x.shape[2], x)
        cols = self._weights(x.shape[3], x)
        return torch.matmul(torch.matmul(rows, x), cols.transpose(0, 1))

    def _weights(self, length: int, like: Tensor) -> Tensor:
        """(size, length): cell i holds the mean of floor(i length / size) up to ceil((i + 1) length / size)."""
        cell = torch.arange(self.size, device=like.device).unsqueeze(1)
        pixel = torch.arange(length, device=like.device).unsqueeze(0)
        # In integers: first = floor(i L / s), last = ceil((i + 1) L / s).
        inside = (pixel * self.size > cell * length - self.size) & (pixel * self.size < (cell + 1) * length)
        inside = inside.to(like.dtype)
        return inside / inside.sum(1, keepdim=True)
