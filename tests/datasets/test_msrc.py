"""MSRC v2's names, colours and reading."""

from pathlib import Path

import cv2
import numpy as np
from mmengine.registry import DefaultScope

from mmseg_beit.registry import DATASETS

PIPELINE = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}, {'type': 'PackSegInputs'}]


def _dataset(root: Path, split: str = 'training'):
    prefix = {'img_path': f'images/{split}', 'seg_map_path': f'annotations/{split}'}
    config = {'type': 'MSRCDataset', 'data_root': str(root), 'data_prefix': prefix, 'pipeline': PIPELINE}
    with DefaultScope.overwrite_default_scope('mmseg_beit'):
        return DATASETS.build(config)


def test_zero_is_ignored_and_classes_start_at_zero(tmp_path):
    for folder in ('images/training', 'annotations/training'):
        (tmp_path / folder).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'images/training/a.jpg'), np.zeros((2, 3, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'annotations/training/a.png'), np.array([[0, 1, 2], [23, 19, 0]], np.uint8))
    sample = _dataset(tmp_path)[0]
    truth = sample['data_samples'].gt_sem_seg.data.squeeze(0).numpy()
    np.testing.assert_array_equal(truth, [[255, 0, 1], [22, 18, 255]])


def test_palette_has_a_colour_of_its_own_for_each_class():
    meta = DATASETS.get('MSRCDataset').METAINFO
    assert len(meta['classes']) == len(set(meta['classes'])) == 23
    assert len({tuple(colour) for colour in meta['palette']} | {(0, 0, 0)}) == 24
    assert meta['palette'][meta['classes'].index('road')] == [128, 64, 128]
    assert meta['palette'][meta['classes'].index('boat')] == [192, 64, 0]


def test_reads_the_real_photographs(msrc):
    lines = (msrc / 'classes.txt').read_text().split('\n')
    names = tuple(line.split('\t')[1].strip() for line in lines if line.strip())
    training, validation = _dataset(msrc), _dataset(msrc, 'validation')
    assert training.metainfo['classes'] == names
    assert (len(training), len(validation)) == (444, 147)
    sample = validation[0]
    truth = sample['data_samples'].gt_sem_seg.data
    assert truth.shape[1:] == sample['inputs'].shape[1:]
    assert set(np.unique(truth)) <= {*range(23), 255}
