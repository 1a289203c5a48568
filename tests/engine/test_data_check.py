"""The hook that looks at the data of a run before it begins."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.runner.base_loop import BaseLoop
from PIL import Image

from mmseg_beit.datasets import DataCheckHook
from mmseg_beit.datasets.checks import build_dataset
from mmseg_beit.errors import InputError

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


class Loop(BaseLoop):
    """What the runner has built of a loop."""

    def __init__(self, dataset):
        self.dataloader = SimpleNamespace(dataset=dataset)

    def run(self):
        raise AssertionError('not reached')


@pytest.fixture
def data(tmp_path):
    """Three pairs of 8x8 pixels for training and validation each; returns the data set of a split."""
    mask = np.repeat(np.uint8([0, 1, 2, 1]), 2)[None].repeat(8, 0)
    for split in ('train', 'val'):
        for kind in ('images', 'annotations'):
            (tmp_path / split / kind).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / split / f'images/{i}.jpg')
            Image.fromarray(mask).save(tmp_path / split / f'annotations/{i}.png')

    def build(split):
        return build_dataset(
            dict(
                type='BaseSegDataset',
                data_root=str(tmp_path / split),
                data_prefix=dict(img_path='images', seg_map_path='annotations'),
                metainfo=dict(classes=('a', 'b')),
                reduce_zero_label=True,
                pipeline=PIPELINE,
            )
        )

    return SimpleNamespace(build=build, root=tmp_path)


@pytest.fixture
def runner(data, caplog):
    caplog.set_level(logging.INFO)
    return SimpleNamespace(
        model=torch.nn.Identity(),
        work_dir=str(data.root / 'work'),
        logger=logging.getLogger('test_data_check'),
        _train_loop=Loop(data.build('train')),
        _val_loop=Loop(data.build('val')),
        _test_loop=dict(type='TestLoop'),  # not built in a training run
    )


def spoil(data, split):
    path = data.root / split / 'annotations/1.png'
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(path)
    return str(path)


def test_sound_data_are_told_and_remembered(runner, caplog):
    DataCheckHook().before_run(runner)
    assert 'train data: 3 images, 3 masks, checked in' in caplog.text and 'val data: 3 images' in caplog.text
    caplog.clear()
    DataCheckHook().before_run(runner)
    assert caplog.text.count('unchanged since they were checked') == 2


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_mistake_stops_the_run_in_all_processes(runner, data, split):
    path = spoil(data, split)
    with pytest.raises(InputError, match='hold the value 9') as caught:
        DataCheckHook().before_run(runner)
    assert path in str(caught.value) and caught.value.in_all_processes


@pytest.mark.parametrize(('mode', 'told'), [('headers', 2), ('off', 0)])
def test_modes_that_look_at_less(runner, data, caplog, mode, told):
    spoil(data, 'train')
    DataCheckHook(mode=mode).before_run(runner)
    assert caplog.text.count(' data: 3 images') == told


def test_the_same_data_are_looked_at_once(runner, data, caplog):
    runner._val_loop = Loop(data.build('train'))
    DataCheckHook().before_run(runner)
    assert caplog.text.count('3 images') == 1


def test_unknown_mode():
    with pytest.raises(InputError, match="mode='quick'"):
        DataCheckHook(mode='quick')
