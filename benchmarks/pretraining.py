"""The row of pre-training: a step of masked image modelling, ours and mmpretrain's BEiT with the same weights."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmseg_beit.checkpoint import convert_state_dict
from mmseg_beit.registry import MODELS

from .models import CONFIGS, _Quiet
from .report import Row

if TYPE_CHECKING:
    from .rows import Bench

FILES = {1: 'beit_base.py', 2: 'beitv2_base.py'}


def pretraining(bench: 'Bench') -> list[Row]:
    """A step of masked image modelling (v1: dVAE, v2: VQ-KD): targets, loss, gradients clipped at 3, AdamW."""
    batch = 2 if bench.tiny else 4
    rows = []
    for version in (1, 2):
        config = model_config(version, bench.tiny)
        peer = build_mmpretrain(config, version).to(bench.device)
        ours = build_ours(config, peer).to(bench.device)
        views = _views(config, batch, bench.device)
        # mmpretrain's recipes train in mixed precision.
        for precision in (torch.float32, torch.bfloat16):
            step_ours, step_peer = _ours_step(ours, views, precision), _mmpretrain_step(peer, views, precision)
            agreement = f'first loss {step_ours():.6f}, mmpretrain {step_peer():.6f}; no drop path'
            row = bench.run(_title(version, views, precision), agreement, ours=step_ours, mmpretrain=step_peer)
            speed = {name: batch / found.median for name, found in row.results.items()}
            row.agreement += f'; images per second: {speed["ours"]:.2f}, mmpretrain {speed["mmpretrain"]:.2f}'
            rows.append(row)
    return rows


def model_config(version: int, tiny: bool) -> dict:
    """The model of the base recipe without start weights and drop path; ``tiny`` has a fraction of its widths."""
    model = Config.fromfile(CONFIGS / 'pretraining' / '_base_' / FILES[version]).model.to_dict()
    model['tokenizer'].pop('init_cfg')
    model['backbone']['drop_path_rate'] = 0.0
    if version == 2:
        # Without k-means the codebook starts as random unit vectors.
        model['tokenizer']['quantizer'] = dict(kmeans_init=False)
        model['neck']['drop_path_rate'] = 0.0
    if tiny:
        small = dict(embed_dims=32, num_heads=2)
        model['backbone'].update(img_size=64, **small)
        model['head'].update(embed_dims=32, num_embed=64)
        model['tokenizer'].update(num_codes=64)
        if version == 2:
            model['neck'].update(small)
            model['tokenizer']['encoder'].update(img_size=64, **small)
        else:
            model['tokenizer'].update(hidden_dims=8)
    return model


def build_ours(config: dict, peer: nn.Module) -> nn.Module:
    """Our model with mmpretrain's weights."""
    import mmseg_beit.models.pretraining  # noqa: F401  registers the stages

    with _Quiet(), DefaultScope.overwrite_default_scope('mmseg_beit'):
        ours = MODELS.build(copy.deepcopy(config))
    weights = peer.state_dict()
    prefix = 'target_generator.'
    target = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    rest = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    fitted, _ = convert_state_dict(rest, ours)
    missing = ours.load_state_dict(fitted, strict=False).missing_keys
    assert not missing, missing
    ours.tokenizer.load_state_dict(ours.tokenizer.fit_state_dict(target, 'mmpretrain', strict=False), strict=False)
    return ours


def build_mmpretrain(config: dict, version: int) -> nn.Module:
    """Mmpretrain's algorithm in the size of a config, with random weights, every trained parameter non-zero."""
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

    backbone, tokenizer = config['backbone'], config['tokenizer']
    head = dict(type=f'BEiTV{version}Head', loss=dict(type='CrossEntropyLoss'))
    head |= {name: config['head'][name] for name in ('embed_dims', 'num_embed')}
    neck = None
    if version == 1:
        target = dict(type='DALL-E', n_hid=tokenizer.get('hidden_dims', 256), vocab_size=tokenizer['num_codes'])
    else:
        neck = dict(type='BEiTV2Neck', num_layers=2, early_layers=9, backbone_arch=_arch(backbone) | dict(depth=12))
        encoder = dict(
            arch=_arch(tokenizer['encoder']),
            img_size=tokenizer['encoder']['img_size'],
            out_type='featmap',
            final_norm=True,
            use_abs_pos_emb=True,
            use_rel_pos_bias=False,
            use_shared_rel_pos_bias=False,
            layer_scale_init_value=0.0,
            norm_cfg=dict(type='LN', eps=1e-6),
        )
        target = dict(type='VQKD', encoder_config=encoder, num_embed=tokenizer['num_codes'], quantize_kmeans_init=False)
    torch.manual_seed(0)
    with _Quiet(), DefaultScope.overwrite_default_scope('mmpretrain'):
        peer = MMPRETRAIN_MODELS.build(
            dict(
                type='BEiT',
                backbone=dict(
                    type='BEiTPretrainViT',
                    arch=_arch(backbone),
                    img_size=backbone['img_size'],
                    out_indices=list(backbone['out_indices']),
                    final_norm=backbone['final_norm'],
                ),
                neck=neck,
                head=head,
                target_generator=target,
            )
        )
    with torch.no_grad():
        for part in filter(None, (peer.backbone, peer.neck, peer.head)):
            for parameter in part.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return peer


def _arch(network: dict) -> dict:
    width = network['embed_dims']
    return dict(
        embed_dims=width,
        num_layers=network['num_layers'],
        num_heads=network['num_heads'],
        feedforward_channels=4 * width,
    )


def _views(config: dict, batch: int, device: str) -> dict[str, Tensor]:
    """Normalised view, the tokenizer's view in 0..255 and the masks of the recipe: exactly 38 % of the patches."""
    from mmseg_beit.datasets.transforms import BlockwiseMask

    side = config['backbone']['img_size']
    grid = side // config['backbone']['patch_size']
    generator = torch.Generator().manual_seed(0)
    target_side = side if config['tokenizer']['type'] == 'VQKD' else side // 2
    masker = BlockwiseMask(grid=grid, num_masked=round(75 / 196 * grid**2), min_block=min(16, grid), exact=True)
    masks = [torch.from_numpy(masker.transform({})['mask']) for _ in range(batch)]
    return dict(
        img=torch.randn(batch, 3, side, side, generator=generator).to(device),
        target_img=(torch.rand(batch, 3, target_side, target_side, generator=generator) * 255).to(device),
        mask=torch.stack(masks).to(device),
    )


def _title(version: int, views: dict[str, Tensor], precision: torch.dtype) -> str:
    batch, _, side, _ = views['img'].shape
    return f'pre-training step v{version}, {batch} images of {side} {str(precision).removeprefix("torch.")}'


def _stepper(
    model: nn.Module, losses: Callable[[], dict[str, Tensor]], precision: torch.dtype, **adamw: object
) -> Callable[[], float]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, betas=(0.9, 0.98), weight_decay=0.05, **adamw)
    wrapper = OptimWrapper(optimizer, clip_grad=dict(max_norm=3.0))
    device = parameters[0].device.type

    def step() -> float:
        with torch.autocast(device, precision, enabled=precision != torch.float32):
            loss = sum(value for name, value in losses().items() if name.startswith('loss'))
        value = loss.item()
        wrapper.update_params(loss)
        return value

    return step


def _ours_step(model: nn.Module, views: dict[str, Tensor], precision: torch.dtype) -> Callable[[], float]:
    model.train()
    return _stepper(model, lambda: model(**views, mode='loss'), precision, fused=True)


def _mmpretrain_step(model: nn.Module, views: dict[str, Tensor], precision: torch.dtype) -> Callable[[], float]:
    from mmpretrain.structures import DataSample

    model.train()
    # Frozen in evaluation mode: in training mode it would move its codebook.
    model.target_generator.requires_grad_(False).eval()
    # What each takes: the dVAE 0.1 to 0.9, VQ-KD -1 to 1.
    is_dalle = type(model.target_generator).__name__ == 'DALLEEncoder'
    target = views['target_img'] * (0.8 / 255) + 0.1 if is_dalle else views['target_img'] / 127.5 - 1
    samples = []
    for mask in views['mask']:
        sample = DataSample()
        sample.set_mask(mask)
        samples.append(sample)
    return _stepper(model, lambda: model.loss([views['img'], target], samples), precision)
