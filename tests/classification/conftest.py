"""A tiny data set in folders, whose classes differ in colour, and a tiny classifier of it."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.tools.conftest import PROJECT, call_tool, run_tool

COLOURS = {'grass': (60, 160, 60), 'road': (120, 120, 120), 'water': (50, 90, 200)}

CONFIG = """
_base_ = ['{project}/configs/classification/beit_tiny_scenes.py']
data_root = {root!r}
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.ResizeEdge', scale=32, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root, pipeline=pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root, pipeline=pipeline))
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(num_classes=3),
    backbone=dict(img_size=32, patch_size=8, embed_dims=32, num_layers=2, num_heads=2),
    head=dict(num_classes=3, in_channels=32),
)
train_cfg = dict(max_epochs=4, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, by_epoch=True, begin=1, end=4, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=-1))
log_processor = dict(window_size=1)
"""


def write_picture(path, colour, seed=0, size=(36, 48)):
    """Noise around a colour, (H, W) pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 15, (*size, 3))
    Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(path, quality=92)


def write_folder(root, num_train=8, num_val=3, classes=COLOURS):
    """root/{train,val}/CLASS/N.jpg"""
    for split, count in (('train', num_train), ('val', num_val)):
        for number, (name, colour) in enumerate(classes.items()):
            for index in range(count):
                write_picture(root / split / name / f'{index}.jpg', colour, 100 * number + index)
    return root


@pytest.fixture
def folder(tmp_path):
    """24 training and 9 validation pictures of three classes."""
    return write_folder(tmp_path / 'data')


@pytest.fixture
def tiny(tmp_path, folder):
    """The data, a config of a tiny classifier, and what works on them."""

    def write_config(extra='', name='tiny.py'):
        text = CONFIG.replace('{project}', str(PROJECT)).replace('{root!r}', repr(str(folder)))
        (tmp_path / name).write_text(text + extra)
        return tmp_path / name

    return SimpleNamespace(
        folder=tmp_path,
        data=folder,
        config=write_config(),
        write_config=write_config,
        call=lambda name, *args: call_tool(name, *args, cwd=tmp_path),
        run=lambda name, *args, **kwargs: run_tool(name, *args, cwd=tmp_path, **kwargs),
    )
