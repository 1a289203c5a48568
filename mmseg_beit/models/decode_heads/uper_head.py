"""UPerHead (arXiv:1807.10221) with a third of the products or less."""

from collections.abc import Sequence

import torch
from mmseg.models.decode_heads import UPerHead as MMSegUPerHead
from torch import Tensor, nn

from ...registry import MODELS
from ..layers.resampling import resize
from ..layers.tracing import is_exporting
from ..losses import UpsampledLossMixin
from .convolve import convolve


@MODELS.register_module()
class UPerHead(UpsampledLossMixin, MMSegUPerHead):
    """mmseg's head: its arguments, its parameters, its numbers to rounding.

    Two convolutions read maps that are merely upsampled and take their products before that: the fusion over all
    levels, and the pyramid pooling's over its pooled maps. See :mod:`mmseg_beit.models.layers.resampling`.
    """

    def convs_of_resized(self) -> list[nn.Module]:
        """The convolutions over resized maps."""
        return [self.bottleneck.conv, self.fpn_bottleneck.conv]

    def psp_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Pyramid pooling of the last map: float (B, C, h, w) to (B, channels, h, w)."""
        x = inputs[-1]
        pooled = [branch(x) for branch in self.psp_modules]
        return convolve(self.bottleneck, [x, *pooled], x.shape[2:], self.align_corners)

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """Features float (B, channels, H, W) at the first map's size, before the classifier."""
        inputs = self._transform_inputs(inputs)
        maps = [conv(x) for conv, x in zip(self.lateral_convs, inputs[:-1], strict=True)]
        maps.append(self.psp_forward(inputs))
        for i in range(len(maps) - 1, 0, -1):
            above = resize(maps[i], maps[i - 1].shape[2:], self.align_corners)
            # The lateral maps are this head's own; a gradient may need them as they are.
            maps[i - 1] = maps[i - 1] + above if torch.is_grad_enabled() or is_exporting() else maps[i - 1].add_(above)
        for i, conv in enumerate(self.fpn_convs):
            maps[i] = convolve(conv, [maps[i]], maps[i].shape[2:], self.align_corners)
        return convolve(self.fpn_bottleneck, maps, maps[0].shape[2:], self.align_corners)
