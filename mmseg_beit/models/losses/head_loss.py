"""The loss of a decode head without full-size logits."""

import torch
from mmseg.models.losses import CrossEntropyLoss
from mmseg.models.losses.cross_entropy_loss import cross_entropy
from torch import Tensor

from .upsampled_cross_entropy import upsampled_cross_entropy


class UpsampledLossMixin:
    """Gives a decode head mmseg's cross-entropy and ``acc_seg`` through :func:`upsampled_cross_entropy`.

    Stands before mmseg's ``BaseDecodeHead`` in a head's bases. Heads with a pixel sampler or another loss keep mmseg's
    way.
    """

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        """Losses of a head's logits.

        Args:
            seg_logits: Float (B, K, h, w).
            batch_data_samples: Samples with ``gt_sem_seg``, int64 (1, H, W), 0..K-1 or the ignored index.

        Returns:
            The loss under its name, float32 scalar, and ``acc_seg``, the share of right pixels in percent, float32
            (1,).
        """
        loss = self.loss_decode
        plain = type(loss) is CrossEntropyLoss and loss.cls_criterion is cross_entropy and loss.reduction == 'mean'
        if not plain or self.sampler is not None:
            return super().loss_by_feat(seg_logits, batch_data_samples)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        class_weight = None
        if loss.class_weight is not None:
            class_weight = torch.tensor(loss.class_weight, dtype=torch.float32, device=labels.device)
        total, num_correct = upsampled_cross_entropy(
            seg_logits, labels, self.align_corners, self.ignore_index, class_weight
        )
        valid = labels != self.ignore_index
        num_valid = valid.sum()
        if class_weight is not None:
            # Ignored pixels take the weight of class 0 times 0: picking the others out would wait for a GPU.
            divisor = (class_weight[labels.where(valid, 0)] * valid).sum()
        else:
            # NOTE(reference): mmseg averages over ignored pixels too unless told otherwise.
            divisor = num_valid if loss.avg_non_ignore else labels.numel()
        eps = torch.finfo(torch.float32).eps
        accuracy = (num_correct.float() + eps) * (100.0 / (num_valid + eps))
        return {loss.loss_name: loss.loss_weight * total / (divisor + eps), 'acc_seg': accuracy.reshape(1)}
