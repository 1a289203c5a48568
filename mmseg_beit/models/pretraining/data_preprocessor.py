"""From batches of pictures to what the pre-training models take."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from ...registry import MODELS


@MODELS.register_module()
class PretrainingDataPreprocessor(BaseDataPreprocessor):
    """Moves a collated batch to the device and normalises the backbone's view; a tokenizer's view stays 0..255.

    Args:
        mean: Of the backbone's view, RGB in 0..255; ``None`` to leave it in 0..255 (tokenizers normalise themselves).
        std: Likewise.
        bgr_to_rgb: The pictures come in BGR, as our loading does.
    """

    def __init__(
        self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, bgr_to_rgb: bool = True
    ) -> None:
        super().__init__()
        self.bgr_to_rgb = bgr_to_rgb
        self.normalises = mean is not None
        if self.normalises:
            assert std is not None and len(mean) == len(std) == 3, 'mean and std have three numbers each'
            self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
            self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict[str, Tensor]:
        """Prepares a batch.

        Args:
            data: ``img`` uint8 (B, 3, H, W); optionally ``target_img`` uint8 (B, 3, H', W'), ``mask`` bool (B, h, w)
                and anything else, which is passed on.
            training: Not used.

        Returns:
            The same keys; pictures float32 RGB, the first normalised.
        """
        data = self.cast_data(data)
        for name in ('img', 'target_img'):
            if name in data:
                img = data[name].flip(1) if self.bgr_to_rgb else data[name]
                data[name] = img.float()
        if self.normalises:
            data['img'] = (data['img'] - self.mean) / self.std
        return data
