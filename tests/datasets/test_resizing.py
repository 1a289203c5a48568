"""A resize that waits for the crop: bit-equal to mmseg's resize of the whole picture and mask."""

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.registry import DefaultScope

from mmseg_beit.datasets.checks import build_dataset
from mmseg_beit.datasets.transforms import resize_on_demand
from mmseg_beit.datasets.transforms.resizing import ResizedOnDemand

pytestmark = pytest.mark.parity

SAMPLES = Path(__file__).parents[2] / '../shared/data/ade20k_samples'
RESIZE = dict(type='RandomResize', scale=(200, 60), ratio_range=(0.5, 2.0), keep_ratio=True)
CROP = dict(type='RandomCrop', crop_size=(48, 56), cat_max_ratio=0.75)
FLIP = dict(type='RandomFlip', prob=0.5)


def pipelines(*steps):
    """Ours, with resizes that wait, and mmseg's."""
    made = []
    for scope in ('mmseg_beit', 'mmseg'):
        with DefaultScope.overwrite_default_scope(scope):
            made.append(Compose(copy.deepcopy(steps)))
    resize_on_demand(made[0].transforms)
    return made


def run(pipeline, results, seed):
    np.random.seed(seed)  # noqa: NPY002
    return pipeline(copy.deepcopy(results)), np.random.randint(1 << 30)  # noqa: NPY002


def make_results(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 90, 2).tolist()
    mask = rng.integers(0, 4, (height, width), dtype=np.uint8)
    img = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return dict(
        img=img, img_shape=(height, width), ori_shape=(height, width), gt_seg_map=mask, seg_fields=['gt_seg_map']
    )


@pytest.mark.parametrize(
    'steps, waits',
    [
        ((RESIZE, CROP), True),
        ((RESIZE | dict(keep_ratio=False), CROP), True),
        ((dict(type='Resize', scale=(150, 70), keep_ratio=True), CROP), True),
        ((RESIZE, FLIP, CROP), False),  # anything in between
        ((RESIZE | dict(interpolation='bicubic'), CROP), True),  # and what OpenCV alone knows how to weigh
    ],
    ids=['random', 'stretched', 'fixed', 'flip between', 'bicubic'],
)
def test_resize_and_crop(steps, waits):
    ours, theirs = pipelines(*steps)
    first = ours.transforms[0]
    assert getattr(first, 'resize', first).on_demand == waits
    for seed in range(25):
        results = make_results(seed)
        (actual, next_actual), (expected, next_expected) = (run(p, results, seed) for p in (ours, theirs))
        assert actual.keys() == expected.keys() and next_actual == next_expected
        for key in actual:
            np.testing.assert_array_equal(actual[key], expected[key])


@pytest.mark.parametrize('interpolation', ['bilinear', 'nearest'])
def test_any_part_of_any_size(interpolation):
    rng = np.random.default_rng(0)
    codes = dict(bilinear=cv2.INTER_LINEAR, nearest=cv2.INTER_NEAREST)
    for i in range(150):
        shape = rng.integers(2, 120, 2)
        source = rng.integers(0, 256, (*shape, 3)[: 3 - i % 2], dtype=np.uint8)
        # Halves, doubles and nearly the same size are special to OpenCV.
        size = [shape // 2, shape * 2, shape - 1, shape + 2, (shape * rng.uniform(0.3, 3, 2)).astype(int)][i % 5]
        size = tuple(np.maximum(size, 1).tolist())
        whole = cv2.resize(source, size[::-1], interpolation=codes[interpolation])
        (top, left) = (rng.integers(0, side) for side in size)
        key = slice(top, top + rng.integers(1, 80)), slice(left, left + rng.integers(1, 80))
        np.testing.assert_array_equal(ResizedOnDemand(source, size, interpolation)[key], whole[key])


def test_our_data_sets_wait(pairs):
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), RESIZE, CROP, dict(type='PackSegInputs')]
    dataset = build_dataset(pairs.config(pipeline=steps))
    assert dataset.pipeline.transforms[2].resize.on_demand
    assert dataset[0]['inputs'].shape == (3, 48, 56)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason='the ADE20K samples are not at hand')
def test_real_photographs_through_the_whole_pipeline(project):
    from mmengine.config import Config

    ours, theirs = pipelines(*Config.fromfile(project / 'configs/_base_/datasets/ade20k_512.py').train_pipeline)
    for seed, mask in enumerate(sorted(SAMPLES.glob('annotations/*/*.png')) * 3):
        image = str(mask).replace('annotations', 'images').replace('.png', '.jpg')
        start = dict(
            img_path=image,
            seg_map_path=str(mask),
            reduce_zero_label=True,
            label_map=None,
            seg_fields=[],
            num_classes=150,
        )
        (actual, next_actual), (expected, next_expected) = (run(p, start, seed) for p in (ours, theirs))
        assert next_actual == next_expected
        assert torch.equal(actual['inputs'], expected['inputs'])
        assert torch.equal(*(out['data_samples'].gt_sem_seg.data for out in (actual, expected)))
        assert actual['data_samples'].metainfo == expected['data_samples'].metainfo
