"""Bilinear resizing as one small matrix for each axis.

Resizing an image bilinearly is out = A image B^T with banded matrices A (H, h) and B (W, w). Written so, resizings can
be joined, cropped, averaged and taken transposed without making the pictures in between.
"""

import torch
from torch import Tensor

from .kept import constant


def interpolation_reads(src: int, dst: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """What each sample of ``torch.nn.functional.interpolate(mode='bilinear', size=...)`` is made of along one axis.

    Args:
        src: Samples before.
        dst: Samples after.
        align_corners: Whether first and last samples coincide, else whether the samples' outer edges do.

    Returns:
        int64 (dst,), the left one of the two samples read, 0..src-1 (the right one is the next, or the same at the
        end); and float32 (dst,), the weight 0..1 of the right one. On the CPU.
    """
    # In float32 and in the order of torch's kernels, so that even the rounding of positions is theirs.
    index = torch.arange(dst, dtype=torch.float32)
    if align_corners:
        scale = torch.tensor((src - 1) / (dst - 1) if dst > 1 else 0.0, dtype=torch.float32)
        position = index * scale
    else:
        position = ((index + 0.5) * torch.tensor(src / dst, dtype=torch.float32) - 0.5).clamp_(min=0.0)
    left = position.to(torch.int64).clamp_(max=src - 1)
    return left, (position - left).clamp_(0.0, 1.0)


@constant(maxsize=256)
def interpolation_matrix(src: int, dst: int, align_corners: bool) -> Tensor:
    """The matrix of ``torch.nn.functional.interpolate(mode='bilinear', size=...)`` along one axis.

    Args:
        src: Samples before.
        dst: Samples after.
        align_corners: Whether first and last samples coincide, else whether the samples' outer edges do.

    Returns:
        Float32 (dst, src) on the CPU, at most two entries in a row, each row summing to 1. Do not write into it.
    """
    left, fraction = interpolation_reads(src, dst, align_corners)
    right = (left + 1).clamp_(max=src - 1)
    matrix = torch.zeros(dst, src)
    rows = torch.arange(dst)
    matrix[rows, left] += 1.0 - fraction
    matrix[rows, right] += fraction
    return matrix


def band(matrix: Tensor) -> tuple[int, int]:
    """First column and one past the last column of a matrix (R, C) that hold anything but zeros."""
    columns = matrix.ne(0).any(dim=0).nonzero()
    return (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
