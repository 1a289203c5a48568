"""The same random weights in a peer's network and in ours: outputs and gradients."""

import pytest
import torch
import torch.nn.functional as F

from mmseg_beit.checkpoint import convert_state_dict, from_ours, load_checkpoint, to_ours
from tests.checkpoint.peers import (
    HEADS,
    PATCH,
    WIDTH,
    beit,
    hf_config,
    mmseg_segmentor,
    official_segmentation,
    randomise,
    segmentor,
    timm_beit,
)

pytestmark = pytest.mark.parity


def close(ours, theirs, tolerance=1e-5):
    """Equal to a part of the largest value, so that deep networks of large weights are held to the same standard."""
    assert ours.shape == theirs.shape
    scale = max(float(theirs.detach().abs().max()), 1.0)
    assert float((ours - theirs).detach().abs().max()) <= tolerance * scale


def grads(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours, theirs, outputs, their_outputs, meta=None, skip=()):
    """Gradients of one random functional, compared under our names: renaming and joining are linear."""
    weight = torch.randn_like(outputs)
    (outputs * weight).sum().backward()
    (their_outputs * weight).sum().backward()
    expected, _ = to_ours(grads(theirs), meta)
    got = {
        n if n.startswith(('backbone.', 'neck.', 'decode_head.')) else f'backbone.{n}': g
        for n, g in grads(ours).items()
    }
    expected = {name: g for name, g in expected.items() if not name.startswith(skip)} if skip else expected
    assert set(expected) == set(got)
    for name, gradient in expected.items():
        close(got[name], gradient, 2e-5)


@pytest.mark.parametrize('img_size', [32, (32, 48)], ids=['square', 'oblong'])
@pytest.mark.parametrize('depth', [12, 24], ids=['base', 'large'])
def test_timm_v1_features(tmp_path, depth, img_size):
    # v1: class token pooling keeps the final norm, so forward_features ends in it.
    peer = timm_beit(depth, img_size, global_pool='token')
    torch.save(peer.state_dict(), tmp_path / 'timm.pth')
    model = beit(depth, img_size, out_type='tokens', final_norm=True)
    report = load_checkpoint(model, tmp_path / 'timm.pth')
    assert report.family == 'timm'
    assert not report.new and not report.resized
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    images = torch.randn(2, 3, height, width)
    (outputs,), expected = model(images), peer.forward_features(images)
    close(outputs, expected)
    assert_same_gradients(model, peer, outputs, expected)


@pytest.mark.parametrize('depth', [12, 24], ids=['base', 'large'])
def test_timm_v2_pooled_features(tmp_path, depth):
    # v2: mean pooling, then the norm; from safetensors.
    from safetensors.torch import save_file

    peer = timm_beit(depth, global_pool='avg', init_values=1e-5)
    save_file(peer.state_dict(), tmp_path / 'model.safetensors')
    model = beit(depth, out_type='pooled')
    load_checkpoint(model, tmp_path)
    images = torch.randn(2, 3, 32, 32)
    (outputs,) = model(images)
    expected = peer.forward_head(peer.forward_features(images), pre_logits=True)
    close(outputs, expected)
    assert_same_gradients(model, peer, outputs, expected)


def test_timm_shared_table_becomes_one_for_each_layer(tmp_path):
    peer = timm_beit(use_rel_pos_bias=False, use_shared_rel_pos_bias=True, global_pool='token')
    torch.save(peer.state_dict(), tmp_path / 'timm.pth')
    images = torch.randn(2, 3, 32, 32)
    for rel_pos in ('layer', 'shared'):
        model = beit(out_type='tokens', final_norm=True, rel_pos=rel_pos)
        load_checkpoint(model, tmp_path / 'timm.pth')
        close(model(images)[0], peer.forward_features(images))


def test_timm_absolute_positions_and_one_bias(tmp_path):
    # A plain ViT: one bias of query, key and value, whose key part softmax cancels.
    peer = timm_beit(use_abs_pos_emb=True, use_rel_pos_bias=False, init_values=None, global_pool='token')
    state_dict = {k: v.clone() for k, v in peer.state_dict().items()}
    for i in range(2):
        q, v = state_dict.pop(f'blocks.{i}.attn.q_bias'), state_dict.pop(f'blocks.{i}.attn.v_bias')
        state_dict[f'blocks.{i}.attn.qkv.bias'] = torch.cat([q, torch.randn(WIDTH), v])
    torch.save(state_dict, tmp_path / 'vit.pth')
    model = beit(out_type='tokens', final_norm=True, rel_pos='none', use_abs_pos=True, init_values=None)
    report = load_checkpoint(model, tmp_path / 'vit.pth')
    assert any('softmax' in note for note in report.notes)
    images = torch.randn(2, 3, 32, 32)
    close(model(images)[0], peer.forward_features(images))


@pytest.mark.parametrize('img_size', [48, (48, 64)], ids=['square', 'oblong'])
def test_resized_grid_reads_the_same_in_timm(tmp_path, img_size):
    source = timm_beit(global_pool='token')
    torch.save(source.state_dict(), tmp_path / 'timm.pth')
    model = beit(img_size=img_size, out_type='tokens', final_norm=True)
    report = load_checkpoint(model, tmp_path / 'timm.pth')
    assert len(report.resized) == 1 and '4x4 to 6x' in report.resized[0]
    ours, _ = to_ours(model.state_dict())
    renamed, _ = from_ours(ours, 'timm', model.grid)
    peer = timm_beit(img_size=img_size, global_pool='token', num_classes=0)
    peer.load_state_dict(renamed)
    images = torch.randn(1, 3, *model.img_size)
    (outputs,), expected = model(images), peer.forward_features(images)
    close(outputs, expected)
    assert_same_gradients(model, peer, outputs, expected)


def hf_segmentor(depth=12, out_indices=(3, 5, 7, 11), **kwargs):
    from transformers import BeitForSemanticSegmentation

    return randomise(BeitForSemanticSegmentation(hf_config(depth, out_indices=list(out_indices), **kwargs)))


@pytest.mark.parametrize(('depth', 'out_indices'), [(12, (3, 5, 7, 11)), (24, (7, 11, 15, 23))], ids=['base', 'large'])
@pytest.mark.parametrize('saved', [True, False], ids=['folder', 'in memory'])
def test_transformers_segmentation(tmp_path, depth, out_indices, saved):
    peer = hf_segmentor(depth, out_indices)
    # Their k counts from 1 and counts the embedding: it is our block k - 2.
    model = segmentor(depth=depth, out_indices=tuple(k - 2 for k in out_indices))
    if saved:
        peer.save_pretrained(tmp_path)
        report = load_checkpoint(model, tmp_path, role='test')
        assert not report.left_out and not report.new and not report.notes
    else:
        fitted, report = convert_state_dict(peer.state_dict(), model, role='test')
        model.load_state_dict(fitted)
    assert report.content == 'segmentation' and report.num_classes == 5
    images = torch.randn(2, 3, 32, 32)
    outputs, expected = model(images), peer(images).logits
    close(outputs, expected)
    assert_same_gradients(model, peer, outputs, expected)
    auxiliary = model.auxiliary_head.forward(model.extract_feat(images))
    their_features = peer.beit(images, output_hidden_states=True).hidden_states
    maps = [their_features[k - 1][:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for k in out_indices]
    close(auxiliary, peer.auxiliary_head(peer.fpn(tuple(maps))))


def test_transformers_segmentation_of_oblong_images():
    peer = hf_segmentor(4, (1, 2, 3, 4))
    images = torch.randn(1, 3, 32, 64)
    # It resizes its square tables bilinearly in the forward pass: give ours the tables it then uses.
    state_dict = dict(peer.state_dict())
    for name, table in peer.state_dict().items():
        if name.endswith('relative_position_bias_table'):
            square = table[:-3].reshape(1, 7, 7, HEADS).permute(0, 3, 1, 2)
            oblong = F.interpolate(square, size=(7, 15), mode='bilinear').permute(0, 2, 3, 1).reshape(-1, HEADS)
            state_dict[name] = torch.cat([oblong, table[-3:]])
    model = beit(4, (32, 64), out_indices=(0, 1, 2))
    fitted, _ = convert_state_dict(state_dict, model)
    model.load_state_dict(fitted)
    hidden = peer.beit(images, output_hidden_states=True).hidden_states
    for features, theirs in zip(model(images), hidden[1:4], strict=True):
        close(features, theirs[:, 1:].transpose(1, 2).unflatten(2, (4, 8)))


def test_transformers_classifier_mean_pooling(tmp_path):
    from transformers import BeitForImageClassification

    peer = randomise(BeitForImageClassification(hf_config(num_labels=9)))
    peer.save_pretrained(tmp_path)
    model = beit(4, out_type='pooled')
    report = load_checkpoint(model, tmp_path)
    assert report.content == 'classification' and report.num_classes == 9
    images = torch.randn(2, 3, 32, 32)
    (outputs,), expected = model(images), peer.beit(images).pooler_output
    close(outputs, expected)
    assert_same_gradients(model, peer, outputs, expected)


def test_transformers_model_class_token(tmp_path):
    from transformers import BeitModel

    peer = randomise(BeitModel(hf_config(use_mean_pooling=False)))
    peer.save_pretrained(tmp_path)
    model = beit(4, out_type='pooled', pooling='cls', final_norm=True)
    load_checkpoint(model, tmp_path)
    images = torch.randn(2, 3, 32, 32)
    close(model(images)[0], peer(images).pooler_output)


def test_transformers_masked_image_model(tmp_path):
    from transformers import BeitForMaskedImageModeling

    peer = randomise(
        BeitForMaskedImageModeling(
            hf_config(use_relative_position_bias=False, use_shared_relative_position_bias=True, use_mask_token=True)
        )
    )
    peer.save_pretrained(tmp_path)
    model = beit(4, out_type='tokens', final_norm=True, rel_pos='shared', use_mask_token=True)
    report = load_checkpoint(model, tmp_path)
    assert report.content == 'self-supervised pre-training'
    images, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 16) < 0.4
    expected = peer.layernorm(peer.beit(images, bool_masked_pos=mask).last_hidden_state)
    close(model(images, mask)[0], expected)


def test_transformers_absolute_positions_at_another_size(tmp_path):
    # Both resize absolute embeddings bicubically.
    from transformers import BeitModel

    config = hf_config(use_relative_position_bias=False, use_absolute_position_embeddings=True, use_mean_pooling=False)
    peer = randomise(BeitModel(config))
    peer.save_pretrained(tmp_path)
    model = beit(4, 48, rel_pos='none', use_abs_pos=True, out_type='tokens', final_norm=True)
    report = load_checkpoint(model, tmp_path)
    assert report.resized == ['absolute position embeddings from 4x4 to 6x6 patches']
    images = torch.randn(2, 3, 48, 48)
    close(model(images)[0], peer(images).last_hidden_state)


def test_mmseg_segmentor_loads_whole(tmp_path):
    peer = mmseg_segmentor()
    torch.save(dict(state_dict=peer.state_dict(), meta={}), tmp_path / 'mmseg.pth')
    model = segmentor()
    report = load_checkpoint(model, tmp_path / 'mmseg.pth', role='test')
    assert report.family == 'mmsegmentation'
    images = torch.randn(1, 3, 32, 32)
    outputs, expected = model(images), peer(images)
    close(outputs, expected)
    assert_same_gradients(model, peer, outputs, expected)


def test_official_segmentor_loads_whole(tmp_path):
    # The official code is mmseg's of its time: mmseg's network with the official names.
    peer = mmseg_segmentor()
    torch.save(dict(state_dict=official_segmentation(peer.state_dict()), meta={}), tmp_path / 'official.pth')
    model = segmentor()
    report = load_checkpoint(model, tmp_path / 'official.pth', role='test')
    assert report.format == 'official' and report.loaded == len(model.state_dict())
    images = torch.randn(1, 3, 32, 32)
    close(model(images), peer(images))


@pytest.mark.parametrize('out_type', ['avg_featmap', 'cls_token'])
def test_mmpretrain_backbone(tmp_path, out_type):
    from mmpretrain.models.backbones import BEiTViT

    mean = out_type == 'avg_featmap'
    arch = dict(embed_dims=WIDTH, num_layers=2, num_heads=HEADS, feedforward_channels=4 * WIDTH)
    peer = randomise(
        BEiTViT(
            arch=arch, img_size=32, patch_size=PATCH, out_type=out_type, final_norm=not mean, layer_scale_init_value=0.1
        )
    )
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in peer.state_dict().items()}), tmp_path / 'mmpretrain.pth')
    model = beit(out_type='pooled', pooling='mean' if mean else 'cls', final_norm=not mean)
    load_checkpoint(model, tmp_path / 'mmpretrain.pth')
    images = torch.randn(2, 3, 32, 32)
    close(model(images)[0], peer(images)[0])


def test_mmpretrain_pretraining_backbone(tmp_path):
    from mmpretrain.models.selfsup import BEiTPretrainViT

    arch = dict(embed_dims=WIDTH, num_layers=2, num_heads=HEADS, feedforward_channels=4 * WIDTH)
    peer = randomise(BEiTPretrainViT(arch=arch, img_size=32, patch_size=PATCH, final_norm=True))
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in peer.state_dict().items()}), tmp_path / 'mmpretrain.pth')
    model = beit(out_type='tokens', final_norm=True, rel_pos='shared', use_mask_token=True)
    load_checkpoint(model, tmp_path / 'mmpretrain.pth')
    images, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 4, 4) < 0.4
    close(model(images, mask)[0], peer(images, mask)[0])
