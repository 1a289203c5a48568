"""mmseg's training augmentations with less work: the same random draws, bit-equal results.

Inside our scope they win under mmseg's names. What they save: label counts by a histogram instead of a sort for each
try of a crop; photometric steps as tables of 256 entries instead of float pictures; planes split by OpenCV instead of a
strided copy.
"""

import cv2
import numpy as np
import torch
from mmseg.datasets.transforms import PackSegInputs as _PackSegInputs
from mmseg.datasets.transforms import PhotoMetricDistortion as _PhotoMetricDistortion
from mmseg.datasets.transforms import RandomCrop as _RandomCrop

from ...registry import TRANSFORMS

_VALUES = np.arange(256, dtype=np.uint8)


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
        counts = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()
        if 0 <= self.ignore_index < 256:
            counts[self.ignore_index] = 0
        return np.count_nonzero(counts) > 1 and counts.max() / counts.sum(dtype=np.float64) < self.cat_max_ratio


@TRANSFORMS.register_module()
class PhotoMetricDistortion(_PhotoMetricDistortion):
    """Brightness, contrast, saturation, hue and contrast again, each with probability one half.

    Takes mmseg's arguments. Pictures are uint8; others take mmseg's way.

    Required and Modified Keys:

    - img (np.ndarray): uint8 BGR (H, W, 3), contiguous afterwards.
    """

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """Clipped ``img * alpha + beta``, uint8 to uint8, through a table."""
        if img.dtype != np.uint8:
            return super().convert(img, alpha, beta)
        return cv2.LUT(img, super().convert(_VALUES, alpha, beta))

    def saturation(self, img: np.ndarray) -> np.ndarray:
        """Scales the saturation of a uint8 BGR picture, with probability one half."""
        if not np.random.randint(2):  # noqa: NPY002
            return img
        alpha = np.random.uniform(self.saturation_lower, self.saturation_upper)  # noqa: NPY002
        return _through_hsv(img, 1, self.convert(_VALUES, alpha))

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Turns the hue of a uint8 BGR picture, with probability one half."""
        if not np.random.randint(2):  # noqa: NPY002
            return img
        turn = np.random.randint(-self.hue_delta, self.hue_delta)  # noqa: NPY002
        return _through_hsv(img, 0, ((_VALUES.astype(int) + turn) % 180).astype(np.uint8))


def _through_hsv(img: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Replaces one channel of hue (0..179), saturation and value (0..255) by its values in a table."""
    hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


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
        for i, plane in enumerate(planes):
            cv2.extractChannel(img, i, dst=plane)
        packed = super().transform({key: value for key, value in results.items() if key != 'img'})
        return {'inputs': torch.from_numpy(planes), **packed}
