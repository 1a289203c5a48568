"""Masked image modelling: predict the visual words of patches that the backbone does not see.

BEiT v1 (arXiv:2106.08254): the last tokens through one linear layer. BEiT v2 (arXiv:2208.06366): also the class-token
head, with a neck. The backbone is the one of segmentation with ``rel_pos='shared'``, ``use_mask_token=True`` and
``out_type='tokens'``; its checkpoints load there by their path.

The tokenizer is frozen and part of no checkpoint: the config names its file.
"""

from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor

from ...errors import InputError
from ...registry import MODELS
from .frozen import leave_out_of_state
from .teachers import IMAGENET_MEAN, IMAGENET_STD


@MODELS.register_module()
class MaskedImageModeling(BaseModel):
    """Backbone, tokenizer and head of BEiT pre-training.

    Args:
        backbone: Config of a BEiT that gives tokens.
        head: Config of a :class:`~.heads.BEiTV1Head` or, with a neck, of a :class:`~.heads.BEiTV2Head`.
        tokenizer: Config of what gives the targets: it has ``num_codes``, ``is_ready`` and ``tokenize(img)``, pictures
            RGB 0..255 to int64 (B, h, w).
        neck: Config of a :class:`~.neck.BEiTV2Neck` for BEiT v2.
        data_preprocessor: Config; by default our own with ImageNet's statistics.
        init_cfg: mmengine's initialisation config.

    Raises:
        InputError: The parts do not fit each other.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        tokenizer: dict,
        neck: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if data_preprocessor is None:
            data_preprocessor = dict(type='PretrainingDataPreprocessor', mean=IMAGENET_MEAN, std=IMAGENET_STD)
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = None if neck is None else MODELS.build(neck)
        self.head = MODELS.build(head)
        self.tokenizer = MODELS.build(tokenizer).requires_grad_(False).eval()
        leave_out_of_state(self, 'tokenizer.')
        self._check_parts()

    def _check_parts(self) -> None:
        backbone = self.backbone
        if backbone.mask_token is None or backbone.out_type != 'tokens':
            raise InputError(
                "masked image modelling needs a backbone with use_mask_token=True and out_type='tokens': set both"
            )
        last = backbone.num_layers - 1
        wanted = [last] if self.neck is None else [self.neck.early_layer - 1, last]
        if list(backbone.out_indices) != wanted:
            raise InputError(
                f'model.backbone.out_indices={tuple(backbone.out_indices)} does not fit the head: set '
                f'out_indices={tuple(wanted)}'
            )
        if (backbone.ln1 is None) != (self.neck is not None):
            final_norm = self.neck is None
            raise InputError(
                f'model.backbone.final_norm must be {final_norm} '
                f'({"the head takes normalised tokens" if final_norm else "the neck normalises for both predictions"})'
            )
        num_embed = self.head.cls_head.out_features
        if num_embed != self.tokenizer.num_codes:
            raise InputError(
                f'model.head.num_embed={num_embed} but the tokenizer has {self.tokenizer.num_codes} codes: set '
                f'model.head.num_embed={self.tokenizer.num_codes}'
            )

    def forward(
        self,
        img: Tensor,
        target_img: Tensor | None = None,
        mask: Tensor | None = None,
        mode: str = 'tensor',
        **kwargs: Any,
    ) -> Any:
        """Runs the model.

        Args:
            img: Float RGB (B, 3, H, W), normalised: the view that the backbone sees.
            target_img: Float RGB (B, 3, H', W'), 0..255: the same crop as the tokenizer sees it.
            mask: Bool (B, h, w), true where the backbone does not see the patch.
            mode: ``tensor``: the backbone's features; ``loss``: training losses; ``predict``: visual words.
            **kwargs: What else a batch holds (paths); not used.

        Returns:
            ``loss``: what the head gives. ``predict``: for each picture ``codes`` predicted for every patch and
            ``target_codes``, int64 (h, w), and its ``mask``.

        Raises:
            InputError: Mask, backbone and tokenizer disagree about the grid.
        """
        if mode == 'tensor':
            return self.backbone(img, mask)
        if mode not in ('loss', 'predict'):
            raise ValueError(f'mode={mode!r} is unknown: use tensor, loss or predict')
        assert target_img is not None and mask is not None, 'masked image modelling needs two views and a mask'
        target_BN = self._targets(img, target_img, mask)
        features = self._predictors(img, mask)
        if mode == 'loss':
            return self.head.loss(*features, target_BN, mask.flatten(1))
        codes_BN = self.head.cls_head(features[0]).argmax(dim=-1)
        return [
            dict(codes=codes.view(m.shape), target_codes=target.view(m.shape), mask=m)
            for codes, target, m in zip(codes_BN, target_BN, mask, strict=True)
        ]

    def _predictors(self, img: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Patch tokens (B, N, D) to predict from: one set, or two with a neck."""
        outs = self.backbone(img, mask)
        if self.neck is None:
            return (outs[-1][:, 1:],)
        return self.neck(*outs, tuple(mask.shape[1:]), self.backbone.rel_pos_bias)

    @torch.no_grad()
    def _targets(self, img: Tensor, target_img: Tensor, mask: Tensor) -> Tensor:
        """Visual words of the tokenizer's view, int64 (B, N)."""
        patch = self.backbone.patch_size
        grid = (img.shape[2] // patch, img.shape[3] // patch)
        if tuple(mask.shape[1:]) != grid:
            raise InputError(
                f'the masks are made for a grid of {mask.shape[1]}x{mask.shape[2]} but a view of {img.shape[2]}x'
                f'{img.shape[3]} pixels has {grid[0]}x{grid[1]} patches: set grid={grid} in BlockwiseMask'
            )
        codes = self.tokenizer.tokenize(target_img)
        if tuple(codes.shape[1:]) != grid:
            side = tuple(n * self.tokenizer.stride for n in grid)
            raise InputError(
                f'the tokenizer gives {codes.shape[1]}x{codes.shape[2]} tokens for {grid[0]}x{grid[1]} patches: set '
                f'second_size={side} in RandomResizedCropTwoViews'
            )
        return codes.flatten(1)

    def init_weights(self) -> None:
        """Initialises backbone, neck and head as the paper does, and loads the tokenizer.

        Raises:
            InputError: The tokenizer has no codebook.
        """
        for part in filter(None, (self.backbone, self.neck, self.head, self.tokenizer)):
            part.init_weights()
        if not self.tokenizer.is_ready:
            raise InputError(
                'the tokenizer has no codebook: name its checkpoint in '
                "model.tokenizer.init_cfg=dict(type='Pretrained', checkpoint=FILE)"
            )
        if self.tokenizer.init_cfg is None:
            print_log('the tokenizer has random weights, as model.tokenizer.init_cfg names no checkpoint', 'current')
        self._is_init = True

    def train(self, mode: bool = True) -> 'MaskedImageModeling':
        """Switches training mode; the tokenizer stays in evaluation mode."""
        super().train(mode)
        self.tokenizer.eval()
        return self
