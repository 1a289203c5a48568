"""Backbone, neck and heads as one segmentor that takes images of any size.

mmseg's ``EncoderDecoder`` with three differences in inference: inputs are padded to multiples of the patch size and the
logits cropped back; sliding windows go through the network in batches; windows add to their place instead of to a
padded copy of the whole image. With the same weights and sizes the logits are mmseg's to rounding.
"""

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmseg.models.segmentors import EncoderDecoder as MMSegEncoderDecoder
from torch import Tensor

from ...errors import InputError
from ...registry import MODELS


@MODELS.register_module()
class EncoderDecoder(MMSegEncoderDecoder):
    """Segmentor for images of any size.

    Takes the arguments of mmseg's ``EncoderDecoder``. ``test_cfg`` holds ``mode`` (``whole`` or ``slide``) and for
    ``slide`` also ``crop_size`` and ``stride``, each (height, width) in pixels, and ``window_batch_size``, the number
    of windows that go through the network at once (default 4: less memory when smaller, the same logits).

    Raises:
        InputError: ``test_cfg`` is not usable.
    """

    def __init__(self, *args, **kwargs) -> None:
        # Parts named by plain type are ours first, also when the caller has set no default scope.
        with DefaultScope.overwrite_default_scope('mmseg_beit'):
            super().__init__(*args, **kwargs)
        self.test_cfg = ConfigDict(self.test_cfg or {})
        _check_test_cfg(self.test_cfg)

    @property
    def patch_size(self) -> int:
        """Both sides of the backbone's input are multiples of this; 1 for a backbone that takes any size."""
        return getattr(self.backbone, 'patch_size', 1)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits of images of any size.

        Args:
            inputs: Float (B, 3, H, W), normalised. Padding is 0, the mean colour.
            batch_img_metas: Not used: the logits always get the inputs' size.

        Returns:
            Float (B, K, H, W).
        """
        height, width = inputs.shape[2:]
        padded = F.pad(inputs, (0, -width % self.patch_size, 0, -height % self.patch_size))
        features = self.extract_feat(padded)
        logits = self.decode_head.predict(features, [dict(img_shape=padded.shape[2:])], self.test_cfg)
        return logits[:, :, :height, :width]

    def whole_inference(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits of whole images: float (B, 3, H, W) to float (B, K, H, W)."""
        return self.encode_decode(inputs)

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits averaged over overlapping windows; a picture smaller than the window is one window of its own size.

        Args:
            inputs: Float (B, 3, H, W), normalised.
            batch_img_metas: Not used.

        Returns:
            Float (B, K, H, W).
        """
        batch, _, height, width = inputs.shape
        crop_h, crop_w = min(self.test_cfg.crop_size[0], height), min(self.test_cfg.crop_size[1], width)
        rows = _window_starts(height, crop_h, self.test_cfg.stride[0])
        cols = _window_starts(width, crop_w, self.test_cfg.stride[1])
        windows = [(i, y, x) for y in rows for x in cols for i in range(batch)]
        logits = inputs.new_zeros(batch, self.out_channels, height, width)
        for chunk in _chunks(windows, self.test_cfg.get('window_batch_size', 4)):
            crops = torch.stack([inputs[i, :, y : y + crop_h, x : x + crop_w] for i, y, x in chunk])
            for (i, y, x), crop_logits in zip(chunk, self.encode_decode(crops), strict=True):
                logits[i, :, y : y + crop_h, x : x + crop_w] += crop_logits
        logits /= _coverage(height, rows, crop_h, logits)[:, None]
        logits /= _coverage(width, cols, crop_w, logits)
        return logits

    def inference(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits (B, K, H, W) of normalised float images (B, 3, H, W), by whole image or sliding window."""
        slide = self.test_cfg.get('mode', 'whole') == 'slide'
        return self.slide_inference(inputs) if slide else self.whole_inference(inputs)


def _check_test_cfg(test_cfg: ConfigDict) -> None:
    mode = test_cfg.get('mode', 'whole')
    if mode not in ('whole', 'slide'):
        raise InputError(f'model.test_cfg.mode={mode!r} is unknown: use whole or slide')
    if mode == 'whole':
        return
    for key in ('crop_size', 'stride'):
        value = test_cfg.get(key)
        if value is None or len(value) != 2 or min(value) < 1:
            raise InputError(f'model.test_cfg.{key}={value!r} must be (height, width) in pixels when mode is slide')
    if any(stride > crop for stride, crop in zip(test_cfg.stride, test_cfg.crop_size, strict=True)):
        raise InputError(
            f'model.test_cfg.stride={tuple(test_cfg.stride)} exceeds crop_size={tuple(test_cfg.crop_size)}: '
            'pixels between the windows would get no prediction, so use a smaller stride'
        )


def _window_starts(side: int, crop: int, stride: int) -> list[int]:
    """First pixels of the windows along one side, the last window moved back inside as mmseg does."""
    count = max(side - crop + stride - 1, 0) // stride + 1
    return [min(i * stride, side - crop) for i in range(count)]


def _coverage(side: int, starts: list[int], crop: int, like: Tensor) -> Tensor:
    """How many windows hold each pixel of a side: (side,) of ``like``'s dtype and device."""
    count = like.new_zeros(side)
    for start in starts:
        count[start : start + crop] += 1
    return count


def _chunks(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]
