"""The classification configs: headers, the recipes' numbers, schedules, full-size models."""

import ast
import math
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.dataset import Compose
from mmengine.optim.scheduler import CosineAnnealingLR, LinearLR
from mmengine.registry import DefaultScope

from mmseg_beit.apis.linear_probe import ProbeSettings
from mmseg_beit.models.backbones import BEiT
from mmseg_beit.registry import MODELS

CONFIG_DIR = Path(__file__).parents[2] / 'configs' / 'classification'
CONFIGS = sorted(CONFIG_DIR.glob('*.py'))

# Official commands: start, lr, weight decay, epochs, warm-up, layer decay, drop path, mixup, images per step, pixels.
RECIPES = {
    'beit_base_in1k_pt22k': ('beit_base_patch16_224_pt22k', 4e-3, 0.05, 100, 20, 0.65, 0.1, True, 1024, 224),
    'beit_large_in1k_pt22k': ('beit_large_patch16_224_pt22k', 1e-3, 0.05, 50, 5, 0.75, 0.2, True, 1024, 224),
    'beit_base_in1k_ft22k': ('beit_base_patch16_224_pt22k_ft22k', 2e-5, 1e-8, 30, 5, 0.85, 0.1, False, 512, 224),
    'beit_large_in1k_ft22k': ('beit_large_patch16_224_pt22k_ft22k', 2e-5, 1e-8, 30, 5, 0.9, 0.4, False, 512, 224),
    'beit_base_in1k_384_ft22k': ('beit_base_patch16_224_pt22k_ft22k', 2e-5, 1e-8, 30, 5, 0.85, 0.1, False, 512, 384),
    'beit_large_in1k_384_ft22k': ('beit_large_patch16_224_pt22k_ft22k', 2e-5, 1e-8, 30, 5, 0.9, 0.4, False, 512, 384),
    'beitv2_base_in1k_pt1k': ('beitv2_base_patch16_224_pt1k', 5e-4, 0.05, 100, 20, 0.6, 0.2, True, 1024, 224),
    'beitv2_base_in1k_pt1k_300e': (
        'beitv2_base_patch16_224_pt1k_300e',
        5e-4,
        0.05,
        100,
        20,
        0.65,
        0.1,
        True,
        1024,
        224,
    ),
    'beitv2_large_in1k_pt1k': ('beitv2_large_patch16_224_pt1k', 2e-4, 0.05, 50, 5, 0.8, 0.2, True, 1024, 224),
    'beitv2_large_in1k_pt1k_300e': ('beitv2_large_patch16_224_pt1k_300e', 5e-4, 0.05, 50, 5, 0.8, 0.2, True, 1024, 224),
    'beitv2_base_in1k_ft21k': ('beitv2_base_patch16_224_pt1k_ft21k', 5e-5, 0.05, 30, 20, 0.75, 0.1, False, 1024, 224),
    'beitv2_large_in1k_ft21k': ('beitv2_large_patch16_224_pt1k_ft21k', 7e-5, 0.05, 20, 5, 0.8, 0.25, False, 1024, 224),
    'beitv2_base_in21k_pt1k': ('beitv2_base_patch16_224_pt1k', 6e-4, 0.05, 90, 20, 0.75, 0.1, True, 4096, 224),
    'beitv2_large_in21k_pt1k': ('beitv2_large_patch16_224_pt1k', 6e-4, 0.05, 90, 20, 0.75, 0.2, True, 4096, 224),
}


def stem(path):
    return path.stem


@pytest.fixture(autouse=True)
def our_scope():
    with DefaultScope.overwrite_default_scope('mmseg_beit'):
        yield


@pytest.mark.parametrize('path', CONFIGS, ids=stem)
def test_header_says_what_a_reader_needs(path):
    header = ast.get_docstring(ast.parse(path.read_text()))
    words = [line.split(' ')[0] for line in header.splitlines()]
    for word in ('Source', 'Expected', 'Hardware', 'Command', 'Start', 'Input'):
        assert word in words, f'{path.name}: no line begins with {word}'
    assert f'configs/classification/{path.name}' in header


def test_every_config_of_a_recipe_is_listed():
    assert {path.stem for path in CONFIGS if not path.stem.endswith('_linear') and 'tiny' not in path.stem} == set(
        RECIPES
    )


@pytest.mark.parametrize('path', [path for path in CONFIGS if path.stem.endswith('_linear')], ids=stem)
def test_linear_probes_are_the_papers(path):
    recipe = Config.fromfile(path).linear_probe.to_dict()
    assert 'both' in recipe.pop('features')
    assert ProbeSettings(**recipe) == ProbeSettings(epochs=100, lr=4e-3, weight_decay=1e-4, batch_size=1024)


@pytest.mark.parametrize('name', RECIPES)
def test_numbers_are_the_recipe(name):
    cfg = Config.fromfile(CONFIG_DIR / f'{name}.py')
    start, lr, weight_decay, epochs, warmup, layer_decay, drop_path, mixup, step, pixels = RECIPES[name]
    optimizer = dict(type='AdamW', lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay, fused=True)
    assert cfg.optim_wrapper.optimizer.to_dict() == optimizer
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == layer_decay
    assert cfg.train_cfg.max_epochs == epochs
    assert [(s.begin, s.end) for s in cfg.param_scheduler] == [(0, warmup), (warmup, epochs)]
    assert cfg.param_scheduler[1].eta_min_ratio * lr == pytest.approx(1e-6)
    backbone = cfg.model.backbone
    assert backbone.init_cfg.checkpoint == f'pretrain/{start}.pth'
    assert (backbone.drop_path_rate, backbone.img_size, backbone.norm_cfg.eps) == (drop_path, pixels, 1e-6)
    assert (backbone.out_type, backbone.pooling) == ('pooled', 'mean')
    augments = [(a.type, a.alpha) for a in cfg.model.train_cfg.augments] if cfg.model.train_cfg else []
    assert augments == ([('Mixup', 0.8), ('CutMix', 1.0)] if mixup else [])
    gpus = 32 if 'in21k' in name else 8
    assert gpus * cfg.train_dataloader.batch_size * cfg.optim_wrapper.get('accumulative_counts', 1) == step
    assert f'= {step} per step, {epochs} epochs' in (CONFIG_DIR / f'{name}.py').read_text()


@pytest.mark.parametrize('name', RECIPES)
def test_pictures_are_prepared_as_the_recipe_says(name):
    cfg = Config.fromfile(CONFIG_DIR / f'{name}.py')
    pixels = RECIPES[name][-1]
    steps = {step.type.removeprefix('mmpretrain.'): step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['RandomResizedCrop'].scale == pixels
    assert steps['RandAugment'].to_dict() | dict(hparams=None) == dict(
        type='RandAugment', _scope_='mmpretrain', policies='timm_increasing', num_policies=2, total_level=10,
        magnitude_level=9, magnitude_std=0.5, hparams=None,
    )  # fmt: skip
    erasing, preprocessor = steps['RandomErasing'], cfg.model.data_preprocessor
    assert erasing.erase_prob == 0.25
    # The fill is noise of the normalisation's mean and deviation; the pipeline works in BGR.
    assert (erasing.fill_color[::-1], erasing.fill_std[::-1]) == (preprocessor.mean, preprocessor.std)
    assert preprocessor.mean == ([123.675, 116.28, 103.53] if 'v2' in name else [127.5] * 3)
    assert cfg.model.head.loss.label_smooth_val == 0.1
    if 'in21k' not in name:
        resize, crop = cfg.val_dataloader.dataset.pipeline[1:3]
        assert (resize.scale, crop.crop_size) == ({224: 256, 384: 384}[pixels], pixels)


@pytest.mark.parametrize('path', CONFIGS, ids=stem)
def test_full_size_builds(path):
    cfg = Config.fromfile(path)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert type(model.backbone) is BEiT
    Compose(cfg.train_dataloader.dataset.pipeline)
    if 'in1k' in path.stem:  # the official classifiers
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        assert millions == pytest.approx(304.5 if 'large' in path.stem else 86.6, abs=0.6)


def test_schedule_is_the_official_curve():
    """Warm-up from 0 over the first steps, then a cosine that ends short of 1e-6, each parameter group by its share."""
    cfg = Config.fromfile(CONFIG_DIR / 'beitv2_base_in1k_pt1k.py')
    steps, lr, share = 3, 5e-4, 0.6**13
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [dict(params=[parameters[0]], lr=lr), dict(params=[parameters[1]], lr=lr * share)]
    optimizer = torch.optim.AdamW(groups)
    schedulers = []
    for kind, settings in zip((LinearLR, CosineAnnealingLR), cfg.param_scheduler, strict=True):
        settings = {name: value for name, value in settings.items() if name not in ('type', 'convert_to_iter_based')}
        schedulers.append(kind.build_iter_from_epoch(optimizer, **settings, epoch_length=steps))
    warm, total = 20 * steps, 100 * steps
    for step in range(total):
        if step < warm:
            expected = lr * step / (warm - 1)
        else:
            expected = 1e-6 + 0.5 * (lr - 1e-6) * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        found = [group['lr'] for group in optimizer.param_groups]
        assert found == pytest.approx([expected, expected * share], rel=1e-4, abs=2e-9), step
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_no_two_configs_write_to_one_folder():
    """A config of the same name in another folder says where its runs go, or --resume would meet the other's."""
    stems = [path.stem for path in CONFIG_DIR.parent.rglob('*.py') if '_base_' not in path.parts]
    shared = [path for path in CONFIG_DIR.parent.rglob('*.py') if stems.count(path.stem) > 1]
    assert shared
    folders = [Config.fromfile(path).get('work_dir') or f'work_dirs/{path.stem}' for path in shared]
    assert len(set(folders)) == len(folders), folders
