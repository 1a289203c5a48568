"""Layer decay: groups equal to the official ones, and the model's own no-decay list."""

import copy
import warnings

import pytest
import torch
from mmseg.engine.optimizers import LayerDecayOptimizerConstructor as MMSegConstructor
from torch import nn

from mmseg_beit.engine.layer_decay import LayerDecayOptimizerConstructor
from mmseg_beit.errors import InputError
from mmseg_beit.models.backbones import BEiT

OPTIM_WRAPPER = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))


class Segmentor(nn.Module):
    def __init__(self, **kwargs) -> None:
        super().__init__()
        self.backbone = BEiT(img_size=16, patch_size=8, embed_dims=16, num_heads=2, **kwargs)
        self.decode_head = nn.Sequential(nn.Conv2d(16, 4, 1), nn.BatchNorm2d(4))


def groups(constructor, model: nn.Module, **paramwise) -> dict[str, tuple]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # mmseg announces that its own constructor is deprecated.
        built = constructor(copy.deepcopy(OPTIM_WRAPPER), paramwise)
        optimizer = built(model).optimizer
    return {
        name: (group['lr'], group['lr_scale'], group['weight_decay'])
        for group in optimizer.param_groups
        for name in group['param_names']
    }


@pytest.mark.parity
@pytest.mark.parametrize(('num_layers', 'decay'), [(12, 0.65), (12, 0.9), (24, 0.95)], ids=['B-ssl', 'B', 'L'])
def test_groups_equal_the_official_ones(num_layers, decay):
    model = Segmentor(num_layers=num_layers, use_abs_pos=True)
    expected = groups(MMSegConstructor, model, num_layers=num_layers, layer_decay_rate=decay)
    assert groups(LayerDecayOptimizerConstructor, model, layer_decay_rate=decay) == expected
    assert len(expected) == len(list(model.named_parameters()))


def test_scales_by_hand():
    found = groups(LayerDecayOptimizerConstructor, Segmentor(num_layers=2), layer_decay_rate=0.5)
    assert found['backbone.cls_token'] == pytest.approx((1e-3 / 8, 1 / 8, 0.05))
    assert found['backbone.layers.0.attn.qkv.weight'] == pytest.approx((1e-3 / 4, 1 / 4, 0.05))
    assert found['backbone.layers.1.gamma_1'] == pytest.approx((1e-3 / 2, 1 / 2, 0.0))
    assert found['backbone.layers.1.attn.relative_position_bias_table'] == pytest.approx((1e-3 / 2, 1 / 2, 0.05))
    assert found['decode_head.0.weight'] == pytest.approx((1e-3, 1, 0.05))
    assert found['decode_head.1.weight'] == pytest.approx((1e-3, 1, 0.0))


def test_the_models_own_list_is_left_undecayed():
    model = Segmentor(num_layers=2, use_abs_pos=True)
    official = groups(LayerDecayOptimizerConstructor, model, layer_decay_rate=0.5)
    own = groups(LayerDecayOptimizerConstructor, model, layer_decay_rate=0.5, no_decay='model')
    changed = {name for name in own if own[name][2] != official[name][2]}
    assert changed == {'backbone.' + name for name in model.backbone.no_weight_decay()}
    assert all(own[name][2] == 0 for name in changed)
    assert all(own[name][:2] == official[name][:2] for name in own)


def test_a_bare_backbone_and_frozen_weights():
    backbone = Segmentor(num_layers=2).backbone
    backbone.patch_embed.requires_grad_(False)
    found = groups(LayerDecayOptimizerConstructor, backbone, decay_rate=0.5)
    assert found['cls_token'][1] == 1 / 8
    assert found['layers.1.ln1.weight'] == pytest.approx((1e-3 / 2, 1 / 2, 0.0))
    assert not any(name.startswith('patch_embed') for name in found)


@pytest.mark.parametrize(('paramwise', 'message'), [
    (dict(), 'layer_decay_rate=None must be a number'),
    (dict(layer_decay_rate=1.5), r'layer_decay_rate=1.5 must be a number in \(0, 1\]'),
    (dict(layer_decay_rate=0.9, num_layers=24), 'num_layers=24 but the backbone has 2 layers'),
    (dict(layer_decay_rate=0.9, custom_keys={}), 'paramwise_cfg.custom_keys is unknown to layer decay'),
    (dict(layer_decay_rate=0.9, no_decay='none'), "no_decay='none' is unknown"),
])  # fmt: skip
def test_unusable_settings(paramwise, message):
    with pytest.raises(InputError, match=message):
        groups(LayerDecayOptimizerConstructor, Segmentor(num_layers=2), **paramwise)


def test_backbone_without_depths():
    model = Segmentor(num_layers=1)
    model.backbone = nn.Linear(2, 2)
    with pytest.raises(InputError, match='Linear does not tell layer_id'):
        groups(LayerDecayOptimizerConstructor, model, layer_decay_rate=0.9)
    assert torch.is_tensor(model.backbone.weight)
