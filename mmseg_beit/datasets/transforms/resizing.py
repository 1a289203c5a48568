"""Resizing of no more than a crop needs: :class:`Resize` leaves the work to the ``RandomCrop`` that follows it.

Where a crop lies depends on sizes and labels only, so pixels can wait until it is drawn. The result is bit-equal:

- Masks: nearest neighbour is an index per row and column, and OpenCV itself makes these by resizing 0, 1, 2, ...
- Pictures: OpenCV's bilinear weights follow from the ratio of sizes and the position. Resizing the source's upper left
  part by the same ratio gives the same pixels, so what lies below and to the right of the crop is left out. What lies
  above and to the left is not: OpenCV cannot begin between two pixels of the source.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import cv2
import mmcv
import numpy as np
from mmseg.datasets.transforms import Resize as _Resize

from ...registry import TRANSFORMS
from .augmentation import RandomCrop

_MARGIN = 2  # Pixels of the source beyond the crop's last: the second neighbour, and one for rounding.


class ResizedOnDemand:
    """A resized picture or mask, of which parts are computed when they are asked for.

    Attributes:
        shape (tuple[int, ...]): Of the whole, (H, W) or (H, W, C).
        ndim (int): 2 or 3.
        dtype (np.dtype): Of `source`.

    Args:
        source: (h, w) or (h, w, C), what OpenCV resizes.
        size: H and W.
        interpolation: ``'bilinear'`` or ``'nearest'``.
    """

    def __init__(self, source: np.ndarray, size: tuple[int, int], interpolation: str) -> None:
        self.source, self.size, self.interpolation = source, size, interpolation
        self.shape = (*size, *source.shape[2:])
        self.ndim, self.dtype = source.ndim, source.dtype
        self._parts: dict[tuple, np.ndarray] = {}

    def __getitem__(self, key: tuple) -> np.ndarray:
        """The part ``[top:bottom, left:right]`` of the resized array, as indexing that would give it."""
        spans = tuple(part.indices(length)[:2] for part, length in zip(key[:2], self.size, strict=True))
        if spans not in self._parts:
            make = self._nearest if self.interpolation == 'nearest' else self._bilinear
            self._parts = {spans: make(*spans)}  # The last one: a crop that was tried is often the one that is taken.
        return self._parts[spans]

    def _nearest(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        height, width = self.source.shape[:2]
        row_map = cv2.resize(np.arange(height, dtype=np.int32)[:, None], (1, self.size[0]), interpolation=0)
        column_map = cv2.resize(np.arange(width, dtype=np.int32)[None], (self.size[1], 1), interpolation=0)
        row_map, column_map = row_map[slice(*rows), 0], column_map[0, slice(*columns)]
        if self.ndim == 3 or not row_map.size or not column_map.size:
            return self.source[row_map][:, column_map]
        # Lines are copied whole: two transpositions take less time than single pixels.
        top, left = row_map[0], column_map[0]
        block = self.source[top : row_map[-1] + 1, left : column_map[-1] + 1]
        if len(block) < len(row_map):  # Rows are repeated, so that they come last.
            return cv2.transpose(cv2.transpose(block)[column_map - left])[row_map - top]
        return cv2.transpose(cv2.transpose(block[row_map - top])[column_map - left])

    def _bilinear(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        ratios = [after / before for after, before in zip(self.size, self.source.shape, strict=False)]
        needed = [math.ceil(stop / ratio) + _MARGIN for (_, stop), ratio in zip((rows, columns), ratios, strict=True)]
        source = self.source[: needed[0], : needed[1]]
        # OpenCV copies what keeps its size, though the ratio be not quite one.
        if [round(length * ratio) for length, ratio in zip(source.shape, ratios, strict=False)] == [*source.shape[:2]]:
            source = self.source
        if source.shape == self.source.shape:
            part = cv2.resize(source, self.size[::-1], interpolation=cv2.INTER_LINEAR)
        else:
            part = cv2.resize(source, None, fx=ratios[1], fy=ratios[0], interpolation=cv2.INTER_LINEAR)
        return part[slice(*rows), slice(*columns)]


@TRANSFORMS.register_module()
class Resize(_Resize):
    """mmseg's ``Resize``; with :attr:`on_demand` it leaves :class:`ResizedOnDemand` arrays to the crop behind it.

    Takes mmseg's arguments. Boxes, key points, Pillow and other interpolations than bilinear are resized at once.

    Attributes:
        on_demand (bool): Set by :func:`resize_on_demand` alone.
    """

    on_demand = False

    def transform(self, results: dict) -> dict:
        """Resizes; a mask that is loaded from here on keeps its size, whatever became of the picture before."""
        results.pop('jpeg_reduction', None)
        return super().transform(results)

    def _resize_img(self, results: dict) -> None:
        img = results.get('img')
        if not self._can_wait(img):
            super()._resize_img(results)
            return
        resized = results['img'] = self._later(img, results['scale'], self.interpolation)
        results['img_shape'] = resized.size
        results['scale_factor'] = (resized.size[1] / img.shape[1], resized.size[0] / img.shape[0])
        results['keep_ratio'] = self.keep_ratio

    def _resize_seg(self, results: dict) -> None:
        masks = {key: results[key] for key in results.get('seg_fields', []) if results.get(key) is not None}
        if not all(self._can_wait(mask) for mask in masks.values()):
            super()._resize_seg(results)
            return
        results.update({key: self._later(mask, results['scale'], 'nearest') for key, mask in masks.items()})

    def _can_wait(self, array: np.ndarray | None) -> bool:
        if not (self.on_demand and self.backend == 'cv2' and self.interpolation in ('bilinear', 'nearest')):
            return False
        # OpenCV drops a third dimension of one.
        return array is not None and array.dtype == np.uint8 and (array.ndim == 2 or array.shape[2] in (3, 4))

    def _later(self, array: np.ndarray, scale: tuple[int, int], interpolation: str) -> ResizedOnDemand:
        width, height = mmcv.rescale_size(array.shape[1::-1], scale) if self.keep_ratio else scale
        return ResizedOnDemand(array, (height, width), interpolation)


def resize_on_demand(transforms: Sequence[Callable]) -> None:
    """Lets each ``Resize`` or ``RandomResize`` with our ``RandomCrop`` right behind it resize what the crop takes.

    Args:
        transforms: Of a pipeline, in their order; only ours are changed, others in between keep it all at once.
    """
    for first, second in itertools.pairwise(transforms):
        resize = getattr(first, 'resize', first)  # RandomResize holds one
        if type(resize) is Resize and type(second) is RandomCrop:
            resize.on_demand = True
