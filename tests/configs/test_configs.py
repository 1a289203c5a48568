"""Every segmentation config: its header, its recipe's numbers, that it builds, and that a small copy of it trains."""

import ast
from pathlib import Path

import cv2
import mmengine.runner  # noqa: F401  registers everything that a runner names
import mmseg
import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import WEIGHT_INITIALIZERS, DefaultScope, root
from mmengine.registry.registry import Registry
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import mmseg_beit.registry
from mmseg_beit.models.backbones import BEiT
from mmseg_beit.registry import DATASETS, MODELS, TRANSFORMS

CONFIG_DIR = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(CONFIG_DIR.glob('*.py'))
ADE20K = [path for path in CONFIGS if 'ade20k' in path.stem]
MMSEG_CONFIGS = sorted((Path(mmseg.__path__[0]) / '.mim' / 'configs' / 'beit').glob('*.py'))


def stem(path):
    return path.stem


@pytest.fixture(autouse=True)
def our_scope():
    """Types by plain names are ours first, as `default_scope` makes it in a run."""
    with DefaultScope.overwrite_default_scope('mmseg_beit'):
        yield


# --- the page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('path', CONFIGS, ids=stem)
def test_header_says_what_a_reader_needs(path):
    header = ast.get_docstring(ast.parse(path.read_text()))
    words = [line.split(' ')[0] for line in header.splitlines()]
    for word in ('Source', 'Expected', 'Hardware', 'Command', 'Start', 'Input'):
        assert word in words, f'{path.name}: no line begins with {word}'
    assert f'configs/{path.name}' in header


def inheritance_depth(path):
    assigned = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    bases = [node.value for node in assigned if getattr(node.targets[0], 'id', '') == '_base_']
    names = ast.literal_eval(bases[0]) if bases else []
    names = [names] if isinstance(names, str) else names
    return max((1 + inheritance_depth(path.parent / name) for name in names), default=0)


@pytest.mark.parametrize('path', CONFIGS, ids=stem)
def test_inherits_over_at_most_two_levels(path):
    assert inheritance_depth(path) <= 2


def types_in(node):
    if isinstance(node, dict):
        if isinstance(node.get('type'), str):
            yield node['type']
        for value in node.values():
            yield from types_in(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from types_in(value)


@pytest.mark.parametrize('path', CONFIGS, ids=stem)
def test_every_type_is_registered(path):
    ours = [r for r in vars(mmseg_beit.registry).values() if isinstance(r, Registry)]
    registries = ours + [r for r in vars(root).values() if isinstance(r, Registry)]
    assert WEIGHT_INITIALIZERS in registries
    cfg = Config.fromfile(path)
    assert cfg.default_scope == 'mmseg_beit'
    unknown = {name for name in types_in(cfg._cfg_dict.to_dict()) if not any(r.get(name) for r in registries)}
    assert not unknown


# --- the recipes, as the official configs and the paper state them --------------------------------------------------

B_INDICES, L_INDICES, SETR_INDICES = (3, 5, 7, 11), (7, 11, 15, 23), (4, 7, 9, 11)
B_PT1K = 'beit_base_patch16_224_pt1k'
RECIPES = {  # lr, layer decay, drop path, layer scale, out_indices, crop, stride, start weights
    'beit_upernet_ade20k': (3e-5, 0.9, 0.1, 0.1, B_INDICES, 512, 341, 'beit_base_patch16_224_pt22k_ft22k'),
    'beit_upernet_ade20k_ssl': (7e-4, 0.65, 0.1, 0.1, B_INDICES, 512, 341, 'beit_base_patch16_224_pt22k'),
    'beit_upernet_ade20k_640': (3e-5, 0.9, 0.1, 0.1, B_INDICES, 640, 426, 'beit_base_patch16_224_pt22k_ft22k'),
    'beit_large_upernet_ade20k': (2e-5, 0.95, 0.2, 1e-6, L_INDICES, 512, 341, 'beit_large_patch16_224_pt22k_ft22k'),
    'beit_large_upernet_ade20k_640': (2e-5, 0.95, 0.2, 1e-6, L_INDICES, 640, 426, 'beit_large_patch16_224_pt22k_ft22k'),
    'beitv2_upernet_ade20k': (5e-5, 0.85, 0.15, 0.1, B_INDICES, 512, 341, 'beitv2_base_patch16_224_pt1k_ft21k'),
    'beitv2_upernet_ade20k_ssl': (5e-5, 0.75, 0.15, 0.1, B_INDICES, 512, 341, 'beitv2_base_patch16_224_pt1k'),
    'beitv2_large_upernet_ade20k': (3e-5, 0.9, 0.2, 1e-6, L_INDICES, 512, 341, 'beitv2_large_patch16_224_pt1k_ft21k'),
    'beitv2_large_upernet_ade20k_ssl': (4e-5, 0.9, 0.2, 1e-6, L_INDICES, 512, 341, 'beitv2_large_patch16_224_pt1k'),
    'beit_setr_pup_ade20k': (1e-3, 0.65, 0.1, None, SETR_INDICES, 512, 341, f'{B_PT1K}_abspos'),
    'beit_setr_pup_ade20k_ft1k': (1e-3, 0.65, 0.1, None, SETR_INDICES, 512, 341, f'{B_PT1K}_ft1k_abspos'),
    'beit_setr_pup_relpos_ade20k': (1e-3, 0.65, 0.1, 0.1, SETR_INDICES, 512, 341, 'beit_base_patch16_224_pt22k'),
}


def test_every_ade20k_config_has_a_recipe():
    assert {path.stem for path in ADE20K} == set(RECIPES)


@pytest.mark.parametrize('path', ADE20K, ids=stem)
def test_numbers_are_the_recipe(path):
    cfg = Config.fromfile(path)
    lr, decay, drop_path, layer_scale, out_indices, crop, stride, start = RECIPES[path.stem]
    backbone, test_cfg = cfg.model.backbone, cfg.model.test_cfg
    recipe = dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.05)
    assert cfg.optim_wrapper.optimizer.to_dict() == dict(recipe, fused=True)
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == decay
    assert 'clip_grad' not in cfg.optim_wrapper
    assert (backbone.drop_path_rate, backbone.init_values) == (drop_path, layer_scale)
    assert backbone.out_indices == out_indices
    assert backbone.norm_cfg.eps == 1e-6
    assert backbone.init_cfg.checkpoint == f'pretrain/{start}.pth'
    assert backbone.img_size == cfg.model.data_preprocessor.size == (crop, crop)
    assert (test_cfg.mode, test_cfg.crop_size, test_cfg.stride) == ('slide', (crop, crop), (stride, stride))
    resize, random_crop = cfg.train_dataloader.dataset.pipeline[2:4]
    assert (resize.scale, resize.ratio_range) == ((4 * crop, crop), (0.5, 2.0))
    assert (random_crop.crop_size, random_crop.cat_max_ratio) == ((crop, crop), 0.75)


@pytest.mark.parametrize('path', ADE20K, ids=stem)
def test_sixteen_images_per_step_for_160k_steps(path):
    cfg = Config.fromfile(path)
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    assert 8 * cfg.train_dataloader.batch_size * accumulated == 16
    assert cfg.train_cfg.max_iters == 160000 * accumulated
    assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval


# --- the models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('path', ADE20K, ids=stem)
def test_full_size_has_the_published_number_of_parameters(path):
    with torch.device('meta'):
        model = MODELS.build(Config.fromfile(path).model)
    assert type(model.backbone) is BEiT
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    if 'upernet' in path.stem:
        assert millions == pytest.approx(441 if 'large' in path.stem else 163, abs=1)
    backbone = sum(p.numel() for p in model.backbone.parameters()) / 1e6
    assert backbone == pytest.approx(304 if 'large' in path.stem else 86, abs=2.5)


def shrink(cfg, width=32, classes=150):
    """A model config at depth 4 and the given width, on the CPU, without start weights."""
    model = cfg.model
    model.pop('pretrained', None)
    model.data_preprocessor.size = (64, 64)
    model.backbone.update(
        img_size=(64, 64), embed_dims=width, num_layers=4, num_heads=2, out_indices=(0, 1, 2, 3), init_cfg=None
    )
    if 'neck' in model:
        model.neck.embed_dim = width
    auxiliary = model.auxiliary_head if isinstance(model.auxiliary_head, list) else [model.auxiliary_head]
    for head in [model.decode_head, *auxiliary]:
        head.in_channels = [width] * 4 if isinstance(head.in_channels, list | tuple) else width
        head.channels = width
        head.num_classes = classes
    return model


def small_batch(classes=150):
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, classes, (1, 64, 64)))
        samples.append(sample)
    return dict(inputs=[torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)], data_samples=samples)


def loss_and_unused(model):
    """Summed loss of a small batch, and the names of the parameters that it does not reach."""
    model = revert_sync_batchnorm(model)  # SyncBN needs GPUs
    model.init_weights()
    model.train()
    data = model.data_preprocessor(small_batch(), training=True)
    losses = model.loss(data['inputs'], data['data_samples'])
    loss, _ = model.parse_losses(losses)
    loss.backward()
    return loss.item(), [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize('path', CONFIGS, ids=stem)
def test_small_copy_trains(path):
    """Every parameter gets a gradient, so distributed training needs no search for unused ones."""
    cfg = Config.fromfile(path)
    cfg.model.backbone.drop_path_rate = 0.0
    loss, unused = loss_and_unused(MODELS.build(shrink(cfg)))
    assert np.isfinite(loss)
    # 150 classes alike: log(150) = 5.01 for the head, 0.4 of it for each auxiliary head, and a little for chance.
    heads = 1 + 0.4 * (len(cfg.model.auxiliary_head) if isinstance(cfg.model.auxiliary_head, list) else 1)
    assert loss == pytest.approx(heads * np.log(150), rel=0.15)
    assert not unused


@pytest.mark.parametrize('path', CONFIGS, ids=stem)
def test_optimizer_decays_the_learning_rate_by_depth(path):
    cfg = Config.fromfile(path)
    wrapper = build_optim_wrapper(MODELS.build(shrink(cfg)), cfg.optim_wrapper)
    rates = {round(group['lr'] / cfg.optim_wrapper.optimizer.lr, 12) for group in wrapper.param_groups}
    decay = cfg.optim_wrapper.paramwise_cfg.layer_decay_rate
    assert rates == {round(decay**power, 12) for power in range(6)}  # embeddings, four layers, heads


@pytest.mark.skipif(not MMSEG_CONFIGS, reason='this distribution of mmsegmentation holds no configs')
@pytest.mark.parametrize('path', MMSEG_CONFIGS, ids=stem)
def test_mmseg_config_runs_in_our_scope(path):
    cfg = Config.fromfile(path)
    with torch.device('meta'):
        full = MODELS.build(cfg.model)
    assert type(full.backbone) is BEiT
    assert full.backbone.init_cfg['checkpoint'].endswith('_pt22k_ft22k.pth')  # from mmseg's `pretrained`
    loss, _ = loss_and_unused(MODELS.build(shrink(Config.fromfile(path))))
    assert np.isfinite(loss)


# --- multi-scale testing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(300, 400), (400, 300), (120, 1200), (900, 600)])
@pytest.mark.parametrize('name', ['beit_upernet_ade20k', 'beit_upernet_ade20k_640'])
def test_views_keep_the_short_side_at_least_the_crop(tmp_path, name, size):
    picture, mask = tmp_path / 'picture.png', tmp_path / 'mask.png'
    cv2.imwrite(str(picture), np.zeros((*size, 3), np.uint8))
    cv2.imwrite(str(mask), np.ones(size, np.uint8))
    cfg = Config.fromfile(CONFIG_DIR / f'{name}.py')
    crop = cfg.crop_size[0]
    data = dict(img_path=str(picture), seg_map_path=str(mask), reduce_zero_label=True, seg_fields=[], label_map=None)
    for transform in cfg.tta_pipeline:
        data = TRANSFORMS.build(transform)(data)
    shapes = [tuple(view.shape[1:]) for view in data['inputs']]
    expected = [round(crop * ratio) for ratio in (1, 1, 1, 1.25, 1.5, 1.75)]
    assert [min(shape) for shape in shapes] == [side for side in expected for _ in range(2)]  # plain and flipped
    for height, width in shapes:
        assert width / height == pytest.approx(size[1] / size[0], rel=0.01)
    assert [sample.flip for sample in data['data_samples']] == [False, True] * 6


# --- the documentation ----------------------------------------------------------------------------------------------


def test_documented_config_for_own_data_works(tmp_path, monkeypatch):
    text = (CONFIG_DIR.parent / 'docs' / 'configs.md').read_text()
    config = text.split('```python\n')[1].split('```')[0].replace("'./", f"'{CONFIG_DIR}/")
    (tmp_path / 'mine.py').write_text(config)
    for split in ('training', 'validation'):
        for kind, suffix, channels in (('images', 'jpg', (3,)), ('annotations', 'png', ())):
            folder = tmp_path / 'data' / 'mine' / kind / split
            folder.mkdir(parents=True)
            pixels = np.random.default_rng(0).integers(0, 3, (600, 700, *channels), np.uint8)
            cv2.imwrite(str(folder / f'a.{suffix}'), pixels)
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile('mine.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        dataset = DATASETS.build(loader.dataset)
        assert dataset.metainfo['classes'] == ('road', 'car', 'other')
        assert set(dataset[0]['data_samples'].gt_sem_seg.data.unique().tolist()) == {0, 1, 2}
    assert MODELS.build(shrink(cfg, classes=3)).num_classes == 3


def test_documented_table_names_every_ade20k_config():
    text = (CONFIG_DIR.parent / 'docs' / 'configs.md').read_text()
    rows = [line.split('|') for line in text.splitlines() if line.startswith('| `beit') and len(line.split('|')) == 9]
    table = {row[1].strip(' `'): [cell.strip() for cell in row[2:7]] for row in rows}
    assert set(table) == set(RECIPES)
    for name, (lr, decay, drop_path, layer_scale, _, crop, *_) in RECIPES.items():
        documented = [float('nan' if cell == 'none' else cell) for cell in table[name]]
        recipe = [crop, lr, decay, drop_path, float('nan') if layer_scale is None else layer_scale]
        np.testing.assert_array_equal(documented, recipe)
