"""Logits of a picture, kept small: what windows predicted, and the matrices that put them in their place.

Resizing bilinearly, cropping, flipping and averaging over windows are linear and separable, so the logits of a picture
are the sum over windows of rows @ window @ cols^T. Only a tile of it is ever made at full size, for its labels; on a
GPU not even that, see :mod:`~mmseg_beit.models.layers.triton_labels`.

Shape suffixes: K classes, h x w small logits of a window, H x W picture, R x C pixels of a tile.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .interpolation import band, interpolation_matrix
from .triton_support import use_triton

# Logits of one tile: 4 MB in float32 fit a CPU's cache; on a GPU few large launches are better.
_TILE_LOGITS = {'cpu': 1 << 20, 'other': 1 << 26}


@dataclass
class Piece:
    """One window: small logits float32 (h, w, K), and the matrices (H, h) and (W, w) that place them, on the CPU."""

    small: Tensor
    rows: Tensor
    cols: Tensor


def _in_float32(method: Callable) -> Callable:
    """Autocast would interpolate in half precision, where close logits become equal ones."""

    @functools.wraps(method)
    def wrapped(self: 'LogitMap', *args, **kwargs):
        with torch.autocast(self.pieces[0].small.device.type, enabled=False):
            return method(self, *args, **kwargs)

    return wrapped


class LogitMap:
    """Logits (K, H, W) of a picture as a sum of placed windows.

    Args:
        pieces: At least one; all have the same K, H and W.
    """

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, H, W)."""
        piece = self.pieces[0]
        return piece.small.shape[2], piece.rows.shape[0], piece.cols.shape[0]

    def crop(self, top: int, left: int, height: int, width: int) -> 'LogitMap':
        """The part of ``height`` x ``width`` pixels that begins at (top, left)."""
        return self._map(lambda m: m[top : top + height], lambda m: m[left : left + width])

    def flip(self, horizontal: bool) -> 'LogitMap':
        """Mirrored left to right, or else top to bottom."""
        return (
            self._map(lambda m: m, lambda m: m.flip(0)) if horizontal else self._map(lambda m: m.flip(0), lambda m: m)
        )

    @_in_float32
    def resize(self, height: int, width: int, align_corners: bool) -> 'LogitMap':
        """Resized bilinearly."""
        _, old_height, old_width = self.shape
        if (old_height, old_width) == (height, width):
            return self
        rows = interpolation_matrix(old_height, height, align_corners)
        cols = interpolation_matrix(old_width, width, align_corners)
        return self._map(lambda m: rows @ m, lambda m: cols @ m)

    @_in_float32
    def logits(self) -> Tensor:
        """Float32 (K, H, W)."""
        num_classes, height, width = self.shape
        out = self.pieces[0].small.new_empty(num_classes, height, width)
        for y, x, tile_RCK in self._tiles():
            out[:, y, x] = tile_RCK.permute(2, 0, 1)
        return out

    @_in_float32
    def labels(self) -> Tensor:
        """The class of the highest logit: int64 (H, W), 0..K-1."""
        if use_triton(self.pieces[0].small) and len({piece.small.shape for piece in self.pieces}) == 1:
            from .triton_labels import labels_of

            windows = torch.stack([piece.small for piece in self.pieces])
            return labels_of(windows, [piece.rows for piece in self.pieces], [piece.cols for piece in self.pieces])
        _, height, width = self.shape
        out = torch.empty(height, width, dtype=torch.int64, device=self.pieces[0].small.device)
        for y, x, tile_RCK in self._tiles():
            out[y, x] = _argmax(tile_RCK)
        return out

    def _map(self, on_rows, on_cols) -> 'LogitMap':
        # Windows of one row of windows share their rows' matrix: change it once.
        rows = {id(piece.rows): piece.rows for piece in self.pieces}
        cols = {id(piece.cols): piece.cols for piece in self.pieces}
        rows = {key: on_rows(matrix) for key, matrix in rows.items()}
        cols = {key: on_cols(matrix) for key, matrix in cols.items()}
        return LogitMap([Piece(p.small, rows[id(p.rows)], cols[id(p.cols)]) for p in self.pieces])

    def _tiles(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Full-size logits (R, C, K) tile by tile, and where each belongs."""
        num_classes, height, width = self.shape
        device = self.pieces[0].small.device
        side = max(math.isqrt(_TILE_LOGITS.get(device.type, _TILE_LOGITS['other']) // num_classes), 1)
        row_bands = _banded({id(p.rows): p.rows for p in self.pieces}, height, side, device)
        col_bands = _banded({id(p.cols): p.cols for p in self.pieces}, width, side, device)
        for i, top in enumerate(range(0, height, side)):
            for j, left in enumerate(range(0, width, side)):
                tile = None
                for piece in self.pieces:
                    in_y, rows = row_bands[id(piece.rows)][i]
                    in_x, cols = col_bands[id(piece.cols)][j]
                    if rows.shape[1] and cols.shape[1]:
                        part = torch.matmul(cols, torch.tensordot(rows, piece.small[in_y, in_x], dims=1))
                        tile = part if tile is None else tile.add_(part)
                yield slice(top, top + side), slice(left, left + side), tile


def _argmax(tile_RCK: Tensor) -> Tensor:
    """The first class with the highest logit: int64 (R, C)."""
    # Measured with 150 classes, milliseconds a tile: NumPy 0.30; torch 1.27, 0.63 where its second thread is free. With
    # 21 classes and fewer NumPy is the slower one.
    if tile_RCK.device.type == 'cpu' and tile_RCK.shape[2] >= 64:
        return torch.from_numpy(tile_RCK.detach().numpy().argmax(-1))
    return tile_RCK.argmax(-1)


def _banded(
    matrices: dict[int, Tensor], length: int, side: int, device: torch.device
) -> dict[int, list[tuple[slice, Tensor]]]:
    """For each matrix, tile by tile: the columns that matter there, and that part of the matrix."""
    result: dict[int, list[tuple[slice, Tensor]]] = {}
    for key, matrix in matrices.items():
        result[key] = []
        for start in range(0, length, side):
            rows = matrix[start : start + side]
            first, last = band(rows)
            result[key].append((slice(first, last), rows[:, first:last].to(device)))
    return result
