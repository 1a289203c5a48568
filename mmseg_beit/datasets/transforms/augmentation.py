"""mmseg's training augmentations with less work: the same random draws, bit-equal results.

Inside our scope they win under mmseg's names. What they save: label counts by a histogram instead of a sort for each
try of a crop; photometric steps as tables of 256 entries instead of float pictures; planes split by OpenCV instead of a
strided copy.
"""

import cv2
import mmcv
import numpy as np
import torch
from mmseg.datasets.transforms import PackSegInputs as _PackSegInputs
from mmseg.datasets.transforms import PhotoMetricDistortion as _PhotoMetricDistortion
from mmseg.datasets.transforms import RandomCrop as _RandomCrop
from mmseg.datasets.transforms import RandomFlip as _RandomFlip

from ...registry import TRANSFORMS

_VALUES = np.arange(256, dtype=np.uint8)
_FLIPS = {'horizontal': 1, 'vertical': 0, 'diagonal': -1}  # OpenCV's codes


@TRANSFORMS.register_module()
class RandomCrop(_RandomCrop):
    """Crops picture and mask, trying up to ten more times while one class fills ``cat_max_ratio`` of the crop.

    Takes mmseg's arguments. Masks are uint8; other masks take mmseg's way.

    Required Keys:

    - img (np.ndarray): (H, W, C).
    - gt_seg_map (np.ndarray): uint8 (H, W), 255 = ignore.

    Modified Keys:

    - img, img_shape, gt_seg_map: Views of what they were.
    """

    def crop_bbox(self, results: dict) -> tuple[int, int, int, int]:
        """Draws a crop: first row, one past the last, first column, one past the last."""
        mask = results.get('gt_seg_map')
        if mask is None or mask.dtype != np.uint8 or mask.ndim != 2:
            return super().crop_bbox(results)
        bbox = self._draw(results['img'].shape)
        if self.cat_max_ratio < 1.0:
            for _ in range(10):
                if self._is_mixed(self.crop(mask, bbox)):
                    break
                bbox = self._draw(results['img'].shape)
        return bbox

    def _draw(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        # NumPy's global generator in mmseg's order: a seeded run draws the same crops.
        top = np.random.randint(0, max(shape[0] - self.crop_size[0], 0) + 1)  # noqa: NPY002
        left = np.random.randint(0, max(shape[1] - self.crop_size[1], 0) + 1)  # noqa: NPY002
        return top, top + self.crop_size[0], left, left + self.crop_size[1]

    def _is_mixed(self, mask: np.ndarray) -> bool:
        """Whether there are two classes or more and none fills ``cat_max_ratio`` of the labelled pixels."""
        ignored = [self.ignore_index] if 0 <= self.ignore_index < 256 else []
        sample = np.bincount(mask[::16, ::16].ravel(), minlength=256)
        sample[ignored] = 0
        if sample.any():
            # Mostly the count of one frequent class settles it: the others together are too few.
            total = mask.size - sum(np.count_nonzero(mask == value) for value in ignored)
            count = np.count_nonzero(mask == sample.argmax().astype(np.uint8))
            if count / total >= self.cat_max_ratio:
                return False
            if (total - count) / total < self.cat_max_ratio:
                return True
        counts = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()
        counts[ignored] = 0
        return np.count_nonzero(counts) > 1 and counts.max() / counts.sum(dtype=np.float64) < self.cat_max_ratio


@TRANSFORMS.register_module()
class RandomFlip(_RandomFlip):
    """Flips picture and masks, with mmseg's arguments, draws and keys.

    Flipped pictures and masks are contiguous copies: OpenCV takes five times as long to read a view with negative
    strides as to flip.
    """

    def _flip(self, results: dict) -> None:
        img = results['img']
        super()._flip(results)
        results['img'] = _flipped(img, results['flip_direction'])

    def _flip_seg_map(self, seg_map: np.ndarray, direction: str) -> np.ndarray:
        if self.swap_seg_labels is not None:
            return super()._flip_seg_map(seg_map, direction)
        return _flipped(seg_map, direction)


def _flipped(array: np.ndarray, direction: str) -> np.ndarray:
    if array.dtype in (np.uint8, np.float32) and (array.ndim == 2 or array.shape[2] <= 4):
        return cv2.flip(array, _FLIPS[direction]).reshape(array.shape)
    return np.ascontiguousarray(mmcv.imflip(array, direction))


@TRANSFORMS.register_module()
class PhotoMetricDistortion(_PhotoMetricDistortion):
    """Brightness, contrast, saturation, hue and contrast again, each with probability one half.

    Takes mmseg's arguments. Steps that follow each other are one table. Pictures are uint8; others take mmseg's way.

    Required and Modified Keys:

    - img (np.ndarray): uint8 BGR (H, W, 3).
    """

    def transform(self, results: dict) -> dict:
        """Replaces ``img``, never writing into it."""
        img = results['img']
        if img.dtype != np.uint8:
            return super().transform(results)
        # mmseg's steps on the 256 values make the table; the draws keep mmseg's order.
        table = self.brightness(_VALUES)
        contrast_first = np.random.randint(2) == 1  # noqa: NPY002
        if contrast_first:
            table = self.contrast(table)
        channels = [(1, self._saturation_table()), (0, self._hue_table())]
        channels = [(channel, values) for channel, values in channels if values is not None]
        if channels:
            img, table = _look_up(img, table), _VALUES
        for channel, values in channels:
            img = _through_hsv(img, channel, values)
        if not contrast_first:
            table = self.contrast(table)
        results['img'] = _look_up(img, table)
        return results

    def _saturation_table(self) -> np.ndarray | None:
        if not np.random.randint(2):  # noqa: NPY002
            return None
        alpha = np.random.uniform(self.saturation_lower, self.saturation_upper)  # noqa: NPY002
        return self.convert(_VALUES, alpha)

    def _hue_table(self) -> np.ndarray | None:
        if not np.random.randint(2):  # noqa: NPY002
            return None
        turn = np.random.randint(-self.hue_delta, self.hue_delta)  # noqa: NPY002
        return ((_VALUES.astype(int) + turn) % 180).astype(np.uint8)


def _look_up(img: np.ndarray, table: np.ndarray) -> np.ndarray:
    if table is _VALUES:
        return img
    shift = int(table[128]) - 128
    if np.array_equal(
        table, cv2.add(_VALUES, shift).ravel()
    ):  # Brightness alone: a sum is made in a sixth of the time.
        return cv2.add(img, (shift, shift, shift, 0))
    return cv2.LUT(img, table)


def _through_hsv(img: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Replaces one channel of hue (0..179), saturation and value (0..255) by its values in a table."""
    hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)
    planes = list(cv2.split(hsv))
    planes[channel] = cv2.LUT(planes[channel], table)
    return cv2.cvtColor(cv2.merge(planes, dst=hsv), cv2.COLOR_HSV2BGR)


@TRANSFORMS.register_module()
class PackSegInputs(_PackSegInputs):
    """Packs picture, mask and meta information for the model.

    Takes mmseg's arguments.

    Required Keys:

    - img (np.ndarray): (H, W, C).
    - gt_seg_map (np.ndarray, optional): (H, W).

    Added Keys:

    - inputs (torch.Tensor): Of the picture's dtype, (C, H, W).
    - data_samples (SegDataSample): ``gt_sem_seg`` int64 (1, H, W) and the meta information of ``meta_keys``.
    """

    def transform(self, results: dict) -> dict:
        """Packs; other keys of ``results`` are left out."""
        img = results.get('img')
        if img is None or img.ndim != 3 or img.dtype != np.uint8:
            return super().transform(results)
        planes = np.empty((img.shape[2], *img.shape[:2]), dtype=np.uint8)
        cv2.split(img, list(planes))
        rest = {key: value for key, value in results.items() if key != 'img'}
        return {'inputs': torch.from_numpy(planes), **super().transform(rest)}
