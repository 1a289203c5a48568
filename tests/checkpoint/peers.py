"""Tiny models of every family, every parameter random and non-zero, and names that are made independently of ours."""

import torch
from torch import nn

WIDTH, HEADS, PATCH = 32, 2, 8


def randomise(model: nn.Module) -> nn.Module:
    """Fills all parameters and running statistics; evaluation mode."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + 0.05)
        for name, buffer in model.named_buffers():
            if name.endswith('running_var'):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
            elif name.endswith('running_mean'):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.2)
            elif name.endswith('num_batches_tracked'):
                buffer.fill_(7)
    # mmseg's eval() returns None.
    model.eval()
    return model


def beit(depth=2, img_size=32, norm_eps=1e-6, **kwargs):
    """Our backbone."""
    from mmseg_beit.models.backbones import BEiT

    options = dict(
        img_size=img_size,
        patch_size=PATCH,
        embed_dims=WIDTH,
        num_layers=depth,
        num_heads=HEADS,
        norm_cfg=dict(type='LN', eps=norm_eps),
    )
    return randomise(BEiT(**{**options, **kwargs}))


def segmentor_config(depth=4, img_size=32, num_classes=5, out_indices=(0, 1, 2, 3), norm_eps=1e-6, scope=''):
    """Config of a UPerNet segmentor; the same for us and for mmseg (scope ``mmseg.``)."""
    norm_cfg = dict(type='BN', requires_grad=True)
    heads = dict(num_classes=num_classes, norm_cfg=norm_cfg, align_corners=False, dropout_ratio=0.1)
    loss = dict(type=f'{scope}CrossEntropyLoss')
    return dict(
        type=f'{scope}EncoderDecoder',
        backbone=dict(
            type=f'{scope}BEiT',
            img_size=img_size,
            patch_size=PATCH,
            embed_dims=WIDTH,
            num_layers=depth,
            num_heads=HEADS,
            mlp_ratio=4,
            out_indices=out_indices,
            norm_cfg=dict(type='LN', eps=norm_eps),
        ),
        neck=dict(type=f'{scope}Feature2Pyramid', embed_dim=WIDTH, rescales=[4, 2, 1, 0.5], norm_cfg=norm_cfg),
        decode_head=dict(
            type=f'{scope}UPerHead',
            in_channels=[WIDTH] * 4,
            in_index=[0, 1, 2, 3],
            pool_scales=(1, 2, 3, 6),
            channels=WIDTH,
            loss_decode=loss,
            **heads,
        ),
        auxiliary_head=dict(
            type=f'{scope}FCNHead',
            in_channels=WIDTH,
            in_index=2,
            channels=8,
            num_convs=1,
            concat_input=False,
            loss_decode=loss,
            **heads,
        ),
        test_cfg=dict(mode='whole'),
    )


def segmentor(**kwargs):
    """Our segmentor."""
    from mmseg_beit.registry import MODELS

    return randomise(MODELS.build(segmentor_config(**kwargs)))


def mmseg_segmentor(**kwargs):
    """mmsegmentation's own segmentor."""
    import mmseg.models  # noqa: F401
    from mmseg.registry import MODELS

    return randomise(MODELS.build(segmentor_config(**kwargs)))


def timm_beit(depth=2, img_size=32, **kwargs):
    """timm's ``Beit``."""
    from timm.models.beit import Beit

    options = dict(
        img_size=img_size,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=depth,
        num_heads=HEADS,
        num_classes=7,
        init_values=0.1,
        use_abs_pos_emb=False,
        use_rel_pos_bias=True,
    )
    return randomise(Beit(**{**options, **kwargs}))


def hf_config(depth=4, img_size=32, **kwargs):
    """Config of a tiny transformers BEiT."""
    from transformers import BeitConfig

    options = dict(
        hidden_size=WIDTH,
        num_hidden_layers=depth,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        image_size=img_size,
        patch_size=PATCH,
        use_relative_position_bias=True,
        layer_norm_eps=1e-6,
        num_labels=5,
        auxiliary_channels=8,
        vocab_size=11,
    )
    return BeitConfig(**{**options, **kwargs})


def official_backbone(depth=2, grid=(4, 4), shared=False, prefix=''):
    """Tensors under the official code's names, written out from its modules, not by way of our templates."""
    rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3
    tokens = grid[0] * grid[1] + 1
    shapes = {'cls_token': (1, 1, WIDTH), 'patch_embed.proj.weight': (WIDTH, 3, PATCH, PATCH)}
    shapes['patch_embed.proj.bias'] = (WIDTH,)
    if shared:
        shapes['rel_pos_bias.relative_position_bias_table'] = (rows, HEADS)
    for i in range(depth):
        shapes.update(_official_block(f'blocks.{i}.', None if shared else rows))
    generator = torch.Generator().manual_seed(2)
    tensors = {prefix + n: torch.randn(s, generator=generator) * 0.2 + 0.05 for n, s in shapes.items()}
    holders = ['rel_pos_bias.'] if shared else [f'blocks.{i}.attn.' for i in range(depth)]
    for holder in holders:
        tensors[f'{prefix}{holder}relative_position_index'] = torch.zeros(tokens, tokens, dtype=torch.int64)
    return tensors


def _official_block(block, rows):
    shapes = {
        'norm1.weight': (WIDTH,),
        'norm1.bias': (WIDTH,),
        'attn.q_bias': (WIDTH,),
        'attn.v_bias': (WIDTH,),
        'attn.qkv.weight': (3 * WIDTH, WIDTH),
        'attn.proj.weight': (WIDTH, WIDTH),
        'attn.proj.bias': (WIDTH,),
        'norm2.weight': (WIDTH,),
        'norm2.bias': (WIDTH,),
        'mlp.fc1.weight': (4 * WIDTH, WIDTH),
        'mlp.fc1.bias': (4 * WIDTH,),
        'mlp.fc2.weight': (WIDTH, 4 * WIDTH),
        'mlp.fc2.bias': (WIDTH,),
        'gamma_1': (WIDTH,),
        'gamma_2': (WIDTH,),
    }
    if rows is not None:
        shapes['attn.relative_position_bias_table'] = (rows, HEADS)
    return {block + name: shape for name, shape in shapes.items()}


def official_pretraining(depth=2, v2=False):
    """A self-supervised checkpoint: shared table, mask token, output layer; v2's class token head on top."""
    generator = torch.Generator().manual_seed(3)

    def rand(*shape):
        return torch.randn(shape, generator=generator)

    tensors = official_backbone(depth, shared=True)
    tensors.update({'mask_token': rand(1, 1, WIDTH), 'norm.weight': rand(WIDTH), 'norm.bias': rand(WIDTH)})
    tensors.update({'lm_head.weight': rand(11, WIDTH), 'lm_head.bias': rand(11)})
    if v2:
        for i in range(2):
            tensors.update({n: rand(*s) for n, s in _official_block(f'cls_pt_layers.{i}.', None).items()})
    return tensors


def official_segmentation(state_dict):
    """A segmentor's tensors in mmseg's names under those of the official, mmseg 0.x, code; renamed by hand."""
    out = {}
    for name, tensor in state_dict.items():
        if name.startswith('backbone.layers.'):
            name = name.replace('backbone.layers.', 'backbone.blocks.').replace('.ln1.', '.norm1.')
            name = name.replace('.ln2.', '.norm2.').replace('.ffn.layers.0.0.', '.mlp.fc1.')
            name = name.replace('.ffn.layers.1.', '.mlp.fc2.')
        name = name.replace('patch_embed.projection.', 'patch_embed.proj.')
        name = name.replace('neck.upsample_4x.', 'backbone.fpn1.').replace('neck.upsample_2x.', 'backbone.fpn2.')
        out[name] = tensor
    return out
