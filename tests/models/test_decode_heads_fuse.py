"""Folding batch norms and 1x1 convolutions for inference, and taking it back."""

import copy

import pytest
import torch

from mmseg_beit.models.decode_heads.fuse import ChannelAffine
from mmseg_beit.models.layers.kept import held_bytes
from mmseg_beit.registry import MODELS

NORM = dict(type='BN', requires_grad=True)


def _segmentor():
    config = dict(
        type='EncoderDecoder',
        backbone=dict(
            type='BEiT',
            img_size=64,
            embed_dims=32,
            num_layers=4,
            num_heads=2,
            out_indices=(0, 1, 2, 3),
            init_values=0.1,
        ),
        neck=dict(type='mmseg.Feature2Pyramid', embed_dim=32, rescales=[4, 2, 1, 0.5], norm_cfg=NORM),
        decode_head=dict(
            type='UPerHead',
            in_channels=[32] * 4,
            in_index=[0, 1, 2, 3],
            channels=16,
            num_classes=5,
            norm_cfg=NORM,
        ),
        auxiliary_head=dict(
            type='FCNHead', in_channels=32, in_index=2, channels=16, num_convs=1, num_classes=5, norm_cfg=NORM
        ),
        test_cfg=dict(mode='whole'),
    )
    model = MODELS.build(config)
    for name, value in model.state_dict().items():
        if name.endswith('running_var'):
            value.uniform_(0.5, 2.0)
        elif value.is_floating_point():
            value.add_(torch.randn_like(value) * 0.1)
    return model.eval()


@pytest.fixture
def model():
    return _segmentor()


@pytest.fixture
def image():
    return torch.randn(1, 3, 64, 80)


def test_the_fused_model_gives_the_same_logits(model, image):
    with torch.no_grad():
        before = model.inference(image)
        after = model.fuse().inference(image)
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()
    norms = [module.norm for module in model.modules() if getattr(module, 'with_norm', False)]
    assert norms and all(type(norm) is ChannelAffine for norm in norms)
    assert isinstance(model.decode_head.lateral_convs[0].conv, torch.nn.Identity)
    assert isinstance(model.decode_head.lateral_convs[1].conv, torch.nn.Identity)
    assert isinstance(model.decode_head.lateral_convs[2].conv, torch.nn.Conv2d)


def test_fusing_holds_little_beside_the_weights(model):
    """No second copy of a 3x3 convolution over channels, which most of a head's weights are."""
    before, parameters = held_bytes(model), list(model.parameters())
    model.fuse()
    assert model.decode_head.fpn_bottleneck.conv.weight.permute(2, 1, 3, 0).is_contiguous()
    assert not model.decode_head.fpn_bottleneck.conv.weight.requires_grad
    folded = [conv.weight.nbytes for conv in model.neck.modules() if isinstance(conv, torch.nn.ConvTranspose2d)]
    laterals = [conv.conv.weight.nbytes for conv in model.decode_head.lateral_convs[2:]]
    small = 1500 * 4  # scales, shifts and 1x1 convolutions
    assert held_bytes(model) - before <= sum(folded) + sum(laterals) + small + 1000 * 4
    model.unfuse()
    assert held_bytes(model) == before
    assert all(
        a is b and a.requires_grad and a.is_contiguous() for a, b in zip(model.parameters(), parameters, strict=True)
    )


def test_fused_weights_are_frozen_and_come_back_as_they_were(model):
    """What bfloat16 predictions make of a frozen weight is kept."""
    model.to(memory_format=torch.channels_last)
    model.neck.requires_grad_(False)
    before = [(p.requires_grad, p.stride(), p.clone()) for p in model.parameters()]
    model.fuse()
    convs = [module for module in model.decode_head.modules() if isinstance(module, torch.nn.Conv2d)]
    assert convs and all(not conv.weight.requires_grad for conv in convs if conv is not model.decode_head.conv_seg)
    model.unfuse()
    for p, (requires_grad, strides, value) in zip(model.parameters(), before, strict=True):
        assert p.requires_grad == requires_grad
        assert p.stride() == strides
        assert torch.equal(p, value)


def test_unfusing_restores_every_bit(model, image):
    state = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        before = model.inference(image)
        assert torch.equal(model.fuse().unfuse().inference(image), before)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_a_fused_model_saves_its_original_state(model):
    state = copy.deepcopy(model.state_dict())
    saved = model.fuse().state_dict()
    assert model.is_fused
    assert list(saved) == list(state)
    assert all(torch.equal(saved[name], value) for name, value in state.items())


def test_training_and_loading_unfuse(model):
    state = copy.deepcopy(model.state_dict())
    assert not model.fuse().train().is_fused
    model.fuse().load_state_dict(state, strict=True)
    assert not model.is_fused


def test_a_fused_model_moves_between_types(model, image):
    with torch.no_grad():
        before = model.double().inference(image.double())
        after = model.float().fuse().double().inference(image.double())
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert {p.dtype for p in model.unfuse().parameters()} == {torch.float64}


def test_a_copy_of_a_fused_model_is_independent(model, image):
    with torch.no_grad():
        before = model.inference(image)
        twin = copy.deepcopy(model.fuse())
        model.unfuse()
        after = twin.unfuse().inference(image)
    assert torch.equal(after, before)
