"""Masked image modelling: parity with transformers and mmpretrain, losses by hand, the way into segmentation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmseg_beit.checkpoint import convert_state_dict, load_checkpoint
from mmseg_beit.engine.compiling import compile_networks
from mmseg_beit.errors import InputError
from mmseg_beit.registry import MODELS


def randomise(model):
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)


@pytest.fixture
def batch():
    """Normalised view, the tokenizer's view, and a mask of six and three of 16 patches."""
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, :6] = mask[1, 5:8] = True
    return dict(img=torch.randn(2, 3, 64, 64), target_img=torch.rand(2, 3, 32, 32) * 255, mask=mask.view(2, 4, 4))


def total(losses):
    return sum(value for name, value in losses.items() if name.startswith('loss'))


# --- parity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parity
def test_v1_is_transformers(mim, batch):
    """Logits, loss and gradients of BeitForMaskedImageModeling with the same random weights."""
    transformers = pytest.importorskip('transformers')
    ours = mim().eval()
    randomise(ours)
    config = transformers.BeitConfig(
        vocab_size=32, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=128, image_size=64,
        patch_size=16, use_mask_token=True, use_shared_relative_position_bias=True, layer_scale_init_value=0.1,
        layer_norm_eps=1e-6, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, drop_path_rate=0.0,
    )  # fmt: skip
    peer = transformers.BeitForMaskedImageModeling(config).eval()
    randomise(peer)
    fitted, report = convert_state_dict(peer.state_dict(), ours, meta=dict(config=config.to_dict()))
    assert not report.left_out
    ours.load_state_dict(fitted)
    mask = batch['mask'].flatten(1)
    target = ours._targets(**batch)
    theirs = peer(batch['img'], bool_masked_pos=mask, labels=target[mask])
    features = ours._predictors(batch['img'], batch['mask'])
    torch.testing.assert_close(ours.head.cls_head(features[0]), theirs.logits, atol=1e-4, rtol=1e-4)
    losses = ours(**batch, mode='loss')
    torch.testing.assert_close(losses['loss_mim'], theirs.loss, atol=1e-5, rtol=1e-5)
    losses['loss_mim'].backward()
    theirs.loss.backward()
    gradients = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in peer.named_parameters()}
    expected, _ = convert_state_dict(gradients, ours, meta=dict(config=config.to_dict()))
    compared = 0
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name], atol=1e-4, rtol=1e-4, msg=name)
            compared += 1
    assert compared == 4 * 15 + 9


def mmpretrain_model(version):
    """mmpretrain's model in the size of `mim`, with random weights."""
    from mmpretrain.models.heads import BEiTV1Head, BEiTV2Head
    from mmpretrain.models.necks import BEiTV2Neck
    from mmpretrain.models.selfsup.beit import BEiTPretrainViT

    arch = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=128)
    parts = nn.Module()
    parts.backbone = BEiTPretrainViT(
        arch, img_size=64, out_indices=[2, 3] if version == 2 else -1, final_norm=version == 1
    )
    if version == 2:
        parts.neck = BEiTV2Neck(num_layers=2, early_layers=3, backbone_arch=arch | dict(depth=4))
    head = BEiTV1Head if version == 1 else BEiTV2Head
    parts.head = head(32, 32, loss=dict(type='mmpretrain.CrossEntropyLoss'))
    randomise(parts)
    return parts


@pytest.mark.parametrize('version', [1, 2])
def test_compiled_it_gives_the_same_losses(mim, batch, version):
    torch._dynamo.reset()
    model = mim(version)
    eager = model(**batch, mode='loss')
    assert 'backbone' in compile_networks(model, dict(backend='aot_eager'))
    torch.testing.assert_close(model(**batch, mode='loss'), eager, atol=1e-5, rtol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize('version', [1, 2])
def test_is_mmpretrains(mim, batch, version):
    """Losses and all gradients of BEiTPretrainViT, neck and head; their weights load from a checkpoint of theirs."""
    peer = mmpretrain_model(version)
    ours = mim(version)
    fitted, report = convert_state_dict(peer.state_dict(), ours)
    assert not report.left_out, report
    assert not ours.load_state_dict(fitted, strict=False).missing_keys
    target = ours._targets(**batch)
    latent = peer.backbone(batch['img'], batch['mask'])
    if version == 2:
        features = peer.neck(latent, rel_pos_bias=peer.backbone.shared_rel_pos_bias)
        loss_1, loss_2 = peer.head.loss(*features, target, batch['mask'])
        expected = dict(loss_mim=loss_1, loss_cls=loss_2)
    else:
        scores = F.one_hot(target.view(2, 4, 4), 32).permute(0, 3, 1, 2).float()
        expected = dict(loss_mim=peer.head.loss(latent[0], scores, batch['mask']))
    losses = ours(**batch, mode='loss')
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, atol=1e-5, rtol=1e-5)
    total(losses).backward()
    total(expected).backward()
    gradients = dict(peer.state_dict())
    gradients |= {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in peer.named_parameters()}
    theirs, _ = convert_state_dict(gradients, ours)
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, theirs[name], atol=1e-4, rtol=1e-4, msg=name)


# --- losses ---------------------------------------------------------------------------------------------------------


def test_only_masked_patches_count(mim):
    head = mim().head
    nn.init.zeros_(head.cls_head.weight)
    head.cls_head.bias.data = torch.log(torch.arange(1.0, 33.0))  # code k has probability (k + 1) / 528
    tokens = torch.randn(1, 4, 32)
    target = torch.tensor([[31, 0, 5, 2]])
    losses = head.loss(tokens, target, torch.tensor([[True, True, False, False]]))
    assert losses['loss_mim'].item() == pytest.approx(-(math.log(32 / 528) + math.log(1 / 528)) / 2, rel=1e-5)
    assert losses['acc_mim'].item() == pytest.approx(50.0)  # the most probable code is 31


def test_second_loss_by_hand(mim):
    """v2's losses share one layer and add up: one token points at code 3, the other prediction's at code 4."""
    head = mim(2).head
    head.cls_head.weight.data = 10 * torch.eye(32)
    nn.init.zeros_(head.cls_head.bias)
    axes = torch.eye(32)
    losses = head.loss(axes[[3]][None], axes[[4]][None], torch.tensor([[3]]), torch.tensor([[True]]))
    denominator = math.log(math.exp(10) + 31)
    assert losses['loss_mim'].item() == pytest.approx(denominator - 10, rel=1e-4)
    assert losses['loss_cls'].item() == pytest.approx(denominator, rel=1e-4)
    assert (losses['acc_mim'].item(), losses['acc_cls'].item()) == (100.0, 0.0)


def test_class_token_head_sees_the_early_patches_and_the_last_class_token(mim):
    model = mim(2).eval()
    early, last = torch.randn(2, 17, 32), torch.randn(2, 17, 32)
    neck, shared = model.neck, model.backbone.rel_pos_bias

    def second(early, last):
        return neck(early, last, (4, 4), shared)[1]

    base = second(early, last)
    other_patches = torch.cat([last[:, :1], torch.randn(2, 16, 32)], dim=1)
    assert torch.equal(second(early, other_patches), base)
    other_token = torch.cat([torch.randn(2, 1, 32), early[:, 1:]], dim=1)
    assert torch.equal(second(other_token, last), base)
    assert not torch.equal(second(early, torch.cat([torch.randn(2, 1, 32), last[:, 1:]], dim=1)), base)


def test_nothing_masked_is_no_loss(mim, batch):
    losses = mim()(**batch | dict(mask=torch.zeros(2, 4, 4, dtype=torch.bool)), mode='loss')
    assert losses['loss_mim'].item() == 0.0


@pytest.mark.parametrize('version', [1, 2])
def test_every_parameter_is_used(mim, batch, version):
    """So that several processes need no search for unused ones."""
    model = mim(version)
    model.init_weights()
    total(model.train()(**batch, mode='loss')).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_starts_at_chance(mim, batch):
    model = mim(2)
    model.init_weights()
    for name in ('loss_mim', 'loss_cls'):
        assert model(**batch, mode='loss')[name].item() == pytest.approx(math.log(32), rel=0.1)


def test_initialisation_rescales_the_neck_on_from_the_early_layer(mim):
    model = mim(2)
    model.init_weights()
    for depth, layer in enumerate(model.neck.patch_aggregation, start=4):
        assert layer.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert layer.attn.proj.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * depth), rel=0.1)
        assert layer.ffn.output_projection.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * depth), rel=0.1)


def test_predicts_codes(mim, batch):
    prediction = mim().eval()(**batch, mode='predict')[0]
    assert prediction['codes'].shape == prediction['target_codes'].shape == prediction['mask'].shape == (4, 4)


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_tokenizer_is_frozen_and_not_in_the_checkpoint(mim):
    model = mim().train()
    assert not model.tokenizer.training
    assert not any(p.requires_grad for p in model.tokenizer.parameters())
    state = model.state_dict()
    assert not [name for name in state if name.startswith('tokenizer')]
    model.load_state_dict(state)  # strictly


@pytest.mark.parametrize('version', [1, 2])
def test_segmentation_starts_from_the_checkpoint(tmp_path, mim, version):
    """The shared table is copied to the layers; mask token, head and neck stay behind."""
    model = mim(version)
    model.init_weights()
    nn.init.normal_(model.backbone.rel_pos_bias.relative_position_bias_table)
    path = tmp_path / 'iter_1.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    backbone = MODELS.build(
        dict(
            type='BEiT', img_size=96, embed_dims=32, num_layers=4, num_heads=2, norm_cfg=dict(type='LN', eps=1e-6),
            out_indices=(0, 1, 2, 3), init_cfg=dict(type='Pretrained', checkpoint=str(path)),
        )
    )  # fmt: skip
    backbone.init_weights()
    torch.testing.assert_close(backbone.layers[2].ffn.layers[1].weight, model.backbone.layers[2].ffn.layers[1].weight)
    first = backbone.layers[0].attn.relative_position_bias_table
    assert first.shape == (11 * 11 + 3, 2)
    torch.testing.assert_close(first[-3:], model.backbone.rel_pos_bias.relative_position_bias_table[-3:])
    assert torch.equal(first, backbone.layers[3].attn.relative_position_bias_table)
    report = load_checkpoint(backbone, path)
    assert 'backbone.mask_token' in str(report.left_out.values())


@pytest.mark.parametrize('version', [1, 2])
def test_a_checkpoint_continues_another_run(tmp_path, mim, version):
    """`load_from` brings back backbone, neck and head; v2's norm, too."""
    source, target = mim(version), mim(version)
    randomise(source)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'a.pth')
    load_checkpoint(target, tmp_path / 'a.pth')
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name]), name


# --- what a user can get wrong --------------------------------------------------------------------------------------


def test_head_of_another_codebook(mim):
    with pytest.raises(InputError, match='num_embed=64 but the tokenizer has 32 codes: set model'):
        mim(num_embed=64)


def test_backbone_that_does_not_fit(mim, backbone_config):
    with pytest.raises(InputError, match='use_mask_token=True'):
        mim(backbone=backbone_config(use_mask_token=False))
    with pytest.raises(InputError, match=r'set out_indices=\(2, 3\)'):
        mim(2, backbone=backbone_config(final_norm=False, out_indices=(1, 3)))
    with pytest.raises(InputError, match='final_norm must be False'):
        mim(2, backbone=backbone_config(final_norm=True, out_indices=(2, 3)))


def test_grids_that_disagree(mim, batch):
    with pytest.raises(InputError, match=r'grid of 5x5 but a view of 64x64 pixels has 4x4 patches: set grid=\(4, 4\)'):
        mim()(**batch | dict(mask=torch.ones(2, 5, 5, dtype=torch.bool)), mode='loss')
    with pytest.raises(InputError, match=r'gives 8x8 tokens for 4x4 patches: set second_size=\(32, 32\)'):
        mim()(**batch | dict(target_img=torch.zeros(2, 3, 64, 64)), mode='loss')


def test_a_tokenizer_without_codebook(mim, vqkd_config):
    with pytest.raises(InputError, match='has no codebook: name its checkpoint'):
        mim(tokenizer=vqkd_config(trains=False), num_embed=16).init_weights()
