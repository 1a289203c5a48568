"""Views of a picture for pre-training, and their packing."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from PIL import Image

from ...errors import InputError
from ...registry import TRANSFORMS

_FILTERS = {
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'lanczos': Image.Resampling.LANCZOS,
}


@TRANSFORMS.register_module()
class RandomResizedCropTwoViews(BaseTransform):
    """A random part of the picture at two sizes: one for the backbone, one for the tokenizer.

    Resizing is Pillow's, which widens its filters when it shrinks, as in the official code. NOTE(reference):
    mmpretrain's transform of this kind resizes by OpenCV without that, which aliases in the tokenizer's small view.

    Required Keys:

    - img (np.ndarray): uint8 (H, W, 3).

    Modified Keys:

    - img (np.ndarray): uint8, of ``size``.
    - img_shape (tuple[int, int])

    Added Keys:

    - target_img (np.ndarray): uint8, of ``second_size``, with a second size.

    Args:
        size: Side or (height, width) of the first view.
        second_size: Of the second; ``None`` for a single view.
        scale: Least and greatest share of the picture's area.
        ratio: Least and greatest width over height.
        interpolation: Filter of the first view: ``bilinear``, ``bicubic`` or ``lanczos``.
        second_interpolation: Filter of the second.

    Raises:
        InputError: A filter is unknown, or a range is none.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        second_size: int | Sequence[int] | None = None,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = 'bicubic',
        second_interpolation: str = 'lanczos',
    ) -> None:
        for name in (interpolation, second_interpolation):
            if name not in _FILTERS:
                raise InputError(f'interpolation={name!r} is unknown: use one of {", ".join(_FILTERS)}')
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
            raise InputError(f'scale={tuple(scale)} and ratio={tuple(ratio)} must be ranges, scale within (0, 1]')
        self.size = _pair(size)
        self.second_size = None if second_size is None else _pair(second_size)
        self.scale, self.ratio = tuple(scale), tuple(ratio)
        self.interpolation, self.second_interpolation = interpolation, second_interpolation

    def transform(self, results: dict) -> dict:
        """Crops and resizes."""
        img = results['img']
        top, left, height, width = self.crop_box(img.shape[:2])
        part = Image.fromarray(np.ascontiguousarray(img[top : top + height, left : left + width]))
        if self.second_size is not None:
            results['target_img'] = _resized(part, self.second_size, self.second_interpolation)
        results['img'] = _resized(part, self.size, self.interpolation)
        results['img_shape'] = self.size
        return results

    def crop_box(self, shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """Draws top, left, height and width; the middle of the picture where ten draws do not fit."""
        height, width = shape
        for _ in range(10):
            area = height * width * np.random.uniform(*self.scale)  # noqa: NPY002
            aspect = math.exp(np.random.uniform(*map(math.log, self.ratio)))  # noqa: NPY002
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top = np.random.randint(height - h + 1)  # noqa: NPY002
                left = np.random.randint(width - w + 1)  # noqa: NPY002
                return top, left, h, w
        w = min(width, round(height * self.ratio[1]))
        h = min(height, round(width / self.ratio[0]))
        return (height - h) // 2, (width - w) // 2, h, w

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size}, second_size={self.second_size}, scale={self.scale})'


@TRANSFORMS.register_module()
class ResizeAndCenterCrop(BaseTransform):
    """The middle of a picture, for validation: its short side resized, then a crop of that share cut out.

    Required and Modified Keys:

    - img (np.ndarray): uint8 (H, W, 3), of ``size`` afterwards.
    - img_shape (tuple[int, int])

    Args:
        size: Side or (height, width) of the result.
        share: The result's side over the resized picture's short side.
        interpolation: ``bilinear``, ``bicubic`` or ``lanczos``.
    """

    def __init__(self, size: int | Sequence[int], share: float = 0.875, interpolation: str = 'bicubic') -> None:
        if interpolation not in _FILTERS:
            raise InputError(f'interpolation={interpolation!r} is unknown: use one of {", ".join(_FILTERS)}')
        self.size = _pair(size)
        self.share = share
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        """Resizes and crops in one step."""
        img = results['img']
        height, width = img.shape[:2]
        # The part of the original that is left: as large as fits in the result's shape, times the share.
        zoom = self.share * min(height / self.size[0], width / self.size[1])
        h, w = max(1, round(zoom * self.size[0])), max(1, round(zoom * self.size[1]))
        top, left = (height - h) // 2, (width - w) // 2
        part = Image.fromarray(np.ascontiguousarray(img[top : top + h, left : left + w]))
        results['img'] = _resized(part, self.size, self.interpolation)
        results['img_shape'] = self.size
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size}, share={self.share})'


@TRANSFORMS.register_module()
class PackViews(BaseTransform):
    """Packs views and mask for the pre-training models.

    Required Keys:

    - img (np.ndarray): uint8 (H, W, 3).
    - target_img, mask (np.ndarray, optional)

    The result holds ``img`` and ``target_img`` as uint8 tensors (3, H, W) and ``mask`` as a bool tensor (h, w).
    """

    def transform(self, results: dict) -> dict:
        """Packs; other keys of ``results`` are left out."""
        packed = {
            name: torch.from_numpy(np.ascontiguousarray(results[name].transpose(2, 0, 1)))
            for name in ('img', 'target_img')
            if name in results
        }
        if 'mask' in results:
            packed['mask'] = torch.from_numpy(results['mask'])
        return packed


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _resized(part: Image.Image, size: tuple[int, int], interpolation: str) -> np.ndarray:
    return np.asarray(part.resize((size[1], size[0]), _FILTERS[interpolation]))
