"""Heads of masked image modelling: mmpretrain's, with a loss that does not depend on how a batch is spread.

mmpretrain (and the official code) average the loss over the masked patches of a process and then over processes. Where
masks differ in size, as BEiT v1's do, that weights patches unequally. Here the sum is divided by the mean number of
masked patches per process, so that N processes give the gradient of one with the joint batch.
"""

import torch
from mmengine.dist import all_reduce
from mmpretrain.models.heads import BEiTV1Head as _BEiTV1Head
from mmpretrain.models.heads import BEiTV2Head as _BEiTV2Head
from torch import Tensor, nn

from ...registry import MODELS

_LOSS = dict(type='mmpretrain.CrossEntropyLoss')


class _MaskedPrediction:
    """What both heads do with some tokens (mixin)."""

    def init_weights(self) -> None:
        """As the linear layers of the backbone."""
        nn.init.trunc_normal_(self.cls_head.weight, std=0.02)
        nn.init.zeros_(self.cls_head.bias)
        self._is_init = True

    def _judge(self, tokens_BND: Tensor, target_BN: Tensor, mask_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and accuracy in percent over the masked patches."""
        masked = mask_BN.flatten().nonzero().flatten()
        logits = self.cls_head(tokens_BND.flatten(0, 1)[masked]).float()
        target = target_BN.flatten()[masked]
        count = torch.tensor(float(len(masked)), device=logits.device)
        all_reduce(count, op='mean')
        loss = self.loss_module(logits, target, avg_factor=count.clamp(min=1))
        accuracy = (logits.detach().argmax(dim=1) == target).float().mean() * 100
        return loss, accuracy.nan_to_num()


@MODELS.register_module()
class BEiTV1Head(_MaskedPrediction, _BEiTV1Head):
    """Predicts the visual words of masked patches by one linear layer.

    Args:
        embed_dims: Width D of the tokens.
        num_embed: Visual words K.
        loss: Config of the loss, by its full name as mmpretrain has it.
    """

    def __init__(self, embed_dims: int, num_embed: int = 8192, loss: dict | None = None) -> None:
        super().__init__(embed_dims, num_embed, loss or _LOSS, init_cfg=None)

    def loss(self, tokens_BND: Tensor, target_BN: Tensor, mask_BN: Tensor) -> dict[str, Tensor]:
        """Loss of patch tokens.

        Args:
            tokens_BND: Float (B, N, D), normalised patch tokens without class token.
            target_BN: Int64 (B, N), 0..K-1.
            mask_BN: Bool (B, N), true where the patch was masked.

        Returns:
            ``loss_mim`` and ``acc_mim`` in percent.
        """
        loss, accuracy = self._judge(tokens_BND, target_BN, mask_BN)
        return dict(loss_mim=loss, acc_mim=accuracy)


@MODELS.register_module()
class BEiTV2Head(_MaskedPrediction, _BEiTV2Head):
    """Predicts the visual words twice by one shared layer: from the last tokens and from the class-token head's.

    Args:
        embed_dims: Width D of the tokens.
        num_embed: Visual words K.
        loss: Config of the loss, by its full name as mmpretrain has it.
    """

    def __init__(self, embed_dims: int, num_embed: int = 8192, loss: dict | None = None) -> None:
        super().__init__(embed_dims, num_embed, loss or _LOSS, init_cfg=None)

    def loss(self, tokens_BND: Tensor, cls_tokens_BND: Tensor, target_BN: Tensor, mask_BN: Tensor) -> dict[str, Tensor]:
        """The two losses, to be added; arguments as in :meth:`BEiTV1Head.loss`.

        Args:
            tokens_BND: From the last layer.
            cls_tokens_BND: From the class-token head (:class:`~.neck.BEiTV2Neck`).
            target_BN: Visual words.
            mask_BN: Which patches were masked.

        Returns:
            ``loss_mim``, ``loss_cls``, and ``acc_mim``, ``acc_cls`` in percent.
        """
        loss_mim, acc_mim = self._judge(tokens_BND, target_BN, mask_BN)
        loss_cls, acc_cls = self._judge(cls_tokens_BND, target_BN, mask_BN)
        return dict(loss_mim=loss_mim, loss_cls=loss_cls, acc_mim=acc_mim, acc_cls=acc_cls)
