"""Tiny networks of every pre-training stage."""

import pytest
from mmengine.registry import DefaultScope

import mmseg_beit.models.pretraining  # noqa: F401  registers the stages
from mmseg_beit.registry import MODELS

LN = dict(type='LN', eps=1e-6)


@pytest.fixture(autouse=True)
def our_scope():
    """Types by plain names are ours first, as `default_scope` makes it in a run."""
    with DefaultScope.overwrite_default_scope('mmseg_beit'):
        yield


@pytest.fixture
def backbone_config():
    """A masked image modelling backbone of depth 4 and width 32 for 64 pixels in a 4x4 grid, v1's by default."""

    def make(**changes):
        config = dict(
            type='BEiT', img_size=64, embed_dims=32, num_layers=4, num_heads=2, norm_cfg=LN, init_values=0.1,
            rel_pos='shared', use_mask_token=True, final_norm=True, out_indices=(3,), out_type='tokens',
        )  # fmt: skip
        return config | changes

    return make


@pytest.fixture
def encoder_config():
    """A tokenizer's encoder of depth 2 and width 32 for 64 pixels."""
    return dict(
        img_size=64, embed_dims=32, num_layers=2, num_heads=2, norm_cfg=LN, use_abs_pos=True, rel_pos='none',
        init_values=None, final_norm=True,
    )  # fmt: skip


@pytest.fixture
def vqkd_config(encoder_config):
    """A VQ-KD with 16 codes of 8 numbers and a random teacher; `trains=False` for one that only tokenizes."""

    def make(trains=True, **changes):
        decoder = {key: value for key, value in encoder_config.items() if key != 'img_size'} | dict(num_layers=1)
        teacher = dict(type='FeatureTeacher', backbone=dict(type='BEiT', **encoder_config), out_dims=32)
        parts = dict(decoder=decoder, teacher=teacher) if trains else {}
        return dict(type='VQKD', encoder=encoder_config, num_codes=16, code_dims=8, **parts) | changes

    return make


@pytest.fixture
def mim(backbone_config):
    """Builds v1's model or, with version=2, v2's; the tokenizer is a small dVAE encoder of random weights."""

    def make(version=1, tokenizer=None, num_embed=32, **changes):
        tokenizer = tokenizer or dict(type='DalleEncoder', hidden_dims=8, blocks_per_group=1, num_codes=32)
        neck = None
        backbone = backbone_config()
        if version == 2:
            backbone = backbone_config(final_norm=False, out_indices=(2, 3))
            neck = dict(type='BEiTV2Neck', embed_dims=32, num_heads=2, depth=4, early_layer=3, num_layers=2)
        config = dict(
            type='MaskedImageModeling', backbone=backbone, neck=neck, tokenizer=tokenizer,
            head=dict(type=f'BEiTV{version}Head', embed_dims=32, num_embed=num_embed),
        )  # fmt: skip
        return MODELS.build(config | changes)

    return make
