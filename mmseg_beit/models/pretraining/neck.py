"""The class-token head of BEiT v2 (arXiv:2208.06366, section 3.2).

Patch tokens of an early layer, which know little of the whole picture, go with the class token of the last layer
through a few layers more and must predict the visual words too: what they lack, the class token has to bring.

Names of tensors are mmpretrain's (``patch_aggregation.*``, ``norm.*``).
"""

import math

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...registry import MODELS
from ..layers import Grid, RelativePosition, TransformerBlock


@MODELS.register_module()
class BEiTV2Neck(BaseModule):
    """Layers behind the backbone, and the norm that both predictions share.

    Args:
        embed_dims: Width D of the backbone.
        num_heads: Its attention heads.
        depth: Its layers.
        early_layer: The layer, counted from 1, whose patch tokens are used: 9 of 12, 21 of 24.
        num_layers: Layers here.
        mlp_ratio: Hidden width of their MLP over D.
        drop_path_rate: The backbone's; the layers here take the rates of the layers behind ``early_layer``.
        init_values: Start value of the layer scales; ``None`` for none.
        norm_cfg: Normalisation of the tokens.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        embed_dims: int = 768,
        num_heads: int = 12,
        depth: int = 12,
        early_layer: int = 9,
        num_layers: int = 2,
        mlp_ratio: float = 4,
        drop_path_rate: float = 0.0,
        init_values: float | None = 0.1,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        norm_cfg = norm_cfg or dict(type='LN', eps=1e-6)
        self.early_layer = early_layer
        steps = max(depth, early_layer + num_layers) - 1

        def norm_layer(width: int) -> nn.Module:
            return build_norm_layer(norm_cfg, width)[1]

        self.patch_aggregation = nn.ModuleList(
            TransformerBlock(
                embed_dims,
                num_heads,
                hidden_dims=int(mlp_ratio * embed_dims),
                drop_path_rate=drop_path_rate * i / max(steps, 1),
                init_values=init_values,
                norm_layer=norm_layer,
            )
            for i in range(early_layer, early_layer + num_layers)
        )
        self.norm = norm_layer(embed_dims)

    def forward(
        self, early_BND: Tensor, last_BND: Tensor, grid: Grid, shared: RelativePosition | None
    ) -> tuple[Tensor, Tensor]:
        """Tokens for the two predictions.

        Args:
            early_BND: Float (B, N, D), class token first, of the early layer.
            last_BND: Likewise of the last layer, not normalised.
            grid: (h, w) patches.
            shared: The backbone's relative position table.

        Returns:
            Normalised patch tokens (B, h w, D) of the last layer, and of the class-token head.
        """
        x_BND = torch.cat([last_BND[:, :1], early_BND[:, 1:]], dim=1)
        for layer in self.patch_aggregation:
            x_BND = layer(x_BND, grid, shared)
        return self.norm(last_BND)[:, 1:], self.norm(x_BND)[:, 1:]

    def init_weights(self) -> None:
        """As the backbone does, its depth counted on from ``early_layer``."""
        for depth, layer in enumerate(self.patch_aggregation, start=self.early_layer + 1):
            for module in layer.modules():
                if isinstance(module, nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
            with torch.no_grad():
                layer.attn.proj.weight.div_(math.sqrt(2.0 * depth))
                layer.ffn.output_projection.weight.div_(math.sqrt(2.0 * depth))
        self._is_init = True
