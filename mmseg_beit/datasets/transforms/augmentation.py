"""mmseg's training augmentations with less work: the same random draws, bit-equal results.

Inside our scope they win under mmseg's names. What they save: label counts by a histogram instead of a sort for each
try of a crop; photometric steps on bytes instead of float pictures; planes split by OpenCV instead of a strided copy.
"""

import cv2
import mmcv
import numpy as np
import torch
from mmseg.datasets.transforms import PackSegInputs as _PackSegInputs
from mmseg.datasets.transforms import PhotoMetricDistortion as _PhotoMetricDistortion
from mmseg.datasets.transforms import RandomCrop as _RandomCrop
from mmseg.datasets.transforms import RandomFlip as _RandomFlip

from ...errors import InputError
from ...registry import TRANSFORMS

_VALUES = np.arange(256, dtype=np.uint8)
Step = tuple[np.ndarray, float | None]
"""What a photometric step makes of the 256 values, by mmseg's own arithmetic, and its factor where it is one."""

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
            num_ignored = sum(np.count_nonzero(mask == value) for value in ignored)
            total = mask.size - num_ignored
            # Mostly one count settles it: of the labels up to a middle one. No class is larger than its half.
            ascending = sample.cumsum()
            middle = ascending.searchsorted(ascending[-1] / 2).astype(np.uint8)
            count = np.count_nonzero(mask <= middle) - num_ignored * (self.ignore_index <= middle)
            if max(count, total - count) / total < self.cat_max_ratio:
                return True
            # Or the count of one frequent class: the others together are too few.
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

    Takes mmseg's arguments. Pictures are uint8; others take mmseg's way.

    Required and Modified Keys:

    - img (np.ndarray): uint8 BGR (H, W, 3).
    """

    def transform(self, results: dict) -> dict:
        """Replaces ``img``, never writing into it."""
        img = results['img']
        if img.dtype != np.uint8:
            return super().transform(results)
        picture = _Distorted(img)
        # The draws keep mmseg's order.
        picture.map(self._brightness())
        contrast_first = np.random.randint(2) == 1  # noqa: NPY002
        if contrast_first:
            picture.map(self._scale(self.contrast_lower, self.contrast_upper))
        saturation, hue = self._scale(self.saturation_lower, self.saturation_upper), self._hue()
        picture.map_channel(1, saturation)
        picture.map_channel(0, hue)
        if not contrast_first:
            picture.map(self._scale(self.contrast_lower, self.contrast_upper))
        results['img'] = picture.img
        return results

    def _brightness(self) -> Step | None:
        if not np.random.randint(2):  # noqa: NPY002
            return None
        beta = np.random.uniform(-self.brightness_delta, self.brightness_delta)  # noqa: NPY002
        return self.convert(_VALUES, beta=beta), None

    def _scale(self, lower: float, upper: float) -> Step | None:
        if not np.random.randint(2):  # noqa: NPY002
            return None
        alpha = np.random.uniform(lower, upper)  # noqa: NPY002
        return self.convert(_VALUES, alpha), alpha

    def _hue(self) -> Step | None:
        if not np.random.randint(2):  # noqa: NPY002
            return None
        turn = np.random.randint(-self.hue_delta, self.hue_delta)  # noqa: NPY002
        return ((_VALUES.astype(int) + turn) % 180).astype(np.uint8), None


class _Distorted:
    """A picture, uint8 BGR (H, W, 3), that steps change one after the other in the same few buffers.

    Attributes:
        img (np.ndarray): The picture as it is now; the one given is never written into.
    """

    def __init__(self, img: np.ndarray) -> None:
        self.img = img
        self._own: np.ndarray | None = None
        self._hsv: np.ndarray | None = None
        self._planes: np.ndarray | None = None

    def map(self, step: Step | None) -> None:
        """Replaces every value."""
        if step is not None:
            self.img = self._own = mapped(self.img, step, self._own)

    def map_channel(self, channel: int, step: Step | None) -> None:
        """Replaces the values of one channel of hue (0..179), saturation and value (0..255)."""
        if step is None:
            return
        if self._planes is None:
            self._planes = np.empty((3, *self.img.shape[:2]), dtype=np.uint8)
        planes = list(self._planes)
        self._hsv = cv2.cvtColor(self.img, cv2.COLOR_BGR2HSV, dst=self._hsv)
        cv2.split(self._hsv, planes)
        mapped(planes[channel], step, planes[channel])
        cv2.merge(planes, dst=self._hsv)
        self.img = self._own = cv2.cvtColor(self._hsv, cv2.COLOR_HSV2BGR, dst=self._own)


def mapped(array: np.ndarray, step: Step, out: np.ndarray | None = None) -> np.ndarray:
    """Maps a uint8 array by a step's table: by arithmetic where that gives just the same, in less time.

    Args:
        array: Of any shape, or BGR (H, W, 3).
        step: What to do.
        out: Where to write, may be ``array``; ``None`` for a new array.
    """
    table, alpha = step
    if alpha is not None:
        # OpenCV rounds where mmseg cuts off. If a little less than half a unit makes no difference at either of two
        # places, it makes none in between, whatever the rounding of the product is.
        places = (cv2.convertScaleAbs(_VALUES, alpha=alpha, beta=beta) for beta in (-0.4999, -0.4998))
        if all(np.array_equal(table, place.ravel()) for place in places):
            return cv2.convertScaleAbs(array, dst=out, alpha=alpha, beta=-0.49985)
    elif array.ndim == 3:
        shift = int(table[128]) - 128
        if np.array_equal(table, cv2.add(_VALUES, shift).ravel()):
            return cv2.add(array, (shift, shift, shift, 0), dst=out)
    return cv2.LUT(array, table, dst=out)


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
        """Packs; other keys of ``results`` are left out.

        Raises:
            InputError: The picture was decoded at a fraction of its sides and then never resized.
        """
        img = results.get('img')
        if 'jpeg_reduction' in results:
            raise InputError(
                f'image {results.get("img_path")} was decoded at 1/{results["jpeg_reduction"]} of its sides '
                'for a resize that does not come: put Resize or RandomResize into the pipeline, '
                'or leave enough_for out of LoadImageFromFile'
            )
        if img is None or img.ndim != 3 or img.dtype != np.uint8:
            return super().transform(results)
        planes = np.empty((img.shape[2], *img.shape[:2]), dtype=np.uint8)
        cv2.split(img, list(planes))
        rest = {key: value for key, value in results.items() if key != 'img'}
        return {'inputs': torch.from_numpy(planes), **super().transform(rest)}
