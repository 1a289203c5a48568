"""Every tokenizer and pre-training config: its header, its recipe's numbers, that it builds and that tools take it."""

import ast
from pathlib import Path

import mmengine.runner  # noqa: F401  registers everything that a runner names
import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper

from mmseg_beit.apis.tool_config import training_config
from mmseg_beit.registry import DATASETS, METRICS, MODELS, TRANSFORMS

CONFIG_DIR = Path(__file__).parents[2] / 'configs'
TOKENIZERS = sorted((CONFIG_DIR / 'tokenizer').glob('*.py'))
PRETRAINING = sorted((CONFIG_DIR / 'pretraining').glob('*.py'))
CONFIGS = TOKENIZERS + PRETRAINING
RECIPES = {  # epochs, beta2, drop path, layer scale, early layer, exactly 75, second view
    'beit_base_in1k_800e': (800, 0.999, 0.1, 0.1, None, False, 112),
    'beit_base_in22k_150e': (150, 0.999, 0.1, 0.1, None, False, 112),
    'beit_large_in1k_800e': (800, 0.999, 0.1, 1e-5, None, False, 112),
    'beit_large_in22k_150e': (150, 0.999, 0.1, 1e-5, None, False, 112),
    'beitv2_base_in1k_1600e': (1600, 0.999, 0.1, 0.1, 9, True, 224),
    'beitv2_base_in1k_300e': (300, 0.98, 0.0, 0.1, 9, True, 224),
}
MILLIONS = {'beit_base': 92.0, 'beit_large': 312, 'beitv2_base': 106.2}  # with head and neck


def stem(path):
    return path.stem


@pytest.mark.parametrize('path', CONFIGS, ids=stem)
def test_header_says_what_a_reader_needs(path):
    header = ast.get_docstring(ast.parse(path.read_text()))
    words = [line.split(' ')[0] for line in header.splitlines()]
    for word in ('Source', 'Expected', 'Hardware', 'Command', 'Start', 'Input'):
        assert word in words, f'{path.name}: no line begins with {word}'
    assert f'configs/{path.parent.name}/{path.name}' in header


@pytest.mark.parametrize('path', CONFIGS, ids=stem)
def test_tools_take_it(path, tmp_path):
    config = training_config(
        str(path), options={'optim_wrapper.optimizer.lr': 1e-4}, work_dir=str(tmp_path), amp='bf16'
    )
    assert config.custom_imports.imports == ['mmseg_beit.models.pretraining']


@pytest.mark.parametrize('path', CONFIGS, ids=stem)
def test_builds_at_full_size(path):
    config = Config.fromfile(path)
    with torch.device('meta'):
        if 'Timm' in config.model.get('teacher', {}).get('type', ''):
            pytest.importorskip('timm')
        model = MODELS.build(config.model)
    for loader in ('train_dataloader', 'val_dataloader'):
        for transform in (config.get(loader) or {}).get('dataset', {}).get('pipeline', []):
            TRANSFORMS.build(transform)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
    for name, millions in MILLIONS.items():
        if path.stem.startswith(f'{name}_in'):
            assert trained == pytest.approx(millions, rel=0.005)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    assert sum(len(group['params']) for group in wrapper.optimizer.param_groups) == sum(
        p.requires_grad for p in model.parameters()
    )
    if evaluator := config.get('val_evaluator'):
        METRICS.build(evaluator)


def test_every_official_pretraining_config_has_a_recipe():
    assert {path.stem for path in PRETRAINING if 'tiny' not in path.stem} == set(RECIPES)


@pytest.mark.parametrize('name', RECIPES)
def test_numbers_are_the_recipe(name):
    config = Config.fromfile(CONFIG_DIR / 'pretraining' / f'{name}.py')
    epochs, beta2, drop_path, layer_scale, early, exact, second = RECIPES[name]
    optimizer, backbone = config.optim_wrapper.optimizer, config.model.backbone
    assert (optimizer.lr, optimizer.betas, optimizer.weight_decay) == (1.5e-3, (0.9, beta2), 0.05)
    assert config.optim_wrapper.clip_grad.max_norm == 3.0
    warmup, cosine = config.param_scheduler
    assert config.train_cfg.max_epochs == cosine.end == epochs
    assert (warmup.end, cosine.begin, cosine.eta_min) == (10, 10, 1e-5)
    assert (backbone.drop_path_rate, backbone.init_values) == (drop_path, layer_scale)
    neck = config.model.get('neck')
    assert (neck and (neck.early_layer, neck.num_layers, neck.drop_path_rate)) == (early and (early, 2, drop_path))
    assert config.model.head.num_embed == config.model.tokenizer.num_codes == 8192
    *_, views, mask, _ = config.train_dataloader.dataset.pipeline
    assert (mask.num_masked, mask.min_block, mask.min_aspect, mask.get('exact', False)) == (75, 16, 0.3, exact)
    assert (views.size, views.second_size) == (224, second)
    assert views.second_interpolation == ('bicubic' if early else 'lanczos')
    assert 8 * config.train_dataloader.batch_size == 2048


@pytest.mark.parametrize('name, out_dims', [('clip', 512), ('dino', 768)])
def test_tokenizer_numbers_are_the_recipe(name, out_dims):
    pytest.importorskip('timm')
    config = Config.fromfile(CONFIG_DIR / 'tokenizer' / f'vqkd_base_{name}.py')
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.betas, optimizer.weight_decay) == (pytest.approx(2e-4), (0.9, 0.99), 1e-4)
    assert config.train_cfg.max_epochs == 100
    with torch.device('meta'):
        model = MODELS.build(config.model)
    assert model.teacher.out_dims == out_dims
    assert model.quantize.embedding.weight.shape == (8192, 32)
    assert (model.encoder.num_layers, model.decoder.num_layers, model.quantize.decay) == (12, 3, 0.99)
    assert model.encoder.grid == model.decoder.grid == (14, 14)


@pytest.mark.parametrize('path', [path for path in CONFIGS if 'tiny' in path.stem], ids=stem)
def test_tiny_backbones_are_segmentations(path):
    """What the tiny runs end with fits the tiny segmentation model."""
    config = Config.fromfile(path)
    backbone = config.model.get('backbone')
    if backbone is None:
        assert config.model.num_codes == 256
        return
    segmentation = Config.fromfile(CONFIG_DIR / 'beit_tiny_upernet_scenes.py').model.backbone
    for field in ('embed_dims', 'num_layers', 'num_heads', 'patch_size', 'mlp_ratio', 'qv_bias'):
        assert backbone[field] == segmentation[field]


def test_data_set_is_registered():
    assert DATASETS.get('UnlabelledImages') is not None
