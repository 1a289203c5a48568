"""Inference on pictures of any size: whole or by sliding windows, logits kept small until labels are wanted."""

import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from ...errors import InputError
from ..layers.logit_map import LogitMap, Piece


class AnySizeInference:
    """``predict`` and its steps.

    The segmentor brings ``_small_logits``, ``test_cfg``, ``out_channels``, ``align_corners``, and mmseg's
    ``postprocess_result`` for heads with a single channel.
    """

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Labels of images.

        Args:
            inputs: Float (B, 3, H, W), normalised.
            data_samples: Meta information: ``ori_shape`` (the size wanted), ``padding_size``, ``flip``. ``None``:
                labels at the inputs' size.

        Returns:
            The samples with ``pred_sem_seg``, int64 (1, H, W), 0..K-1 (float 0 or 1 for a single channel, as mmseg has
            it), and with ``seg_logits``, float32 (K, H, W), where ``test_cfg.keep_logits``.
        """
        if self.out_channels == 1:
            return self.postprocess_result(self.inference(inputs), data_samples)
        if data_samples is None:
            data_samples = [SegDataSample() for _ in inputs]
        for logit_map, sample in zip(self._logit_maps(inputs), data_samples, strict=True):
            logit_map = self._as_original(logit_map, sample)
            if self.test_cfg.get('keep_logits', False):
                logits = logit_map.logits()
                sample.set_data(dict(seg_logits=PixelData(data=logits)))
                labels = logits.argmax(dim=0)
            else:
                labels = logit_map.labels()
            sample.set_data(dict(pred_sem_seg=PixelData(data=labels.unsqueeze(0))))
        return data_samples

    def inference(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits float32 (B, K, H, W) of normalised float images (B, 3, H, W), whole or by sliding window."""
        return torch.stack([logit_map.logits() for logit_map in self._logit_maps(inputs)])

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits averaged over overlapping windows: float (B, 3, H, W) to float32 (B, K, H, W)."""
        return torch.stack([logit_map.logits() for logit_map in self._windows(inputs)])

    def whole_inference(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits of whole images: float (B, 3, H, W) to float32 (B, K, H, W)."""
        return torch.stack([logit_map.logits() for logit_map in self._whole(inputs)])

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits of whole images, as :meth:`whole_inference`."""
        return self.whole_inference(inputs)

    def _logit_maps(self, inputs: Tensor) -> list[LogitMap]:
        slide = self.test_cfg.get('mode', 'whole') == 'slide'
        return self._windows(inputs) if slide else self._whole(inputs)

    def _whole(self, inputs: Tensor) -> list[LogitMap]:
        height, width = inputs.shape[2:]
        small_BhwK, rows, cols = self._small_logits(inputs)
        return [LogitMap([Piece(small, rows, cols)]).crop(0, 0, height, width) for small in small_BhwK]

    def _windows(self, inputs: Tensor) -> list[LogitMap]:
        """Overlapping windows, each pixel their mean; a picture smaller than the window is one of its own size."""
        height, width = inputs.shape[2:]
        crop_h, crop_w = min(self.test_cfg.crop_size[0], height), min(self.test_cfg.crop_size[1], width)
        tops = _window_starts(height, crop_h, self.test_cfg.stride[0])
        lefts = _window_starts(width, crop_w, self.test_cfg.stride[1])
        windows = [(i, y, x) for i in range(len(inputs)) for y in range(len(tops)) for x in range(len(lefts))]
        pieces: list[list[Piece]] = [[] for _ in inputs]
        size = self.test_cfg.get('window_batch_size', 4)
        placed_rows = placed_cols = None
        for chunk in [windows[i : i + size] for i in range(0, len(windows), size)]:
            crops = [inputs[i, :, tops[y] : tops[y] + crop_h, lefts[x] : lefts[x] + crop_w] for i, y, x in chunk]
            small_BhwK, rows, cols = self._small_logits(torch.stack(crops))
            if placed_rows is None:
                placed_rows = _place(rows[:crop_h], tops, height)
                placed_cols = _place(cols[:crop_w], lefts, width)
            for (i, y, x), small in zip(chunk, small_BhwK, strict=True):
                pieces[i].append(Piece(small, placed_rows[y], placed_cols[x]))
        return [LogitMap(of_image) for of_image in pieces]

    def _small_logits(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits float32 (B, h, w, K) of inputs (B, 3, H, W), and the matrices (H', h), (W', w) that resize them.

        H' >= H and W' >= W: rows and columns beyond the inputs are left out by whoever places the logits.
        """
        raise TypeError(f'{type(self).__name__} does not say how it makes logits')

    def _as_original(self, logit_map: LogitMap, sample: SegDataSample) -> LogitMap:
        """Takes padding and flip of the test pipeline back, and resizes to the picture's own size, in mmseg's order."""
        meta = sample.metainfo
        left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', [0] * 4))
        _, height, width = logit_map.shape
        logit_map = logit_map.crop(top, left, height - top - bottom, width - left - right)
        if meta.get('flip'):
            logit_map = logit_map.flip(horizontal=meta['flip_direction'] == 'horizontal')
        if 'ori_shape' in meta:
            logit_map = logit_map.resize(*meta['ori_shape'], align_corners=self.align_corners)
        return logit_map


def _place(matrix: Tensor, starts: list[int], length: int) -> list[Tensor]:
    """Matrices (length, h) that put windows at their starts along one axis and average where they overlap."""
    crop = len(matrix)
    coverage = matrix.new_zeros(length)
    for start in starts:
        coverage[start : start + crop] += 1
    placed = []
    for start in starts:
        whole = matrix.new_zeros(length, matrix.shape[1])
        whole[start : start + crop] = matrix / coverage[start : start + crop, None]
        placed.append(whole)
    return placed


def check_test_cfg(test_cfg: ConfigDict) -> None:
    """Checks what inference reads of a config.

    Raises:
        InputError: The mode is unknown, or windows lack a size or leave pixels out.
    """
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
