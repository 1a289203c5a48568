"""Our training augmentations against mmseg's on the same draws: bit-equal."""

import copy

import cv2
import numpy as np
import pytest
import torch
from mmseg.datasets import transforms as theirs

from mmseg_beit.datasets.transforms import augmentation as ours

pytestmark = pytest.mark.parity


def make_results(height=70, width=90, num_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, num_classes, (5, 7), dtype=np.uint8)
    mask = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    mask[rng.random(mask.shape) < 0.1] = 255
    img = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return dict(
        img=img, img_shape=(height, width), ori_shape=(height, width), gt_seg_map=mask, seg_fields=['gt_seg_map']
    )


def run(transform, results, seed):
    np.random.seed(seed)  # noqa: NPY002
    out = transform(copy.deepcopy(results))
    return out, np.random.randint(1 << 30)  # noqa: NPY002


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize('ratio', [1.0, 0.75, 0.4])
@pytest.mark.parametrize('crop', [(32, 48), (70, 90), (100, 20)])
def test_crop(ratio, crop):
    for seed in range(12):
        results = make_results(seed=seed)
        kwargs = dict(crop_size=crop, cat_max_ratio=ratio)
        expected, next_expected = run(theirs.RandomCrop(**kwargs), results, seed)
        actual, next_actual = run(ours.RandomCrop(**kwargs), results, seed)
        assert_equal(actual, expected)
        assert next_actual == next_expected  # The generator was used as often.


def test_photometric_distortion():
    for seed in range(40):
        results = make_results(seed=seed)
        expected, next_expected = run(theirs.PhotoMetricDistortion(), results, seed)
        actual, next_actual = run(ours.PhotoMetricDistortion(), results, seed)
        assert_equal(actual, expected)
        assert next_actual == next_expected


def test_photometric_distortion_leaves_the_callers_picture():
    results = make_results()
    before = results['img'].copy()
    for seed in range(10):
        np.random.seed(seed)  # noqa: NPY002
        ours.PhotoMetricDistortion()(dict(results))
    np.testing.assert_array_equal(results['img'], before)


@pytest.mark.parametrize('view', [lambda x: x, lambda x: x[3:40, 5:50]], ids=['whole', 'crop'])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_packing(view, dtype):
    results = make_results()
    results.update(img=view(results['img']).astype(dtype, copy=False), gt_seg_map=view(results['gt_seg_map']))
    expected = theirs.PackSegInputs()(copy.deepcopy(results))
    actual = ours.PackSegInputs()(results)
    assert actual.keys() == expected.keys()
    assert torch.equal(actual['inputs'], expected['inputs'])
    assert actual['inputs'].is_contiguous()
    mask, expected_mask = (r['data_samples'].gt_sem_seg.data for r in (actual, expected))
    assert torch.equal(mask, expected_mask)
    assert mask.dtype == expected_mask.dtype
    assert actual['data_samples'].metainfo == expected['data_samples'].metainfo
