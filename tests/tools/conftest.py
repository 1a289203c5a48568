"""A tiny data set and config on which a tool's process trains in seconds."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).resolve().parents[2]

CONFIG = """
default_scope = 'mmseg_beit'
crop_size = (32, 32)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=1.0),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
data = dict(type='BaseSegDataset', data_root={data_root!r}, metainfo=dict(classes=('sky', 'tree', 'road'),
            palette=[[0, 0, 255], [0, 255, 0], [128, 128, 128]]), reduce_zero_label=True)
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**data, data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
                 pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**data, data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
                 pipeline=test_pipeline))
test_dataloader = val_dataloader
del data
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True,
                           size=crop_size, pad_val=0, seg_pad_val=255),
    backbone=dict(type='BEiT', img_size=(32, 32), patch_size=8, embed_dims=32, num_layers=2, num_heads=2, mlp_ratio=2,
                  out_indices=(0, 1), drop_path_rate=0.0, init_values=0.1, qv_bias=True),
    decode_head=dict(type='FCNHead', in_channels=32, in_index=1, channels=16, num_convs=1, num_classes=3,
                     dropout_ratio=0.0, norm_cfg=norm_cfg, align_corners=False,
                     loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LayerDecayOptimizerConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.9),
)
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4),
                   dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=12)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=12, val_interval=6)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3, max_keep_ckpts=2, save_best='mIoU'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
log_processor = dict(by_epoch=False, window_size=1)
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
randomness = dict(seed=0)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl'))
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
                                         [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]]),
]
"""


def write_data(root: Path, num_train: int = 16, num_val: int = 4, size: tuple[int, int] = (32, 32)) -> Path:
    """Noisy pictures whose colour tells the class: sky above, tree or road below, an unlabelled border."""
    rng = np.random.default_rng(0)
    colors = np.array([[90, 140, 230], [40, 150, 50], [120, 120, 120]])
    for split, count in (('training', num_train), ('validation', num_val)):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            mask = np.zeros(size, np.int64)
            mask[rng.integers(8, 24) :] = 1 + index % 2
            image = np.clip(colors[mask] + rng.normal(0, 20, (*size, 3)), 0, 255).astype(np.uint8)
            stored = (mask + 1).astype(np.uint8)
            stored[:, :2] = 0
            Image.fromarray(image).save(root / 'images' / split / f'{index:02}.jpg', quality=95)
            Image.fromarray(stored).save(root / 'annotations' / split / f'{index:02}.png')
    return root


def write_config(path: Path, data_root: Path, extra: str = '') -> Path:
    """The tiny config, with lines added at its end."""
    path.write_text(CONFIG.replace('{data_root!r}', repr(str(data_root))) + extra)
    return path


def environment(**extra: str) -> dict[str, str]:
    """What a tool's process gets: this project first on the path, one thread."""
    return {**os.environ, 'PYTHONPATH': str(PROJECT), 'OMP_NUM_THREADS': '1', **extra}


def run_tool(name: str, *args: object, cwd: Path, timeout: float = 300, **env: str) -> subprocess.CompletedProcess:
    """Runs tools/NAME in a folder and returns the finished process; stdout and stderr as text."""
    program = ['bash'] if name.endswith('.sh') else [sys.executable]
    command = [*program, str(PROJECT / 'tools' / name), *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=timeout)


def call_tool(name: str, *args: object, cwd: Path) -> int:
    """Runs tools/NAME inside this process, which is faster; returns the exit status."""
    from mmengine.utils import ManagerMixin

    # mmengine keeps one logger, visualizer and so on per name and second; tests are quicker than that.
    kinds = [ManagerMixin]
    for kind in kinds:
        kinds += kind.__subclasses__()
        kind._instance_dict.clear()
    before = os.getcwd()
    os.chdir(cwd)
    environ = {**os.environ, 'LOCAL_RANK': '0'}
    try:
        with mock.patch.object(sys, 'argv', [name, *map(str, args)]), mock.patch.dict(os.environ, environ):
            runpy.run_path(str(PROJECT / 'tools' / name), run_name='__main__')
    except SystemExit as done:
        return done.code
    finally:
        os.chdir(before)
    raise AssertionError('a tool ends with an exit status')


def make_tiny(folder: Path) -> SimpleNamespace:
    """Writes data/ and tiny.py into a folder; returns it with what works on them."""
    write_data(folder / 'data')
    return SimpleNamespace(
        folder=folder,
        config=write_config(folder / 'tiny.py', folder / 'data'),
        write_config=lambda extra, name='tiny.py': write_config(folder / name, folder / 'data', extra),
        run=lambda name, *args, **kwargs: run_tool(name, *args, cwd=folder, **kwargs),
        call=lambda name, *args: call_tool(name, *args, cwd=folder),
        environment=environment,
        tools=PROJECT / 'tools',
    )


@pytest.fixture
def tiny(tmp_path):
    """A folder with data/ and tiny.py, and what works on them."""
    return make_tiny(tmp_path)


@pytest.fixture(scope='module')
def trained_once(tmp_path_factory):
    tiny = make_tiny(tmp_path_factory.mktemp('trained'))
    assert tiny.call('train.py', 'tiny.py') == 0
    return tiny.folder


@pytest.fixture
def trained(tiny, trained_once):
    """As ``tiny``, after tools/train.py has run; the run was done once and is copied."""
    tiny.work_dir = tiny.folder / 'work_dirs' / 'tiny'
    shutil.copytree(trained_once / 'work_dirs' / 'tiny', tiny.work_dir)
    (tiny.work_dir / 'last_checkpoint').write_text(str(tiny.work_dir / 'iter_12.pth'))
    return tiny
