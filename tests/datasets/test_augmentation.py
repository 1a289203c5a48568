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


@pytest.mark.parametrize('ignore_index', [255, 0, 4, -100])
@pytest.mark.parametrize('ratio', [0.9, 0.75, 0.5, 0.3])
def test_what_counts_as_mixed(ratio, ignore_index):
    """By mmseg's definition, on masks with few and many classes, even and uneven."""
    rng = np.random.default_rng(0)
    crop = ours.RandomCrop(crop_size=(8, 8), cat_max_ratio=ratio, ignore_index=ignore_index)
    answers = []
    for i in range(300):
        values = rng.choice([0, 3, 4, 5, 100, 254, 255], size=rng.integers(1, 8), replace=False)
        shares = rng.dirichlet(np.full(len(values), 10.0 ** rng.uniform(-1.5, 1)))
        mask = rng.choice(values, p=shares, size=(33, 47)).astype(np.uint8)
        labels, counts = np.unique(mask[mask != ignore_index], return_counts=True)
        expected = len(labels) > 1 and counts.max() / counts.sum() < ratio
        assert crop._is_mixed(mask) == expected, (i, labels, counts)
        answers.append(expected)
    assert 0 < np.mean(answers) < 1


def test_crop_of_a_single_label_or_none():
    for mask in (
        np.full((70, 90), 3),
        np.full((70, 90), 255),
        np.where(np.arange(90) < 88, 255, 1) + np.zeros((70, 1)),
    ):
        results = make_results() | dict(gt_seg_map=mask.astype(np.uint8))
        for ignore_index in (255, 3, -100):
            kwargs = dict(crop_size=(32, 48), cat_max_ratio=0.75, ignore_index=ignore_index)
            expected, actual = (run(module.RandomCrop(**kwargs), results, 0) for module in (theirs, ours))
            assert_equal(actual[0], expected[0])
            assert actual[1] == expected[1]


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32, np.int64])
@pytest.mark.parametrize('swap', [None, [(0, 1)]])
def test_flip(direction, dtype, swap):
    results = make_results()
    results['img'] = results['img'][3:, 5:].astype(dtype)
    results['gt_seg_map'] = results['gt_seg_map'][3:, 5:]
    for prob in (0.0, 1.0):
        kwargs = dict(prob=prob, direction=direction, swap_seg_labels=swap)
        expected, actual = (run(module.RandomFlip(**kwargs), results, 0) for module in (theirs, ours))
        assert_equal(actual[0], expected[0])
        assert actual[1] == expected[1]
        assert actual[0]['img'].flags.c_contiguous or not prob


def test_photometric_distortion():
    for seed in range(40):
        results = make_results(seed=seed)
        expected, next_expected = run(theirs.PhotoMetricDistortion(), results, seed)
        actual, next_actual = run(ours.PhotoMetricDistortion(), results, seed)
        assert_equal(actual, expected)
        assert next_actual == next_expected


def test_arithmetic_in_place_of_a_table():
    """Whatever serves, it gives the table's values, also in the last columns that vector code leaves over."""
    rng = np.random.default_rng(0)
    values = np.concatenate([np.arange(256), rng.integers(0, 256, 77)]).astype(np.uint8).reshape(3, 37, 3)
    distortion = ours.PhotoMetricDistortion()
    factors = [0.5, 1.0, 1.25, 1.5, 2 / 3, 0.999999, 1.000001, *rng.uniform(0.5, 1.5, 500)]
    steps = [(distortion.convert(np.arange(256, dtype=np.uint8), alpha), alpha) for alpha in factors]
    steps += [
        (distortion.convert(np.arange(256, dtype=np.uint8), beta=beta), None) for beta in rng.uniform(-32, 32, 50)
    ]
    for step in steps:
        for array in (values, values[:, :, 0].copy()):
            np.testing.assert_array_equal(ours.mapped(array, step), step[0][array])


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
