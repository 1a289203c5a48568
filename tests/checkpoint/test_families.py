"""Recognising families, renaming both ways, and the exact way back from every format."""

import functools
import itertools
from pathlib import Path

import pytest
import torch

from mmseg_beit.checkpoint import from_ours, read_state_dict, to_ours
from mmseg_beit.checkpoint.formats import FAMILIES, detect, strip_prefixes
from mmseg_beit.checkpoint.tables import is_index, relative_position_index
from mmseg_beit.errors import InputError
from tests.checkpoint.peers import (
    HEADS,
    PATCH,
    WIDTH,
    beit,
    hf_config,
    mmseg_segmentor,
    official_backbone,
    official_pretraining,
    official_segmentation,
    randomise,
    segmentor,
    timm_beit,
)

GRID = (4, 4)


def with_head(backbone, **head):
    return {f'backbone.{name}': tensor for name, tensor in backbone.state_dict().items()} | head


@functools.cache
def contents():
    """Every kind of checkpoint in our names."""
    block = {
        name.replace('backbone.layers.1.', 'neck.patch_aggregation.0.'): tensor
        for name, tensor in with_head(beit(rel_pos='shared')).items()
        if '.layers.1.' in name
    }
    pretrained = with_head(
        beit(rel_pos='shared', use_mask_token=True, final_norm=True),
        **{'head.cls_head.weight': torch.randn(11, WIDTH), 'head.cls_head.bias': torch.randn(11)},
    )
    classifier = {'head.fc.weight': torch.randn(7, WIDTH), 'head.fc.bias': torch.randn(7)}
    return {
        'backbone': with_head(beit()),
        'oblong': with_head(beit(img_size=(32, 48))),
        'mean classifier': with_head(beit(out_type='pooled'), **classifier),
        'class token classifier': with_head(beit(final_norm=True), **classifier),
        'v1 pre-training': pretrained,
        'v2 pre-training': pretrained | block,
        'segmentor': dict(segmentor().state_dict()),
        'absolute positions': with_head(beit(rel_pos='none', use_abs_pos=True, final_norm=True)),
        'no layer scale': with_head(beit(init_values=None, final_norm=True)),
        'no biases': with_head(beit(qv_bias=False, final_norm=True)),
    }


# What a format has no place for: our names that begin so are lost on the way there and back.
LOST = {
    'mmseg_beit': (),
    'official': (),
    'timm': ('backbone.mask_token', 'head.cls_', 'neck.', 'decode_head.', 'auxiliary_head.'),
    'hf': ('neck.patch',),
    'mmpretrain': ('neck.upsample', 'decode_head.', 'auxiliary_head.'),
    'mmseg': ('backbone.mask_token', 'backbone.fc_norm.', 'head.', 'neck.patch'),
}


def plain(state_dict):
    return {name: tensor for name, tensor in state_dict.items() if not is_index(name)}


@pytest.mark.parametrize(('first', 'second'), list(itertools.product(FAMILIES, repeat=2)))
def test_round_trips_are_exact(first, second):
    """Ours to one format, from there to another, and back: bit for bit what both formats hold."""
    for content, original in contents().items():
        grid = (4, 6) if content == 'oblong' else GRID
        start = original
        if content in ('absolute positions', 'v1 pre-training', 'v2 pre-training') and 'mmseg' in (first, second):
            continue  # Tested below: mmseg has no such network, or another form of it.
        try:
            for family in (first, second):
                renamed, report = from_ours(start, family, grid)
                assert report.depth == start_depth(start)
                start, _ = to_ours(renamed)
                start = plain(start)
        except InputError as error:
            pytest.fail(f'{content}: {error}')
        lost = LOST[first] + LOST[second]
        expected = (
            {name: tensor for name, tensor in original.items() if not name.startswith(lost)} if lost else original
        )
        added = set(start) - set(expected)
        # Formats that always have biases or layer scales gain neutral ones.
        assert all(name.endswith(('q_bias', 'v_bias', 'gamma_1', 'gamma_2')) for name in added), (content, added)
        for name in added:
            assert torch.equal(start[name], torch.full_like(start[name], 1.0 if 'gamma' in name else 0.0))
        assert set(expected) <= set(start), content
        for name, tensor in expected.items():
            assert torch.equal(start[name], tensor) and start[name].dtype == tensor.dtype, (content, name)


def start_depth(state_dict):
    return 4 if 'backbone.layers.3.ln1.weight' in state_dict else 2


def test_mmseg_gets_the_shared_table_in_each_layer():
    original = contents()['v1 pre-training']
    renamed, report = from_ours(original, 'mmseg', GRID)
    table = original['backbone.rel_pos_bias.relative_position_bias_table']
    for i in range(2):
        assert torch.equal(renamed[f'layers.{i}.attn.relative_position_bias_table'], table)
    assert any('copied to each layer' in note for note in report.notes)
    with pytest.raises(InputError, match='absolute position'):
        from_ours(contents()['absolute positions'], 'mmseg', GRID)


@pytest.mark.parametrize(
    ('make', 'family', 'content'),
    [
        (official_backbone, 'official', 'backbone'),
        (official_pretraining, 'official', 'self-supervised pre-training'),
        (lambda: official_pretraining(v2=True), 'official', 'self-supervised pre-training'),
        (lambda: official_segmentation(mmseg_segmentor().state_dict()), 'official', 'segmentation'),
        (lambda: timm_beit().state_dict(), 'timm', 'classification'),
        (lambda: timm_beit(num_classes=0).state_dict(), 'timm', 'backbone'),
        (lambda: mmseg_segmentor().state_dict(), 'mmseg', 'segmentation'),
        (lambda: mmseg_segmentor().backbone.state_dict(), 'mmseg', 'backbone'),
        (lambda: segmentor().state_dict(), 'mmseg_beit', 'segmentation'),
        (lambda: beit().state_dict(), 'mmseg_beit', 'backbone'),
    ],
)
def test_families_are_recognised(make, family, content):
    state_dict = make()
    assert detect(state_dict).name == family
    ours, report = to_ours(state_dict)
    assert report.content == content
    assert not report.left_out
    assert sum(t.numel() for n, t in ours.items()) == sum(t.numel() for t in state_dict.values())


def test_mmpretrain_is_recognised():
    from mmpretrain.models.backbones import BEiTViT
    from mmpretrain.models.necks import BEiTV2Neck
    from mmpretrain.models.selfsup import BEiTPretrainViT

    arch = dict(embed_dims=WIDTH, num_layers=2, num_heads=HEADS, feedforward_channels=4 * WIDTH)
    classifier = randomise(BEiTViT(arch=arch, img_size=32, patch_size=PATCH))
    assert detect(classifier.state_dict()).name == 'mmpretrain'
    ours, _ = to_ours(with_head(classifier, **{'head.layers.head.weight': torch.randn(7, WIDTH)}))
    assert 'backbone.fc_norm.weight' in ours and 'head.fc.weight' in ours

    pretrain = randomise(BEiTPretrainViT(arch=arch, img_size=32, patch_size=PATCH, final_norm=False))
    neck = randomise(BEiTV2Neck(1, 1, backbone_arch=dict(arch, depth=2)))
    state_dict = with_head(pretrain, **{f'neck.{n}': t for n, t in neck.state_dict().items()})
    state_dict |= {'head.cls_head.weight': torch.randn(11, WIDTH), 'target_generator.encoder.cls_token': torch.zeros(1)}
    ours, report = to_ours(state_dict)
    assert report.family == 'mmpretrain' and report.content == 'self-supervised pre-training'
    assert torch.equal(ours['backbone.ln1.weight'], neck.norm.weight)
    assert not report.left_out
    back, _ = from_ours(plain(ours), 'mmpretrain', GRID)
    assert set(back) == set(state_dict)
    assert all(torch.equal(back[name], state_dict[name]) for name in back)


@pytest.mark.parametrize('new_names', [False, True])
def test_transformers_is_recognised(tmp_path, new_names):
    from transformers import (
        BeitForImageClassification,
        BeitForMaskedImageModeling,
        BeitForSemanticSegmentation,
        BeitModel,
    )

    for kind, options, content in [
        (BeitModel, {}, 'backbone'),
        (BeitForImageClassification, {}, 'classification'),
        (BeitForMaskedImageModeling, dict(use_mask_token=True), 'self-supervised pre-training'),
        (BeitForSemanticSegmentation, dict(out_indices=[1, 2, 3, 4]), 'segmentation'),
    ]:
        peer = randomise(kind(hf_config(**options)))
        state_dict, meta = peer.state_dict(), None
        if not new_names:
            peer.save_pretrained(tmp_path / kind.__name__)
            state_dict, meta = read_state_dict(tmp_path / kind.__name__)
            assert meta['config']['model_type'] == 'beit'
        ours, report = to_ours(state_dict, meta)
        assert report.family == 'transformers' and report.content == content and not report.left_out
        assert sum(t.numel() for t in ours.values()) == sum(t.numel() for t in peer.state_dict().values())
        # Written out by hand: query, key and value stand in this order.
        layer = peer.base_model.layers[1].attention
        joined = torch.cat([layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight])
        assert torch.equal(ours['backbone.layers.1.attn.qkv.weight'], joined)
        assert torch.equal(ours['backbone.layers.1.attn.v_bias'], layer.v_proj.bias)


def test_official_names_are_the_official_ones():
    """Values arrive where an independent renaming, and timm's reading of official files, put them."""
    from timm.models.beit import checkpoint_filter_fn

    state_dict = official_pretraining()
    peer = timm_beit(use_rel_pos_bias=False, use_shared_rel_pos_bias=True, global_pool='token', num_classes=0)
    missing, unexpected = peer.load_state_dict(checkpoint_filter_fn(dict(model=state_dict), peer), strict=False)
    assert not missing and set(unexpected) == {'mask_token', 'lm_head.weight', 'lm_head.bias'}
    ours, _ = to_ours(state_dict, dict(wrapper='model'))
    model = beit(rel_pos='shared', use_mask_token=True, final_norm=True, out_type='tokens')
    backbone = {n.removeprefix('backbone.'): t for n, t in plain(ours).items() if n.startswith('backbone.')}
    model.load_state_dict(backbone)
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(model(images)[0], peer.forward_features(images), atol=1e-4, rtol=1e-4)

    peer = mmseg_segmentor()
    ours, _ = to_ours(official_segmentation(peer.state_dict()))
    assert set(ours) == set(peer.state_dict())
    assert all(torch.equal(ours[name], tensor) for name, tensor in peer.state_dict().items())
    official, _ = from_ours(plain(ours), 'official', GRID)
    assert set(official) == set(official_segmentation(peer.state_dict()))


def test_peers_load_what_is_written_strictly():
    from mmpretrain.models.backbones import BEiTViT

    original = dict(segmentor().state_dict())
    mmseg_segmentor().load_state_dict(from_ours(original, 'mmseg', GRID)[0])
    timm_beit(4, num_classes=0, use_fc_norm=True).load_state_dict(
        from_ours(
            {**original, 'backbone.fc_norm.weight': torch.ones(WIDTH), 'backbone.fc_norm.bias': torch.ones(WIDTH)},
            'timm',
        )[0]
    )
    arch = dict(embed_dims=WIDTH, num_layers=2, num_heads=HEADS, feedforward_channels=4 * WIDTH)
    peer = BEiTViT(arch=arch, img_size=32, patch_size=PATCH)
    renamed, _ = from_ours(with_head(beit(out_type='pooled')), 'mmpretrain', GRID)
    peer.load_state_dict(renamed)


@pytest.mark.parametrize('grid', [(4, 4), (2, 5), (5, 2), (1, 3)])
def test_index_buffers_are_mmsegs(grid):
    from mmseg.models.backbones.beit import BEiTAttention

    peer = BEiTAttention(WIDTH, HEADS, grid)
    assert torch.equal(relative_position_index(grid), peer.relative_position_index)


def test_wrappers_prefixes():
    assert strip_prefixes(['module.a', 'module.b']) == {'a': 'module.a', 'b': 'module.b'}
    assert strip_prefixes(['module._orig_mod.a', 'module._orig_mod.b'])['a'] == 'module._orig_mod.a'
    assert strip_prefixes(['backbone._orig_mod.a', 'head.b']) == {
        'backbone.a': 'backbone._orig_mod.a',
        'head.b': 'head.b',
    }
    assert strip_prefixes(['module.a', 'b']) == {'module.a': 'module.a', 'b': 'b'}
    assert strip_prefixes([]) == {}


@pytest.mark.parametrize('wrapper', ['model', 'module', 'state_dict', None, ('model', 'module')])
def test_wrappers_of_files(tmp_path, wrapper):
    content = {f'module.{n}': t for n, t in official_backbone().items()}
    for key in (wrapper,) if isinstance(wrapper, str) else reversed(wrapper or ()):
        content = {key: content, 'epoch': 3, 'optimizer': {'state': {0: {'step': torch.tensor(1.0)}}}}
    for new_form in (True, False):
        torch.save(content, tmp_path / 'file.pth', _use_new_zipfile_serialization=new_form)
        state_dict, meta = read_state_dict(tmp_path / 'file.pth')
        assert set(state_dict) == set(official_backbone())
        assert meta['wrapper'] == (wrapper[0] if isinstance(wrapper, tuple) else wrapper)


def test_mmengine_training_checkpoints_need_no_trust(tmp_path):
    import argparse

    import numpy as np
    from mmengine.logging import MessageHub

    hub = MessageHub.get_instance('checkpoint test')
    hub.update_scalar('train/loss', 0.5)
    hub.update_scalar('train/lr', np.float64(0.1))
    hub.update_info('dataset_meta', dict(classes=('a', 'b'), palette=[[1, 2, 3]]))
    content = dict(
        meta=dict(
            cfg='model = dict(backbone=dict(out_indices=(0, 1, 2, 3), norm_cfg=dict(type="LN", eps=1e-6)))',
            dataset_meta=dict(classes=('sky', 'road'), palette=[[1, 2, 3], [4, 5, 6]]),
        ),
        state_dict=segmentor().state_dict(),
        message_hub=hub.state_dict(),
        random_state=np.random.RandomState(0).get_state(),
        args=argparse.Namespace(lr=0.1, out=Path('/tmp'), layers={1, 2}, names=frozenset('ab')),
    )
    torch.save(content, tmp_path / 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_1.pth')
    (tmp_path / 'epoch_0.pth').write_bytes(b'')
    state_dict, meta = read_state_dict(tmp_path)
    assert meta['path'].endswith('epoch_1.pth') and meta['training_config'].startswith('model')
    assert meta['dataset_meta'] == content['meta']['dataset_meta']
    assert all(torch.equal(state_dict[name], tensor) for name, tensor in content['state_dict'].items())
    torch.save(dict(content, meta=dict(CLASSES=('sky', 'road'))), tmp_path / 'epoch_1.pth')
    assert read_state_dict(tmp_path)[1]['dataset_meta'] == dict(classes=('sky', 'road'))


@pytest.mark.parametrize(
    ('names', 'says'),
    [
        (['conv1.weight', 'layer1.0.conv1.weight'], 'no checkpoint of a BEiT family'),
        (['encoder.blocks.0.attn.qkv.weight', 'quantize.embedding.weight'], 'VQ-KD tokenizer'),
        ([], 'no checkpoint of a BEiT family'),
        (['blocks.0.attn.qkv.weight', 'blocks.0.mlp.w12.weight'], 'another architecture'),
        (['blocks.0.attn.qkv.weight', 'blocks.0.attn.inner_attn_ln.weight'], None),
        (['patch_embed.proj.weight', 'blocks.x.attn.qkv.weight'], 'another architecture'),
        (['decode_head.conv_seg.weight'], 'no checkpoint of a BEiT family'),
    ],
)
def test_other_architectures_are_refused(names, says):
    state_dict = {name: torch.zeros(2, 2) for name in names}
    if says is None:
        ours, _ = to_ours(state_dict)
        assert 'backbone.layers.0.attn.inner_attn_ln.weight' in ours  # the model has no place for it, which is an error
    else:
        with pytest.raises(InputError, match=says):
            to_ours(state_dict)
