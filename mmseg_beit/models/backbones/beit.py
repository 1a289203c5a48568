"""BEiT and BEiT v2 (arXiv:2106.08254, arXiv:2208.06366), for segmentation, classification and pre-training.

Argument and parameter names are mmsegmentation's, so that its checkpoints load strictly and its configs run with the
type switched. v1 and v2 share the architecture. The variants: a relative position table for each layer (fine-tuning),
one for all (pre-training) or none; absolute position embeddings (the paper's SETR-PUP experiments); layer scale or
none.

Any input whose sides are multiples of the patch size works: position tables are resized to its grid.

The backbone owns its policies: :meth:`BEiT.layer_id` (layer decay), :meth:`BEiT.no_weight_decay`, and how a checkpoint
fits it (:meth:`BEiT._drop_index_buffers`; families of checkpoints are the ``checkpoint`` package's business).

Shape suffixes: B images, N = 1 + h w tokens, the class token first, D width.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import InputError
from ...registry import MODELS
from ..layers import ATTENTION_IMPLS, PatchEmbed, RelativePosition, TransformerBlock, resize_absolute_position


@MODELS.register_module()
class BEiT(BaseModule):
    """BEiT backbone.

    Args:
        img_size: Image side or (height, width) in pixels that the position tables are made for; inputs of other sizes
            get resized tables.
        patch_size: Side of a patch in pixels.
        in_channels: Image channels.
        embed_dims: Width D.
        num_layers: Depth.
        num_heads: Attention heads; divides ``embed_dims``.
        mlp_ratio: Hidden width of the MLP over D.
        out_indices: 0-based layers whose output is returned; negative ones count from the end.
        qv_bias: Learnable biases for query and value.
        attn_drop_rate: Dropout of attention weights, 0..1.
        drop_path_rate: Stochastic depth of the last layer, 0..1; the others grow linearly from 0.
        norm_cfg: Normalisation of the tokens. NOTE(reference): mmseg's ``LN`` has eps 1e-5, the official code 1e-6.
        act_cfg: Activation of the MLP.
        patch_norm: Normalises the patch tokens.
        final_norm: Normalises the output of the last layer.
        num_fcs: Linear layers of the MLP.
        norm_eval: Keeps normalisations in evaluation mode during training (mmseg's argument; layer norms do not mind).
        pretrained: Checkpoint to start from (mmseg's old form of ``init_cfg``).
        init_values: Start value of the layer scales; ``None`` for no layer scale. NOTE(reference): 0 means zero scales,
            as in the official segmentation code; the official classifier takes it for no layer scale.
        rel_pos: Relative position tables: ``layer``, ``shared`` (one for all layers) or ``none``.
        use_abs_pos: Adds absolute position embeddings to the tokens.
        interpolate_mode: How absolute embeddings are resized, by a checkpoint's loading too: ``bicubic``, as the
            official code does, or ``bilinear`` (the paper's SETR-PUP experiments).
        use_mask_token: Makes the token that stands for masked patches.
        out_type: ``featmap``: a map (B, D, h, w) for each of ``out_indices``; ``tokens``: (B, N, D) for each;
            ``pooled``: (B, D) for each.
        pooling: What ``pooled`` means: ``mean`` of the patch tokens, then normalised (the official classifiers), or
            ``cls``, the class token.
        attn_impl: How attention is computed: ``auto``, ``sdpa``, ``toeplitz`` or ``flex``, the same numbers to
            rounding; see :class:`~mmseg_beit.models.layers.attention.Attention`.
        with_cp: Recomputes each layer in the backward pass instead of keeping its activations.
        init_cfg: mmengine's initialisation config; ``dict(type='Pretrained', checkpoint=...)`` loads a checkpoint.

    Raises:
        InputError: An argument is out of its range, or two do not fit each other.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dims: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        out_indices: int | Sequence[int] = -1,
        qv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        patch_norm: bool = False,
        final_norm: bool = False,
        num_fcs: int = 2,
        norm_eval: bool = False,
        pretrained: str | None = None,
        init_values: float | None = 0.1,
        rel_pos: str = 'layer',
        use_abs_pos: bool = False,
        interpolate_mode: str = 'bicubic',
        use_mask_token: bool = False,
        out_type: str = 'featmap',
        pooling: str = 'mean',
        attn_impl: str = 'auto',
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        if pretrained is not None:
            if init_cfg is not None:
                raise InputError('backbone: give either pretrained or init_cfg, not both')
            init_cfg = dict(type='Pretrained', checkpoint=pretrained)
        super().__init__(init_cfg=init_cfg)
        _check_choice('rel_pos', rel_pos, ('layer', 'shared', 'none'))
        _check_choice('out_type', out_type, ('featmap', 'tokens', 'pooled'))
        _check_choice('pooling', pooling, ('mean', 'cls'))
        _check_choice('interpolate_mode', interpolate_mode, ('bicubic', 'bilinear'))
        _check_choice('attn_impl', attn_impl, ATTENTION_IMPLS)
        if embed_dims % num_heads:
            raise InputError(
                f'backbone.embed_dims={embed_dims} is not divisible by num_heads={num_heads}: change either'
            )
        self.img_size = _pair(img_size)
        self.patch_size = patch_size
        self.grid = tuple(side // patch_size for side in self.img_size)
        self.embed_dims = embed_dims
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.out_indices = _layer_indices(out_indices, num_layers)
        self.norm_eval = norm_eval
        self.rel_pos = rel_pos
        self.interpolate_mode = interpolate_mode
        self.out_type = out_type
        self.pooling = pooling
        self.with_cp = with_cp

        norm_cfg = norm_cfg or dict(type='LN')
        act_cfg = act_cfg or dict(type='GELU')

        def norm_layer(width: int) -> nn.Module:
            return build_norm_layer(norm_cfg, width)[1]

        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims)) if use_mask_token else None
        self.patch_embed = PatchEmbed(patch_size, in_channels, embed_dims, norm_layer if patch_norm else None)
        self.patch_embed.check_input_shape(*self.img_size)
        num_tokens = 1 + self.grid[0] * self.grid[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens, embed_dims)) if use_abs_pos else None
        self.rel_pos_bias = RelativePosition(self.grid, num_heads) if rel_pos == 'shared' else None
        self.layers = ModuleList(
            TransformerBlock(
                embed_dims,
                num_heads,
                hidden_dims=int(mlp_ratio * embed_dims),
                grid=self.grid if rel_pos == 'layer' else None,
                qv_bias=qv_bias,
                attn_drop_rate=attn_drop_rate,
                drop_path_rate=drop_path_rate * i / max(num_layers - 1, 1),
                init_values=init_values,
                num_fcs=num_fcs,
                norm_layer=norm_layer,
                act_layer=lambda: build_activation_layer(act_cfg),
                attn_impl=attn_impl,
            )
            for i in range(num_layers)
        )
        self.ln1 = norm_layer(embed_dims) if final_norm else None
        self.fc_norm = norm_layer(embed_dims) if out_type == 'pooled' and pooling == 'mean' else None
        self._register_load_state_dict_pre_hook(self._drop_index_buffers)

    def forward(self, img: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Features of images.

        Args:
            img: Float RGB (B, C, H, W), normalised; H and W multiples of the patch size.
            mask: Bool (B, h, w) or (B, h w), true where the mask token replaces the patch; needs ``use_mask_token``.

        Returns:
            One tensor for each of ``out_indices`` in ascending order: float (B, D, h, w), (B, N, D) or (B, D), by
            ``out_type``.

        Raises:
            InputError: A side of the input is not a multiple of the patch size.
        """
        x_BND, grid = self._embed(img, mask)
        outs = []
        for i, layer in enumerate(self.layers):
            if self.with_cp and self.training and torch.is_grad_enabled():
                x_BND = checkpoint(layer, x_BND, grid, self.rel_pos_bias, use_reentrant=False)
            else:
                x_BND = layer(x_BND, grid, self.rel_pos_bias)
            if i == self.num_layers - 1 and self.ln1 is not None:
                x_BND = self.ln1(x_BND)
            if i in self.out_indices:
                outs.append(self._output(x_BND, grid))
        return tuple(outs)

    def _embed(self, img: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[int, int]]:
        patches_BND, grid = self.patch_embed(img)
        if mask is not None:
            assert self.mask_token is not None, 'a mask needs use_mask_token=True'
            mask_BN1 = mask.reshape(mask.shape[0], -1, 1).to(patches_BND.dtype)
            patches_BND = patches_BND * (1 - mask_BN1) + self.mask_token * mask_BN1
        x_BND = torch.cat([self.cls_token.expand(img.shape[0], -1, -1).to(patches_BND.dtype), patches_BND], dim=1)
        if self.pos_embed is not None:
            x_BND = x_BND + resize_absolute_position(self.pos_embed, self.grid, grid, mode=self.interpolate_mode)
        return x_BND, grid

    def _output(self, x_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.out_type == 'tokens':
            return x_BND
        if self.out_type == 'featmap':
            return x_BND[:, 1:].transpose(1, 2).unflatten(2, grid).contiguous(memory_format=_layout_of_maps(x_BND))
        if self.pooling == 'cls':
            return x_BND[:, 0]
        return self.fc_norm(x_BND[:, 1:].mean(dim=1))

    def init_weights(self) -> None:
        """Initialises as the paper does, or loads the checkpoint that ``init_cfg`` names.

        Linear layers, tokens and absolute embeddings: normal of deviation 0.02, cut at two deviations; the output
        projections of layer l (from 1) then divided by sqrt(2 l) (paper, section 2.5). Relative tables start at zero.
        NOTE(reference): mmseg and the official segmentation code draw again afterwards and so lose that rescaling.
        """
        if self.init_cfg is not None and self.init_cfg.get('type') != 'Pretrained':
            super().init_weights()
            return
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        if self.mask_token is not None:
            nn.init.trunc_normal_(self.mask_token, std=0.02)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_in')
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            for depth, layer in enumerate(self.layers, start=1):
                layer.attn.proj.weight.div_(math.sqrt(2.0 * depth))
                layer.ffn.output_projection.weight.div_(math.sqrt(2.0 * depth))
        if self.init_cfg is not None:
            from ...checkpoint import load_checkpoint

            load_checkpoint(self, self.init_cfg['checkpoint'], role='init')
        self._is_init = True

    def layer_id(self, name: str) -> int:
        """Depth of a parameter for layer decay: 0 for the embeddings, i + 1 for layer i, one more for the rest.

        Args:
            name: The parameter's name within the backbone.

        NOTE(reference): the shared relative position table counts to the rest, as in the official code.
        """
        if name.startswith('layers.'):
            return int(name.split('.')[1]) + 1
        if name.startswith('patch_embed.') or name in ('cls_token', 'mask_token', 'pos_embed'):
            return 0
        return self.num_layers + 1

    def no_weight_decay(self) -> set[str]:
        """Names within the backbone of the parameters that the model wants undecayed: tokens and position tables."""
        kinds = ('cls_token', 'mask_token', 'pos_embed', 'relative_position_bias_table')
        return {name for name, _ in self.named_parameters() if name.rpartition('.')[2] in kinds}

    def train(self, mode: bool = True) -> 'BEiT':
        """Switches training mode; with ``norm_eval`` normalisations stay in evaluation mode."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.LayerNorm | nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def _drop_index_buffers(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Leaves out mmseg's index buffers while loading: they follow from the grid."""
        for key in [k for k in state_dict if k.startswith(prefix) and k.endswith('relative_position_index')]:
            del state_dict[key]


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f'backbone.{name}={value!r} is unknown: choose one of {", ".join(choices)}')


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    sides = sides * 2 if len(sides) == 1 else sides
    if len(sides) != 2:
        raise InputError(f'backbone.img_size={size!r} must be one side or (height, width)')
    return sides


def _layer_indices(out_indices: int | Sequence[int], num_layers: int) -> list[int]:
    indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    if any(not -num_layers <= i < num_layers for i in indices) or not indices:
        raise InputError(
            f'backbone.out_indices={tuple(indices)} does not fit num_layers={num_layers}: '
            f'use indices 0..{num_layers - 1}'
        )
    return sorted(i % num_layers for i in indices)


def _layout_of_maps(x: Tensor) -> torch.memory_format:
    # cuDNN's half-precision kernels work on channels last, and convert other maps on the way in and out (NVIDIA's Deep
    # Learning Performance guide, "Tensor Layouts"). On a CPU neither layout is faster: 1.62 and 1.66 s a picture.
    half = torch.is_autocast_enabled(x.device.type) or x.dtype in (torch.bfloat16, torch.float16)
    return torch.channels_last if x.is_cuda and half else torch.contiguous_format
