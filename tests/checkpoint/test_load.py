"""Loading into a model: what is resized, new, left out or an error, and what the summary says."""

import logging

import pytest
import torch
from torch import nn

from mmseg_beit.checkpoint import Report, convert_state_dict, load_checkpoint, to_ours
from mmseg_beit.checkpoint.tables import find_grid, join_qkv, merge_bias, relative_position_index, split_bias, split_qkv
from mmseg_beit.errors import InputError, sentence
from mmseg_beit.models.layers import num_relative_positions, resize_relative_position_table
from tests.checkpoint.peers import (
    HEADS,
    WIDTH,
    beit,
    hf_config,
    official_backbone,
    official_pretraining,
    randomise,
    segmentor,
    timm_beit,
)


def save(path, state_dict, **extra):
    torch.save(dict(model=state_dict, **extra), path)
    return path


def refused(model, state_dict, role='init'):
    with pytest.raises(InputError) as caught:
        convert_state_dict(state_dict, model, role=role, source='file.pth')
    text = sentence(caught.value)
    assert text.startswith('file.pth') and '\n' not in str(caught.value)
    return text


def test_official_file_fills_the_whole_backbone(tmp_path):
    """What mmsegmentation leaves random without a word."""
    model = beit()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    source = official_backbone()
    report = load_checkpoint(model, save(tmp_path / 'beit.pth', source))
    after = model.state_dict()
    assert not any(torch.equal(after[name], before[name]) for name in before)
    assert report.loaded == len(after)
    assert torch.equal(after['layers.1.ffn.layers.0.0.weight'], source['blocks.1.mlp.fc1.weight'])
    assert torch.equal(after['layers.1.ln2.bias'], source['blocks.1.norm2.bias'])


@pytest.mark.parametrize('name', sorted(n for n in official_backbone() if not n.endswith('relative_position_index')))
def test_every_missing_backbone_tensor_is_an_error(name):
    source = official_backbone()
    del source[name]
    model = beit()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for role in ('init', 'finetune', 'test'):
        text = refused(model, source, role)
        assert 'lacks' in text or 'is a BEiT' in text
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_remedy_tells_an_incomplete_file_from_another_network():
    source = official_backbone()
    del source['blocks.1.gamma_2']
    assert 'lacks backbone.layers.1.gamma_2, which the model needs: name a complete checkpoint' in refused(
        beit(), source
    )
    source = {name: tensor for name, tensor in source.items() if 'gamma' not in name}
    assert 'set init_values' in refused(beit(), source)


def test_pretraining_file_into_a_segmentor(tmp_path):
    source = official_pretraining(4, v2=True)
    model = segmentor(img_size=48)
    report = load_checkpoint(model, save(tmp_path / 'pt.pth', source), role='finetune')
    table = resize_relative_position_table(source['rel_pos_bias.relative_position_bias_table'], (4, 4), (6, 6))
    for layer in model.backbone.layers:
        assert torch.equal(layer.attn.relative_position_bias_table, table)
    assert report.resized == ['relative position tables from 4x4 to 6x6 patches']
    assert report.content == 'self-supervised pre-training'
    assert 'backbone.mask_token' in report.left_out['only pre-training needs it']
    assert {'backbone.ln1.weight', 'backbone.ln1.bias'} == set(report.left_out['the model has no such norm'])
    assert 'head.cls_head.weight' in report.left_out['the model has no such part']
    new = report.new['not in the checkpoint']
    assert 'decode_head.conv_seg.weight' in new and 'neck.upsample_4x.0.weight' in new
    assert not any(name.startswith('backbone.') for name in new)
    text = str(report)
    for part in ('official', '32 wide, 4 layers', '2 heads', '4x4', '6x6', 'mask_token', 'decode_head', 'copied'):
        assert part in text
    with pytest.raises(InputError, match=r'lacks .*decode_head'):
        load_checkpoint(segmentor(), save(tmp_path / 'pt.pth', official_pretraining(4)), role='test')


def test_other_class_count(tmp_path):
    source = dict(segmentor(num_classes=5).state_dict())
    model = segmentor(num_classes=3)
    nn.init.constant_(model.decode_head.conv_seg.weight, 7.0)
    report = load_checkpoint(model, save(tmp_path / 'seg.pth', source), role='finetune')
    left_out = report.left_out['5 classes in the file, 3 in the model']
    assert {name.rpartition('.')[0] for name in left_out} == {'decode_head.conv_seg', 'auxiliary_head.conv_seg'}
    assert set(report.new['starts anew']) == set(left_out)
    # The rest of the head is the checkpoint's, the classifier keeps its start.
    assert torch.equal(model.decode_head.fpn_bottleneck.conv.weight, source['decode_head.fpn_bottleneck.conv.weight'])
    assert torch.all(model.decode_head.conv_seg.weight == 7.0)
    text = refused(model, source, 'test')
    assert '5 classes' in text and 'num_classes=5' in text and 'decode_head.conv_seg' in text


def test_testing_needs_no_auxiliary_head():
    source = {n: t for n, t in segmentor().state_dict().items() if not n.startswith('auxiliary_head.')}
    _, report = convert_state_dict(source, segmentor(), role='test')
    assert 'auxiliary_head.conv_seg.weight' in report.new['not in the checkpoint, not used in testing']
    model = segmentor()
    del model.auxiliary_head
    _, report = convert_state_dict(segmentor().state_dict(), model, role='test')
    assert 'auxiliary_head.conv_seg.weight' in report.left_out['the model has no such part']


def test_testing_with_another_config():
    source = dict(segmentor().state_dict())
    model = segmentor()
    del model.neck
    assert 'neck.upsample' in refused(model, source, 'test')
    wide = dict(source)
    wide['decode_head.bottleneck.conv.weight'] = torch.zeros(WIDTH, 7, 3, 3)
    assert 'decode_head.bottleneck.conv' in refused(segmentor(), wide, 'test')
    _, report = convert_state_dict(wide, segmentor(), role='finetune')
    assert ['decode_head.bottleneck.conv.weight'] in report.left_out.values()


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        (dict(depth=3), 'num_layers=2'),
        (dict(embed_dims=64, num_heads=4), 'embed_dims=32'),
        (dict(patch_size=16), 'patch_size'),
        (dict(in_channels=4), 'in_channels'),
        (dict(num_heads=4), '2 heads'),
        (dict(mlp_ratio=2), 'ffn'),
        (dict(rel_pos='none'), 'rel_pos'),
        (dict(rel_pos='none', use_abs_pos=True), 'use_abs_pos'),
        (dict(use_abs_pos=True), 'use_abs_pos'),
        (dict(init_values=None), 'init_values'),
        (dict(qv_bias=False), 'qv_bias'),
        (dict(rel_pos='shared'), "rel_pos='layer'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_other_networks_are_errors_with_a_remedy(options, says):
    assert says in refused(beit(**options), official_backbone())


def test_output_norms_are_new_or_left_out_but_not_in_testing():
    source = timm_beit(global_pool='avg').state_dict()
    model = beit(final_norm=True)
    _, report = convert_state_dict(source, model)
    assert report.new['not in the checkpoint'] == ['backbone.ln1.weight', 'backbone.ln1.bias']
    assert 'backbone.fc_norm.weight' in report.left_out['the model has no such norm']
    assert 'ln1' in refused(beit(out_type='pooled', final_norm=True), source, 'test')
    assert 'fc_norm' in refused(beit(), source, 'test')


def test_equal_tables_become_the_shared_one():
    source = official_backbone()
    source['blocks.1.attn.relative_position_bias_table'] = source['blocks.0.attn.relative_position_bias_table']
    fitted, report = convert_state_dict(source, beit(rel_pos='shared'))
    table = source['blocks.0.attn.relative_position_bias_table']
    assert torch.equal(fitted['rel_pos_bias.relative_position_bias_table'], table)
    assert any('shared one' in note for note in report.notes)


def test_oblong_grids():
    # From an index buffer, from the model's own grid, from what the caller says; else the file cannot tell.
    grid, other = (3, 5), (5, 3)
    source = official_backbone(grid=grid)
    for i in range(2):
        source[f'blocks.{i}.attn.relative_position_index'] = relative_position_index(grid)
    _, report = convert_state_dict(source, beit(img_size=(40, 40)))
    assert report.grid == grid and report.resized == ['relative position tables from 3x5 to 5x5 patches']
    source = {name: t for name, t in source.items() if not name.endswith('relative_position_index')}
    _, report = convert_state_dict(source, beit(img_size=(40, 24)))
    assert report.grid == other and not report.resized
    assert 'several grids' in refused(beit(img_size=(40, 40)), source)
    _, report = convert_state_dict(source, beit(img_size=(40, 40)), source_grid=grid)
    assert report.grid == grid
    with pytest.raises(InputError, match='do not fit a grid of 4x4'):
        convert_state_dict(source, beit(), source_grid=(4, 4))


@pytest.mark.parametrize(
    ('rows', 'expected', 'prefer', 'grid'),
    [
        (732, None, False, (14, 14)),
        (732, (5, 41), False, (14, 14)),  # both have 732 rows: a square unless the file is the model's own kind
        (732, (5, 41), True, (5, 41)),
        (num_relative_positions((14, 28)), (14, 28), False, (14, 28)),
        (num_relative_positions((1, 1)), None, False, (1, 1)),
    ],
)
def test_grid_of_rows(rows, expected, prefer, grid):
    tables = {'backbone.layers.0.attn.relative_position_bias_table': torch.zeros(rows, HEADS)}
    assert find_grid(tables, expected=expected, prefer_expected=prefer) == grid


def test_tables_that_fit_no_grid():
    source = official_backbone()
    for i in range(2):
        name = f'blocks.{i}.attn.relative_position_bias_table'
        source[name] = source[name][:-1]
    assert 'fit no grid' in refused(beit(), source) or 'several' in refused(beit(), source)
    source['blocks.0.attn.relative_position_bias_table'] = torch.zeros(30, HEADS)
    assert 'different lengths' in refused(beit(), source)


def test_qkv_and_biases():
    """By hand: width 2, rows of q, k and v in this order."""
    q, k, v = (torch.full((2, 2), float(i)) for i in (1, 2, 3))
    name = 'backbone.layers.0.attn'
    split = {f'{name}.q.weight': q, f'{name}.k.weight': k, f'{name}.v.weight': v}
    split |= {f'{name}.q.bias': q[0], f'{name}.v.bias': v[0]}
    joined = join_qkv(split)
    assert joined[f'{name}.qkv.weight'].tolist() == [[1, 1], [1, 1], [2, 2], [2, 2], [3, 3], [3, 3]]
    assert joined[f'{name}.q_bias'].tolist() == [1, 1] and joined[f'{name}.v_bias'].tolist() == [3, 3]
    back = split_qkv(joined)
    assert set(back) == set(split) and all(torch.equal(back[n], split[n]) for n in split)
    whole = merge_bias(joined)
    assert whole[f'{name}.qkv.bias'].tolist() == [1, 1, 0, 0, 3, 3]
    halves, dropped = split_bias(whole)
    assert not dropped and set(halves) == set(joined)
    whole[f'{name}.qkv.bias'] = torch.tensor([1.0, 1, 2, 2, 3, 3])
    halves, dropped = split_bias(whole)
    assert dropped == [f'{name}.k_bias'] and halves[f'{name}.q_bias'].tolist() == [1, 1]


def test_half_precision_files(tmp_path):
    source = {n: t.half() if t.is_floating_point() else t for n, t in official_backbone().items()}
    model = beit()
    load_checkpoint(model, save(tmp_path / 'half.pth', source))
    assert model.cls_token.dtype == torch.float32
    assert torch.equal(model.cls_token, source['cls_token'].float())


@pytest.mark.parametrize('wrap', ['ddp', 'compiled', 'attribute'])
def test_wrapped_models(tmp_path, wrap):
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    model = segmentor()
    wrapped = torch.compile(model) if wrap == 'compiled' else Wrapper(model)
    source = dict(segmentor().state_dict())
    source['decode_head.conv_seg.bias'] = torch.arange(5.0)
    report = load_checkpoint(wrapped, save(tmp_path / 'seg.pth', source), role='test')
    assert not report.left_out and not report.new
    assert model.decode_head.conv_seg.bias.tolist() == [0, 1, 2, 3, 4]


def test_models_of_mmseg_and_mmpretrain():
    from mmpretrain.models.backbones import BEiTViT

    from tests.checkpoint.peers import PATCH, mmseg_segmentor

    peer = mmseg_segmentor()
    fitted, report = convert_state_dict(official_backbone(4), peer)
    assert set(peer.load_state_dict(fitted, strict=False).unexpected_keys) == set()
    assert not any(name.startswith('backbone.') for names in report.new.values() for name in names)
    arch = dict(embed_dims=WIDTH, num_layers=2, num_heads=HEADS, feedforward_channels=4 * WIDTH)
    peer = BEiTViT(arch=arch, img_size=32, patch_size=PATCH, bias=True)
    fitted, _ = convert_state_dict(timm_beit().state_dict(), peer, role='test')
    assert set(fitted) | {n for n in peer.state_dict() if n.endswith('index')} == set(peer.state_dict())


def test_model_without_backbone():
    with pytest.raises(InputError, match='no BEiT backbone'):
        convert_state_dict(official_backbone(), nn.Linear(2, 2))


def test_role_is_checked():
    with pytest.raises(InputError, match='role'):
        convert_state_dict(official_backbone(), beit(), role='train')


def test_summary_is_logged_once(tmp_path, caplog):
    logger = logging.getLogger('checkpoint test')
    logger.setLevel(logging.INFO)
    with caplog.at_level(logging.INFO, logger='checkpoint test'):
        report = load_checkpoint(beit(), save(tmp_path / 'beit.pth', official_backbone()), logger=logger)
    assert [record.message for record in caplog.records] == [str(report)]


@pytest.mark.parametrize(
    ('width', 'depth', 'size'),
    [(768, 12, 'base (B)'), (1024, 24, 'large (L)'), (192, 12, 'tiny'), (768, 24, '768 wide, 24 layers')],
)
def test_sizes(width, depth, size):
    assert Report(width=width, depth=depth).size == size


def test_differences_that_tensors_do_not_show(tmp_path):
    from transformers import BeitForSemanticSegmentation

    peer = randomise(BeitForSemanticSegmentation(hf_config(5, out_indices=[2, 3, 4, 5], layer_norm_eps=1e-12)))
    peer.save_pretrained(tmp_path)
    report = load_checkpoint(segmentor(depth=5, out_indices=(0, 1, 2, 4)), tmp_path, role='test')
    assert 'layer norm epsilon 1e-12 in the checkpoint, 1e-06 in the model' in report.notes
    assert 'its segmentor reads the blocks 0, 1, 2, 3 (counted from 0), this model 0, 1, 2, 4' in report.notes


def test_init_cfg_of_a_config(tmp_path):
    from mmseg_beit.registry import MODELS
    from tests.checkpoint.peers import segmentor_config

    source = official_backbone(4)
    config = segmentor_config()
    config['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint=str(save(tmp_path / 'beit.pth', source)))
    model = MODELS.build(config)
    model.init_weights()
    assert torch.equal(model.backbone.layers[3].attn.qkv.weight, source['blocks.3.attn.qkv.weight'])


def test_nothing_of_the_caller_is_changed():
    source = official_pretraining(4)
    before = {name: tensor.clone() for name, tensor in source.items()}
    names = list(source)
    model = segmentor(img_size=48)
    fitted, _ = convert_state_dict(source, model)
    for tensor in fitted.values():
        assert not tensor.requires_grad
    to_ours(source)
    assert list(source) == names and all(torch.equal(source[name], before[name]) for name in names)
