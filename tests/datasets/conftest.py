"""A small folder of pictures and masks to spoil."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
NAMES = ('a', 'b', 'c', 'd')
CLASSES = ('sky', 'tree', 'road')


def write_pairs(root: Path, names=NAMES, size=(24, 32)) -> None:
    """Noisy JPEGs, and masks whose columns are 0 (unlabelled), 1, 2, 3."""
    rng = np.random.default_rng(0)
    for kind in ('images', 'annotations'):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / 'images' / f'{name}.jpg')
        mask = np.repeat(np.arange(4, dtype=np.uint8), size[1] // 4)[None].repeat(size[0], 0)
        Image.fromarray(mask).save(root / 'annotations' / f'{name}.png')


@pytest.fixture
def pairs(tmp_path):
    """Four sound pairs under ``root``, and how to reach and read them."""
    root = tmp_path / 'data'
    write_pairs(root)

    def config(**changes):
        return (
            dict(
                type='BaseSegDataset',
                data_root=str(root),
                data_prefix=dict(img_path='images', seg_map_path='annotations'),
                metainfo=dict(classes=CLASSES),
                reduce_zero_label=True,
                pipeline=PIPELINE,
            )
            | changes
        )

    def spoil(name, function):
        path = root / 'annotations' / f'{name}.png'
        Image.fromarray(function(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))).save(path)

    return SimpleNamespace(
        root=root,
        config=config,
        image=lambda name: root / 'images' / f'{name}.jpg',
        mask=lambda name: root / 'annotations' / f'{name}.png',
        spoil=spoil,
    )
