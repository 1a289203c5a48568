"""Multi-scale and flip testing: the mean of the class probabilities of several views of a picture.

mmseg's ``SegTTAModel`` keeps the logits of all views until the last one: twelve views of a 2000 x 3000 picture with 150
classes are 43 GB. This one adds each view to a running sum and forgets it. The predictions are the same.
"""

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel as MMSegSegTTAModel
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ...registry import MODELS


@MODELS.register_module()
class SegTTAModel(MMSegSegTTAModel):
    """Averages a segmentor's class probabilities over the views that ``TestTimeAug`` makes.

    Args:
        module: The segmentor or its config; its predictions are at the picture's own size, flips undone.
        data_preprocessor: Replaces the one of the segmentor's config.
    """

    def __init__(self, module: dict | nn.Module, data_preprocessor: dict | nn.Module | None = None) -> None:
        super().__init__(module, data_preprocessor)
        self.module.test_cfg['keep_logits'] = True  # Their softmax is what is averaged.

    def test_step(self, data: dict[str, list]) -> list[SegDataSample]:
        """Predicts a batch of pictures.

        Args:
            data: A collated batch: ``inputs`` and ``data_samples`` are lists over views of lists over pictures.

        Returns:
            For each picture a sample with ``pred_sem_seg``, int64 (1, H, W), 0..K-1, the labels where there were any,
            and the meta information of its first view.
        """
        num_views = len(data['inputs'])
        results, means = [], []
        for i in range(num_views):
            samples = self.module.test_step({key: views[i] for key, views in data.items()})
            # In comprehensions: no name holds a view's logits while the next view makes its own.
            shares = [self._probabilities(sample) / num_views for sample in samples]
            if i == 0:
                results, means = [_without_prediction(sample) for sample in samples], shares
            else:
                means = [mean.add_(share) for mean, share in zip(means, shares, strict=True)]
            del samples, shares
        for result, mean in zip(results, means, strict=True):
            result.pred_sem_seg = PixelData(data=self._classes(mean))
        return results

    def _probabilities(self, sample: SegDataSample) -> Tensor:
        """Float (K, H, W), 0..1."""
        logits = sample.seg_logits.data
        return logits.softmax(dim=0) if self.module.out_channels > 1 else logits.sigmoid()

    def _classes(self, probabilities: Tensor) -> Tensor:
        """Int64 (1, H, W) of float (K, H, W)."""
        if self.module.out_channels > 1:
            return probabilities.argmax(dim=0, keepdim=True)
        return (probabilities > self.module.decode_head.threshold).to(torch.int64)


def _without_prediction(sample: SegDataSample) -> SegDataSample:
    result = SegDataSample(metainfo=sample.metainfo)
    if 'gt_sem_seg' in sample:
        result.gt_sem_seg = sample.gt_sem_seg
    return result
