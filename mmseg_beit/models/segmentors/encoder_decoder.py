"""Backbone, neck and heads as one segmentor that takes images of any size.

mmseg's ``EncoderDecoder`` with differences in inference only: inputs are padded to multiples of the patch size and the
logits cropped back; sliding windows go through the network in batches; and logits stay at the head's resolution until
labels are wanted (see :mod:`~mmseg_beit.models.layers.logit_map`). With the same weights and sizes the numbers are
mmseg's to rounding.
"""

import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder as MMSegEncoderDecoder
from torch import Tensor

from ...registry import MODELS
from ..decode_heads.fuse import Fusible
from ..layers.interpolation import interpolation_matrix
from .any_size import AnySizeInference, check_test_cfg


@MODELS.register_module()
class EncoderDecoder(Fusible, AnySizeInference, MMSegEncoderDecoder):
    """Segmentor for images of any size.

    Takes the arguments of mmseg's ``EncoderDecoder``. ``test_cfg`` holds ``mode`` (``whole`` or ``slide``) and for
    ``slide`` also ``crop_size`` and ``stride``, each (height, width) in pixels. Optional: ``window_batch_size``, the
    number of windows that go through the network at once (default 4: less memory when smaller, the same logits);
    ``keep_logits``, whether predictions hold ``seg_logits`` (K, H, W) beside the labels (default no: they are the
    largest tensor of inference by far).

    Raises:
        InputError: ``test_cfg`` is not usable.
    """

    def __init__(self, *args, **kwargs) -> None:
        # Parts named by plain type are ours first, also when the caller has set no default scope.
        with DefaultScope.overwrite_default_scope('mmseg_beit'):
            super().__init__(*args, **kwargs)
        self.test_cfg = ConfigDict(self.test_cfg or {})
        check_test_cfg(self.test_cfg)

    @property
    def patch_size(self) -> int:
        """Both sides of the backbone's input are multiples of this; 1 for a backbone that takes any size."""
        return getattr(self.backbone, 'patch_size', 1)

    def _small_logits(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The head's logits, and the matrices that resize them to the inputs, padded to the patch size."""
        height, width = inputs.shape[2:]
        padded = F.pad(inputs, (0, -width % self.patch_size, 0, -height % self.patch_size))
        features = self.extract_feat(padded)
        if type(self.decode_head).predict_by_feat is BaseDecodeHead.predict_by_feat:
            logits = self.decode_head.forward(features)
        else:  # A head that does more than resize its logits.
            logits = self.decode_head.predict(features, [dict(img_shape=padded.shape[2:])], self.test_cfg)
        rows = interpolation_matrix(logits.shape[2], padded.shape[2], self.align_corners)
        cols = interpolation_matrix(logits.shape[3], padded.shape[3], self.align_corners)
        return logits.permute(0, 2, 3, 1).float().contiguous(), rows, cols
