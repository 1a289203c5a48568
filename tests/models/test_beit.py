"""The BEiT backbone: variants, any input size, kept bias, policies, errors."""

import copy
import pickle

import pytest
import torch

from mmseg_beit.errors import InputError
from mmseg_beit.models.backbones import BEiT
from mmseg_beit.models.layers import resize_relative_position_table
from mmseg_beit.models.layers.toeplitz_attention import bias_blocks

TINY = dict(img_size=32, patch_size=8, embed_dims=32, num_layers=2, num_heads=4, mlp_ratio=2)


def tiny(**kwargs) -> BEiT:
    torch.manual_seed(0)
    model = BEiT(**{**TINY, **kwargs})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


@pytest.mark.parametrize('kwargs', [
    dict(rel_pos='layer'),
    dict(rel_pos='shared'),
    dict(rel_pos='none', use_abs_pos=True, init_values=None),
])  # fmt: skip
def test_another_size_equals_a_model_with_resized_tables(kwargs):
    model = tiny(**kwargs)
    larger = BEiT(**{**TINY, 'img_size': (48, 24), **kwargs}).eval()
    state = {}
    for name, value in model.state_dict().items():
        if name.endswith('relative_position_bias_table'):
            value = resize_relative_position_table(value, (4, 4), (6, 3))
        elif name == 'pos_embed':
            maps = value[:, 1:].transpose(1, 2).reshape(1, 32, 4, 4)
            maps = torch.nn.functional.interpolate(maps, size=(6, 3), mode='bicubic', align_corners=False)
            value = torch.cat([value[:, :1], maps.flatten(2).transpose(1, 2)], dim=1)
        state[name] = value
    larger.load_state_dict(state)
    img = torch.randn(2, 3, 48, 24)
    torch.testing.assert_close(model(img)[0], larger(img)[0])


def test_shared_table_equals_the_same_table_in_every_layer():
    shared = tiny(rel_pos='shared')
    layered = BEiT(**TINY).eval()
    state = shared.state_dict()
    table = state.pop('rel_pos_bias.relative_position_bias_table')
    state |= {f'layers.{i}.attn.relative_position_bias_table': table for i in range(2)}
    layered.load_state_dict(state)
    img = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(shared(img)[0], layered(img)[0])


@pytest.mark.parametrize('name', ['bias_for', 'blocks_for'])
def test_what_is_kept_follows_the_weights_and_the_grid(name):
    attn = tiny().layers[0].attn
    make, table = getattr(attn, name), attn.relative_position_bias_table

    def made(grid=(4, 4), dtype=torch.float32):
        make(grid, dtype)
        return attn.kept_tensors()

    with torch.no_grad():
        first = made()
        assert all(again is tensor for again, tensor in zip(made(), first, strict=True))
        first = [tensor.clone() for tensor in first]
        table.mul_(2)
        for actual, expected in zip(made(), first, strict=True):
            torch.testing.assert_close(actual, 2 * expected)
        table.data = torch.ones_like(table)
        assert all((tensor == 1).all() for tensor in made())
        shapes = dict(bias_for=[(4, 16, 16)], blocks_for=[(4, 3, 9 * 3), (3, 4)])[name]
        assert [tuple(tensor.shape) for tensor in made((5, 3), torch.bfloat16)] == shapes
        assert {tensor.dtype for tensor in attn.kept_tensors()} == {torch.bfloat16}


def test_predictions_follow_an_optimizer_step_and_a_loaded_state():
    model, img = tiny().eval(), torch.randn(1, 3, 32, 32)
    state = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        first = model(img)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    model(img)[0].sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert (model(img)[0] - first).abs().max() > 1e-3
        model.load_state_dict(state)
        torch.testing.assert_close(model(img)[0], first)


def test_bias_kept_in_inference_mode_serves_a_later_training_step():
    model = tiny()
    for layer in model.layers:
        layer.attn.relative_position_bias_table.requires_grad_(False)
    img = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        expected = model(img)[0].clone()
    out = model(img)[0]
    out.sum().backward()
    torch.testing.assert_close(out.detach(), expected)


def test_copies_do_not_share_the_kept_bias():
    model = tiny()
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert copy.deepcopy(model).layers[0].attn._kept is None
    assert pickle.loads(pickle.dumps(model.layers[0].attn))._kept is None


def test_mask_token_replaces_exactly_the_masked_patches():
    model = tiny(use_mask_token=True, rel_pos='none', out_type='tokens', num_layers=1)
    img = torch.randn(1, 3, 32, 32)
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    tokens, _ = model._embed(img, mask)
    plain, _ = model._embed(img, None)
    changed = (tokens != plain).any(dim=2)[0]
    assert changed.nonzero().flatten().tolist() == [1 + 1 * 4 + 2]
    torch.testing.assert_close(tokens[0, 7], model.mask_token[0, 0])
    torch.testing.assert_close(model(img, mask)[0], model(img, mask.flatten(1))[0])


def test_output_types_agree():
    img = torch.randn(2, 3, 32, 16)
    tokens = tiny(out_type='tokens')(img)[0]
    (featmap,) = tiny()(img)
    assert tokens.shape == (2, 1 + 4 * 2, 32)
    torch.testing.assert_close(featmap, tokens[:, 1:].transpose(1, 2).reshape(2, 32, 4, 2))
    pooled = tiny(out_type='pooled', pooling='mean')
    with torch.no_grad():
        pooled.fc_norm.weight.fill_(1)
        pooled.fc_norm.bias.zero_()
        pooled.load_state_dict(tiny().state_dict(), strict=False)
    torch.testing.assert_close(pooled(img)[0], torch.nn.functional.layer_norm(tokens[:, 1:].mean(1), (32,)))
    torch.testing.assert_close(tiny(out_type='pooled', pooling='cls')(img)[0], tokens[:, 0])


def test_autocast_runs_attention_in_its_dtype():
    model = tiny(rel_pos='shared', out_type='tokens')
    img = torch.randn(1, 3, 32, 32)
    expected = model(img)[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        actual = model(img)[0]
    torch.testing.assert_close(actual.float(), expected, rtol=0.1, atol=0.1 * expected.abs().max().item())


def test_start_weights_follow_the_paper():
    torch.manual_seed(0)
    model = BEiT(img_size=32, patch_size=8, embed_dims=128, num_layers=4, num_heads=4)
    model.init_weights()
    for depth, layer in enumerate(model.layers, start=1):
        # A normal of deviation 0.02 cut at +-2 (absolute, as in timm and the official code) is practically uncut.
        assert layer.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.attn.proj.weight.std().item() == pytest.approx(0.02 / (2 * depth) ** 0.5, rel=0.05)
        assert layer.ffn.layers[1].weight.std().item() == pytest.approx(0.02 / (2 * depth) ** 0.5, rel=0.05)
        assert not layer.attn.relative_position_bias_table.any()
        assert (layer.gamma_1 == 0.1).all()


def test_depth_of_every_parameter():
    model = tiny(rel_pos='shared', use_abs_pos=True, use_mask_token=True, final_norm=True)
    depths = {name: model.layer_id(name) for name, _ in model.named_parameters()}
    assert {n for n, d in depths.items() if d == 0} == {
        'cls_token', 'mask_token', 'pos_embed', 'patch_embed.projection.weight', 'patch_embed.projection.bias',
    }  # fmt: skip
    assert {n for n, d in depths.items() if d == 3} == {
        'ln1.weight', 'ln1.bias', 'rel_pos_bias.relative_position_bias_table',
    }  # fmt: skip
    assert depths['layers.0.gamma_1'] == 1
    assert depths['layers.1.attn.qkv.weight'] == 2
    assert model.no_weight_decay() == {
        'cls_token', 'mask_token', 'pos_embed', 'rel_pos_bias.relative_position_bias_table',
    }  # fmt: skip


def test_train_and_eval_return_the_model():
    model = tiny()
    assert model.train() is model
    assert model.eval() is model


@pytest.mark.parametrize(('kwargs', 'message'), [
    (dict(embed_dims=30), r'embed_dims=30 is not divisible by num_heads=4'),
    (dict(out_indices=(1, 2)), r'out_indices=\(1, 2\) does not fit num_layers=2: use indices 0..1'),
    (dict(img_size=33), r'33x33 pixels is not a multiple of the patch size 8: pad it to 40x40'),
    (dict(rel_pos='both'), r"rel_pos='both' is unknown: choose one of layer, shared, none"),
    (dict(out_type='map'), r"out_type='map' is unknown"),
    (dict(pretrained='a.pth', init_cfg=dict(type='Pretrained', checkpoint='b.pth')), r'either pretrained or init_cfg'),
])  # fmt: skip
def test_unusable_arguments_are_one_sentence(kwargs, message):
    with pytest.raises(InputError, match=message):
        BEiT(**{**TINY, **kwargs})


def test_input_that_is_no_multiple_of_the_patch_size():
    with pytest.raises(InputError, match='32x20 pixels is not a multiple of the patch size 8: pad it to 32x24'):
        tiny()(torch.randn(1, 3, 32, 20))


def test_bias_of_the_backbone_is_the_tables():
    model = tiny()
    attn = model.layers[0].attn
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    blocks, cls_rows = attn._kept[1]
    torch.testing.assert_close(blocks, bias_blocks(attn.relative_position_bias_table, 4, 4))
    torch.testing.assert_close(cls_rows, attn.relative_position_bias_table[-3:])
