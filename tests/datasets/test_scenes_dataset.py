"""The scenes data set: ADE20K's stored indices become 0..11 in the renderer's order, with ADE20K's colours."""

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from mmseg_beit.registry import DATASETS
from mmseg_beit.scenes import LABELS

PIPELINE = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}, {'type': 'PackSegInputs'}]


@pytest.fixture
def folder(tmp_path):
    for name in ('images', 'annotations'):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / 'images/a.jpg'), np.zeros((1, 4, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'annotations/a.png'), np.array([[0, 2, 33, 21]], np.uint8))
    return tmp_path


def _build(folder, **fields):
    prefix = {'img_path': 'images', 'seg_map_path': 'annotations'}
    config = {'type': 'ScenesDataset', 'data_root': str(folder), 'data_prefix': prefix, 'pipeline': PIPELINE, **fields}
    with DefaultScope.overwrite_default_scope('mmseg_beit'):
        return DATASETS.build(config)


def _truth(dataset):
    return dataset[0]['data_samples'].gt_sem_seg.data.squeeze(0).numpy()


def test_stored_indices_become_the_twelve_classes(folder):
    dataset = _build(folder)
    assert dataset.metainfo['classes'] == tuple(LABELS)
    np.testing.assert_array_equal(_truth(dataset), [[255, 0, 11, 9]])


def test_colours_are_ade20ks(folder):
    dataset, full = _build(folder), DATASETS.get('ScenesDataset').METAINFO
    for name, colour in zip(dataset.metainfo['classes'], dataset.metainfo['palette'], strict=True):
        assert colour == full['palette'][LABELS[name] - 1] == full['palette'][full['classes'].index(name)]


def test_all_150_classes_on_request(folder):
    full = DATASETS.get('ScenesDataset').METAINFO
    dataset = _build(folder, metainfo={'classes': full['classes']})
    assert len(dataset.metainfo['palette']) == 150
    np.testing.assert_array_equal(_truth(dataset), [[255, 1, 32, 20]])
