"""SETR's naive and progressive upsampling heads (arXiv:2012.15840) with the resizing after the products."""

from collections.abc import Sequence

from mmseg.models.decode_heads import SETRUPHead as MMSegSETRUPHead
from torch import Tensor, nn

from ...registry import MODELS
from ..layers.resampling import resize
from ..losses import UpsampledLossMixin
from .convolve import convolve


@MODELS.register_module()
class SETRUPHead(UpsampledLossMixin, MMSegSETRUPHead):
    """mmseg's head: its arguments, its parameters, its numbers to rounding.

    Each convolution after an upsampling takes its products before it, and so does the classifier: bilinear weights sum
    to one, so its bias survives, and dropout of whole channels draws the same channels at either size.
    """

    def convs_of_resized(self) -> list[nn.Module]:
        """The convolutions over resized maps."""
        return [conv.conv for conv, _ in list(self.up_convs)[1:]]

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits float (B, K, H, W) of the selected map (B, C, h, w); H is h times ``up_scale`` once per stage."""
        x = self._transform_inputs(inputs)
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        size = x.shape[2:]
        for conv, upsample in self.up_convs:
            x = convolve(conv, [x], size, self.align_corners)
            size = tuple(_scaled(side, upsample.scale_factor) for side in size)
        return resize(self.cls_seg(x), size, self.align_corners)


def _scaled(side: int, factor: float) -> int:
    # Without a detour through a float where it can be: an exported graph's open sides have no integer part to take.
    return side * int(factor) if float(factor).is_integer() else int(side * factor)
