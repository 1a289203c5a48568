"""A tiny segmentor on disk, as a user would have one: config, checkpoint, a photograph, a folder of photographs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmseg_beit.apis import init_model

CONFIG = """
default_scope = 'mmseg_beit'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        size=(32, 32)),
    backbone=dict(type='BEiT', img_size=32, patch_size=8, embed_dims=32, num_layers=2, num_heads=2, out_indices=(0, 1)),
    decode_head=dict(
        type='UPerHead', in_channels=[32, 32], in_index=[0, 1], pool_scales=(1, 2), channels=16, num_classes=3,
        norm_cfg=dict(type='SyncBN'), align_corners=False),
    test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(20, 20)))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 40), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    batch_size=1,
    dataset=dict(
        type='BaseSegDataset', data_root='data', data_prefix=dict(img_path='img', seg_map_path='ann'),
        metainfo=dict(classes=('sky', 'road', 'tree')), reduce_zero_label=True, pipeline=test_pipeline))
"""


def photo(height=48, width=64, seed=0):
    """Smooth random colours: uint8 RGB (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope='session')
def demo_source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('demo')
    (folder / 'config.py').write_text(CONFIG)
    torch.manual_seed(1)
    model = init_model(Config.fromfile(folder / 'config.py'), device='cpu')
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    meta = dict(dataset_meta=dict(classes=('sky', 'road', 'tree'), palette=[[70, 130, 180], [128, 64, 128], [0, 99, 0]],
                                  reduce_zero_label=True))  # fmt: skip
    torch.save(dict(meta=meta, state_dict=model.state_dict()), folder / 'checkpoint.pth')
    Image.fromarray(photo()).save(folder / 'photo.jpg')
    (folder / 'photos').mkdir()
    for i, size in enumerate([(48, 64), (30, 40), (48, 64)]):
        Image.fromarray(photo(*size, seed=i)).save(folder / 'photos' / f'{i}.png')
    return folder


@pytest.fixture
def demo(demo_source, monkeypatch, tmp_path):
    """The current folder holds config.py, checkpoint.pth, photo.jpg and photos/."""
    for entry in demo_source.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    return tmp_path
