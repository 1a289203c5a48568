"""Our BEiT against mmsegmentation's on the same random weights: outputs and gradients, float32."""

import pytest
import torch
from mmseg.models.backbones.beit import BEiT as MMSegBEiT
from torch import nn

from mmseg_beit.models.backbones import BEiT

pytestmark = pytest.mark.parity

TINY = dict(patch_size=8, embed_dims=32, num_layers=3, num_heads=4, mlp_ratio=2, out_indices=(0, 2))


def randomise(model: nn.Module) -> None:
    """Every parameter random and non-zero: zeros and ones would hide a missing term."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3).add_(0.1)


def pair_of_models(**kwargs) -> tuple[MMSegBEiT, BEiT]:
    torch.manual_seed(0)
    theirs = MMSegBEiT(**TINY, **kwargs)
    randomise(theirs)
    ours = BEiT(**TINY, **kwargs)
    ours.load_state_dict(theirs.state_dict())  # Strict: the same names, but for the index buffers.
    return theirs, ours


def assert_same_step(theirs: nn.Module, ours: nn.Module, img: torch.Tensor) -> None:
    """Features, the gradient of the image and of every parameter, to 1e-5 of each tensor's largest value."""
    results = []
    for model in (theirs, ours):
        torch.manual_seed(1)
        x = img.clone().requires_grad_()
        outs = model(x)
        loss = sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outs)
        loss.backward()
        results.append((outs, x.grad, {name: p.grad for name, p in model.named_parameters()}))
    (outs, grad_img, grads), (our_outs, our_grad_img, our_grads) = results
    assert len(outs) == len(our_outs)
    assert grads.keys() == our_grads.keys()
    pairs = [*zip(outs, our_outs, strict=True), (grad_img, our_grad_img), *((grads[k], our_grads[k]) for k in grads)]
    for expected, actual in pairs:
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * max(1.0, expected.abs().max().item()))


@pytest.mark.parametrize('size', [(32, 32), (24, 40)], ids=['square', 'non-square'])
@pytest.mark.parametrize('final_norm', [False, True])
@pytest.mark.parametrize('attn_impl', ['toeplitz', 'sdpa'])
def test_features_and_gradients_equal_mmseg(size, final_norm, attn_impl):
    theirs, ours = pair_of_models(img_size=size, final_norm=final_norm, norm_cfg=dict(type='LN', eps=1e-6))
    for layer in ours.layers:
        layer.attn.impl = attn_impl
    assert_same_step(theirs, ours, torch.randn(2, 3, *size))


def test_without_qv_bias(size=(16, 24)):
    theirs, ours = pair_of_models(img_size=size, qv_bias=False, patch_norm=True)
    assert_same_step(theirs, ours, torch.randn(1, 3, *size))


def test_drop_path_draws_the_same_samples():
    theirs, ours = pair_of_models(img_size=(16, 16), drop_path_rate=0.5)
    theirs.train()
    ours.train()
    assert_same_step(theirs, ours, torch.randn(6, 3, 16, 16))


def test_activation_checkpointing_changes_nothing():
    torch.manual_seed(0)
    plain = BEiT(**TINY, img_size=(16, 24), drop_path_rate=0.3)
    randomise(plain)
    saving = BEiT(**TINY, img_size=(16, 24), drop_path_rate=0.3, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    plain.train()
    saving.train()
    assert_same_step(plain, saving, torch.randn(4, 3, 16, 24))


def test_gradients_through_activation_checkpointing_and_shared_bias():
    torch.manual_seed(0)
    plain = BEiT(**TINY, img_size=(16, 24), rel_pos='shared')
    randomise(plain)
    saving = BEiT(**TINY, img_size=(16, 24), rel_pos='shared', with_cp=True)
    saving.load_state_dict(plain.state_dict())
    assert_same_step(plain.train(), saving.train(), torch.randn(2, 3, 32, 16))
