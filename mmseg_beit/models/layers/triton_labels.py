"""The label of each pixel of a :class:`~.logit_map.LogitMap` as one Triton kernel.

A program takes a row of the picture and a run of its pixels, makes their logits a few classes at a time as the sum over
windows of rows @ window @ cols^T, of whose matrices only the entries that are not zero are read, and keeps the highest.
Nothing of the size K x H x W is written.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_PIXELS = 32
_CLASSES = 32


@triton.jit
def labels_kernel(
    windows, labels, rows_first, rows_weight, cols_first, cols_weight, row_of, col_of,
    num_windows, num_classes, height, width, stride_p, stride_y, stride_x,
    ROW_READS: tl.constexpr, COL_READS: tl.constexpr, PIXELS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Labels int64 (H, W) of windows float32 (P, h, w, K), the classes next to each other in memory."""
    y = tl.program_id(1)
    x = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = x < width
    best = tl.full([PIXELS], float('-inf'), tl.float32)
    best_class = tl.zeros([PIXELS], tl.int32)
    for start in range(0, num_classes, CLASSES):
        k = start + tl.arange(0, CLASSES)
        logits = tl.zeros([PIXELS, CLASSES], tl.float32)
        window = windows  # Moved on by one window at a time: a product could exceed 32 bits.
        for p in range(num_windows):
            row = tl.load(row_of + p) * height + y
            top = tl.load(rows_first + row)
            if top >= 0:  # The window reaches this row.
                col = tl.load(col_of + p) * width + x
                left = tl.load(cols_first + col, mask=inside, other=-1)
                for j in range(COL_READS):
                    across = tl.load(cols_weight + col * COL_READS + j, mask=left >= 0, other=0.0)
                    for i in range(ROW_READS):
                        weight = across * tl.load(rows_weight + row * ROW_READS + i)
                        at = (top + i) * stride_y + (left + j) * stride_x
                        # Weights of zero stand where the matrix ends.
                        mask = (weight != 0.0)[:, None] & (k < num_classes)[None, :]
                        logits += weight[:, None] * tl.load(window + at[:, None] + k[None, :], mask=mask, other=0.0)
            window += stride_p
        logits = tl.where((k < num_classes)[None, :], logits, float('-inf'))
        high, at_high = tl.max(logits, axis=1, return_indices=True)
        best_class = tl.where(high > best, start + at_high, best_class)
        best = tl.maximum(high, best)
    tl.store(labels + y.to(tl.int64) * width + x, best_class.to(tl.int64), mask=inside)


def labels_of(windows: Tensor, rows: list[Tensor], cols: list[Tensor]) -> Tensor:
    """The class of the highest sum over windows of rows @ window @ cols^T; the lowest such class where several tie.

    Args:
        windows: Float32 (P, h, w, K).
        rows: For each window the matrix (H, h), float32 on the CPU.
        cols: For each window the matrix (W, w), likewise. A matrix given twice is sent once.

    Returns:
        Int64 (H, W), 0..K-1, on the device of ``windows``.
    """
    windows = windows.contiguous()
    device = windows.device
    height, width = rows[0].shape[0], cols[0].shape[0]
    row_of, rows_first, rows_weight = _reads(rows, device)
    col_of, cols_first, cols_weight = _reads(cols, device)
    labels = torch.empty(height, width, dtype=torch.int64, device=device)
    labels_kernel[(triton.cdiv(width, _PIXELS), height)](
        windows, labels, rows_first, rows_weight, cols_first, cols_weight, row_of, col_of,
        len(windows), windows.shape[3], height, width, *windows.stride()[:3],
        ROW_READS=rows_weight.shape[2], COL_READS=cols_weight.shape[2], PIXELS=_PIXELS, CLASSES=_CLASSES,
    )  # fmt: skip
    return labels


def _reads(matrices: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What each row of some matrices (L, s) reads: which matrix is whose, first column or -1, and the weights from it.

    Returns:
        int32 (P,), int32 (M, L) and float32 (M, L, R) on ``device``, for M different matrices with at most R columns
        from the first to the last entry of a row that is not zero.
    """
    different = {id(matrix): matrix for matrix in matrices}
    place = {key: i for i, key in enumerate(different)}
    stack = torch.stack(list(different.values()))
    filled = stack.ne(0)
    first = filled.int().argmax(2)
    last = stack.shape[2] - 1 - filled.flip(2).int().argmax(2)
    some = filled.any(2)
    num_reads = int(((last - first + 1) * some).max().clamp(min=1))
    columns = first.unsqueeze(2) + torch.arange(num_reads, device=stack.device)
    weight = stack.gather(2, columns.clamp(max=stack.shape[2] - 1)) * (columns < stack.shape[2])
    first = first.where(some, -1).int()
    which = torch.tensor([place[id(matrix)] for matrix in matrices], dtype=torch.int32)
    return which.to(device), first.to(device), weight.float().to(device)


def probe(device: torch.device) -> bool:
    """Whether the kernel can be built and run on a device, and is right there."""
    eye = torch.eye(2)
    windows = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]], [[2.0, 1.0], [0.0, 3.0]]]], device=device)
    return labels_of(windows, [eye], [eye]).tolist() == [[1, 0], [0, 1]]
