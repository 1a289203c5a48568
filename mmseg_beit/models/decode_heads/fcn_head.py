"""FCN head with faster convolutions and the loss without full-size logits."""

from collections.abc import Sequence

from mmseg.models.decode_heads import FCNHead as MMSegFCNHead
from torch import Tensor, nn

from ...registry import MODELS
from ..losses import UpsampledLossMixin
from .convolve import convolve


@MODELS.register_module()
class FCNHead(UpsampledLossMixin, MMSegFCNHead):
    """mmseg's head: its arguments, its parameters, its numbers to rounding."""

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """Features float (B, channels, h, w) of the selected map, before the classifier."""
        x = self._transform_inputs(inputs)
        size = x.shape[2:]
        features = x
        if not isinstance(self.convs, nn.Identity):
            for conv in self.convs:
                features = convolve(conv, [features], size, self.align_corners)
        if self.concat_input:
            features = convolve(self.conv_cat, [x, features], size, self.align_corners)
        return features
