"""Config files and command-line options: what is accepted, and the sentence for what is not."""

import pytest

from mmseg_beit.apis.config import apply_options, builder_sentences, check_config, check_work_dir, load_config
from mmseg_beit.errors import InputError, MissingFileError
from mmseg_beit.registry import MODELS

CONFIG = """
default_scope = 'mmseg_beit'
crop_size = (32, 32)
norm_cfg = dict(type='BN')
pipeline = [dict(type='LoadImageFromFile'), dict(type='RandomCrop', crop_size=crop_size)]
train_dataloader = dict(batch_size=2, dataset=dict(type='ADE20KDataset', data_root='data/ade', pipeline=pipeline))
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=crop_size),
    backbone=dict(type='BEiT', patch_size=16, embed_dims=32, num_heads=4),
    decode_head=dict(type='FCNHead', norm_cfg=norm_cfg, num_classes=150),
    test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(16, 16)))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
default_hooks = dict(logger=dict(type='LoggerHook'))
load_from = None
randomness = dict(seed=0)
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / 'beit.py').write_text(CONFIG)
    return tmp_path / 'beit.py'


@pytest.mark.parametrize(
    'options',
    [
        {'optim_wrapper.optimizer.lr': 1.0},
        {'model.backbone.drop_path_rate': 0.2},  # an argument of the class, not in the config
        {'model.decode_head.align_corners': True},  # of a base class
        {'optim_wrapper.accumulative_counts': 2},
        {'optim_wrapper.constructor': 'LayerDecayOptimizerConstructor'},
        {'optim_wrapper.clip_grad': {'max_norm': 1.0}},
        {'optim_wrapper.optimizer.fused': True},
        {'train_dataloader.num_workers': 1},
        {'train_dataloader.dataset.pipeline.1.cat_max_ratio': 0.5},
        {'train_dataloader.dataset.indices': 4},
        {'randomness.seed': 1},
        {'resume': True},
        {'load_from': 'a.pth'},
        {'work_dir': 'w'},
        {'default_hooks.logger.interval': 5},
        {'default_hooks.ema.type': 'EMAHook', 'default_hooks.ema.momentum': 0.1},
        {'default_hooks.non_finite_loss': None},
        {'find_unused_parameters': True},
        {'model.test_cfg.mode': 'whole'},
    ],
)
def test_fields_that_exist_or_that_the_class_takes_can_be_set(path, options):
    config = load_config(path, options)
    for name, value in options.items():
        node = config
        for key in name.split('.'):
            node = node[int(key)] if key.isdigit() else node[key]
        assert node == value


@pytest.mark.parametrize(
    ('name', 'hint'),
    [
        ('modle.backbone.embed_dims', "did you mean 'model'"),
        ('model.backbone.embed_dim', "did you mean 'embed_dims'"),
        ('model.backbone.embed_dims.x', 'has no fields'),
        ('train_dataloader.batch_sise', "did you mean 'batch_size'"),
        ('train_dataloader.dataset.pipeline.7.prob', 'is a list of 2'),
        ('train_dataloader.dataset.pipeline.first.prob', 'is a list of 2'),
        ('train_dataloader.dataset.pipeline.1.crop', "did you mean 'crop_size'"),
        ('data_root', 'did you mean train_dataloader.dataset.data_root'),
        ('randomness.sed', "did you mean 'seed'"),
        ('optim_wrapper.optimizer.learning_rate', 'it may have'),
        ('default_hooks.log.interval', 'has no field'),
        ('load_from.x', 'has no fields'),
        ('model.test_cfg.stridee', "did you mean 'stride'"),
    ],
)
def test_a_name_of_no_field_is_refused_with_the_nearest(path, name, hint):
    with pytest.raises(InputError) as error:
        load_config(path, {name: 1})
    assert str(error.value).startswith(f'--cfg-options {name}: ')
    assert hint in str(error.value)


@pytest.mark.parametrize(
    ('name', 'instead'),
    [
        ('crop_size', 'model.data_preprocessor.size'),
        ('pipeline.1.crop_size', 'train_dataloader.dataset.pipeline.1.crop_size'),
        ('norm_cfg.type', 'model.decode_head.norm_cfg.type'),
    ],
)
def test_a_variable_that_was_used_up_is_refused_with_the_field_to_set(path, name, instead):
    with pytest.raises(InputError, match='is a variable of the config file') as error:
        load_config(path, {name: (16, 16)})
    assert instead in str(error.value)


def test_a_missing_config_names_the_nearest(path):
    with pytest.raises(MissingFileError, match=r'beit\.py\?'):
        load_config(path.with_name('beitt.py'))


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('model = dict(', 'no valid Python'),
        ('model = nothing', 'NameError'),
        ("_base_ = ['./absent.py']", '_base_'),
        ('x = 1', 'has no field model'),
        ('model = 1', 'has no field model'),
    ],
)
def test_a_config_that_cannot_be_read_says_why(path, text, reason):
    path.write_text(text)
    with pytest.raises(InputError, match=reason) as error:
        load_config(path)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('options', 'field', 'remedy'),
    [
        ({'model.data_preprocessor.size': (40, 32)}, 'model.data_preprocessor.size', '(32, 32)'),
        ({'model.test_cfg.crop_size': (33, 33)}, 'model.test_cfg.crop_size', '(32, 32)'),
        ({'train_dataloader.dataset.pipeline.1.crop_size': (15, 32)}, 'pipeline.1.crop_size', '(16, 32)'),
        ({'model.backbone.num_heads': 3}, 'num_heads=3', 'divisors of 32'),
    ],
)
def test_sizes_that_cannot_work_are_found_before_building(path, options, field, remedy):
    with pytest.raises(InputError) as error:
        check_config(load_config(path, options))
    assert field in str(error.value) and remedy in str(error.value)


def test_a_sound_config_passes(path):
    config = load_config(path)
    check_config(config)
    assert config.default_scope == 'mmseg_beit'


def test_apply_options_changes_in_place(path):
    config = load_config(path)
    apply_options(config, {'train_dataloader.dataset.pipeline.1.crop_size': (64, 64)})
    assert config.train_dataloader.dataset.pipeline[1].crop_size == (64, 64)


def test_a_work_dir_below_a_file_is_refused(path):
    with pytest.raises(InputError, match='cannot be written'):
        check_work_dir(path / 'work')


def test_an_unknown_type_is_one_sentence():
    with pytest.raises(InputError, match=r"type='BEiTT' .*did you mean 'BEiT'"), builder_sentences():
        MODELS.build(dict(type='BEiTT'))


def test_an_unknown_argument_is_one_sentence():
    with pytest.raises(InputError, match="BEiT takes no argument 'embed_dim'"), builder_sentences():
        MODELS.build(dict(type='BEiT', embed_dim=3))
