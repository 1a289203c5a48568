"""Masks, views and folders of pictures without labels."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader

from mmseg_beit.errors import InputError, MissingFileError
from mmseg_beit.registry import DATASETS, TRANSFORMS


def masks(count=400, **kwargs):
    transform = TRANSFORMS.build(dict(type='BlockwiseMask', **kwargs))
    return np.stack([transform({})['mask'] for _ in range(count)])


# --- masks ----------------------------------------------------------------------------------------------------------


def test_v1_hides_up_to_75_of_196():
    drawn = masks(grid=14, num_masked=75)
    counts = drawn.sum(axis=(1, 2))
    assert drawn.dtype == bool
    assert counts.max() == 75
    assert counts.min() >= 16
    # About a third of v1's masks hold fewer (a block that would overshoot is not taken).
    assert 0.15 < (counts < 75).mean() < 0.5


def test_v2_hides_exactly_75():
    assert set(masks(grid=14, num_masked=75, exact=True).sum(axis=(1, 2))) == {75}


def test_every_place_can_be_hidden_and_the_middle_is_hidden_more():
    """Also the last row and column, which mmpretrain's generator never hides."""
    share = masks(count=1500, grid=14, num_masked=75).mean(axis=0)
    assert share.min() > 0.02
    assert share[4:10, 4:10].mean() > 1.3 * share[0].mean()
    np.testing.assert_allclose(share, share[::-1], atol=0.08)  # no direction is preferred
    np.testing.assert_allclose(share, share.T, atol=0.08)


@pytest.mark.parity
def test_distribution_is_the_papers_algorithm():
    """Against a plain form of algorithm 1: how many are hidden, and how often neighbours are hidden together."""
    import math
    import random

    random.seed(0)

    def plain():
        mask = np.zeros((14, 14), bool)
        while mask.sum() < 75:
            left = 75 - mask.sum()
            for _ in range(10):
                s, r = random.uniform(16, left), math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
                a, b = round(math.sqrt(s * r)), round(math.sqrt(s / r))
                if a >= 14 or b >= 14:
                    continue
                t, i = random.randint(0, 14 - a), random.randint(0, 14 - b)
                grown = mask.copy()
                grown[t : t + a, i : i + b] = True
                if 0 < grown.sum() - mask.sum() <= left:
                    mask = grown
                    break
            else:
                break
        return mask

    expected, drawn = np.stack([plain() for _ in range(1000)]), masks(1000, grid=14, num_masked=75)
    for statistic in (lambda m: m.mean(), lambda m: (m[:, 1:] & m[:, :-1]).mean()):
        assert statistic(drawn) == pytest.approx(statistic(expected), rel=0.03)
    fewer, expected_fewer = (drawn.sum((1, 2)) < 75).mean(), (expected.sum((1, 2)) < 75).mean()
    assert fewer == pytest.approx(expected_fewer, abs=0.07)  # three deviations of the difference


def test_other_grids_and_shares():
    assert masks(5, grid=(6, 20), num_masked=0.5, exact=True, min_block=6).sum(axis=(1, 2)).tolist() == [60] * 5
    assert masks(5, grid=4, num_masked=6, min_block=2).shape == (5, 4, 4)


def test_blocks_keep_their_bounds():
    """Four patches at aspect 1 are a square of two by two."""
    for mask in masks(50, grid=14, num_masked=4, min_block=4, min_aspect=1.0):
        rows, columns = np.nonzero(mask)
        assert (len(rows), np.ptp(rows), np.ptp(columns)) == (4, 1, 1)


@pytest.mark.parametrize(
    'bad, sentence',
    [
        (dict(grid=8, num_masked=75), 'hide 75 of 64 patches of a 8x8 grid: choose num_masked between 1 and 63'),
        (dict(grid=4, num_masked=15), 'no block of 16 to 15 patches fits a 4x4 grid: lower min_block'),
        (dict(grid=(2, 200), num_masked=300, min_block=250), 'no block of 250 to 300 patches fits a 2x200 grid'),
        (dict(num_masked=0), 'hide 0 of 196'),
        (dict(min_aspect=2.0, max_aspect=1.0), 'aspects from 2.0 to 1.0'),
    ],
)
def test_masks_that_no_block_can_make(bad, sentence):
    with pytest.raises(InputError, match=sentence):
        TRANSFORMS.build(dict(type='BlockwiseMask', **bad))


# --- views ----------------------------------------------------------------------------------------------------------


def two_views(**kwargs):
    return TRANSFORMS.build(dict(type='RandomResizedCropTwoViews', size=64, second_size=32, **kwargs))


def gradient(height=120, width=160):
    """A picture whose blue is its row and green its column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def test_both_views_show_the_same_part():
    for _ in range(5):
        result = two_views()(dict(img=gradient()))
        first, second = result['img'], result['target_img']
        assert (first.shape, second.shape) == ((64, 64, 3), (32, 32, 3))
        halved = first.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
        # Away from the edges, where filters of different width end differently.
        np.testing.assert_allclose(halved[4:-4, 4:-4], second[4:-4, 4:-4], atol=1.5)


@pytest.mark.parity
def test_resizing_is_pillows_after_the_crop():
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    transform = two_views(second_interpolation='lanczos')
    transform.crop_box = lambda shape: (5, 7, 40, 50)
    result = transform(dict(img=picture))
    part = Image.fromarray(picture).crop((7, 5, 57, 45))
    np.testing.assert_array_equal(result['img'], np.asarray(part.resize((64, 64), Image.Resampling.BICUBIC)))
    np.testing.assert_array_equal(result['target_img'], np.asarray(part.resize((32, 32), Image.Resampling.LANCZOS)))


def test_crops_have_the_asked_share_and_shape():
    transform = two_views(scale=(0.2, 0.5))
    boxes = np.array([transform.crop_box((200, 300)) for _ in range(300)])
    share = boxes[:, 2] * boxes[:, 3] / 60000
    assert 0.19 < share.min() < 0.25 < 0.45 < share.max() < 0.51
    aspect = boxes[:, 3] / boxes[:, 2]
    assert 0.73 < aspect.min() < 0.9 < 1.1 < aspect.max() < 1.36
    assert (boxes[:, 0] + boxes[:, 2]).max() == 200 or (boxes[:, 1] + boxes[:, 3]).max() == 300


def test_a_strip_gets_its_middle():
    assert two_views(scale=(1.0, 1.0)).crop_box((10, 1000)) == (0, 493, 10, 13)


def test_validation_shows_the_middle():
    transform = TRANSFORMS.build(dict(type='ResizeAndCenterCrop', size=64, share=0.5))
    result = transform(dict(img=gradient(128, 200)))['img']
    # 64 of 128 rows from 32 on, 64 of 200 columns from 68 on.
    np.testing.assert_array_equal(result, gradient(128, 200)[32:96, 68:132])


def test_unknown_filter_and_range():
    with pytest.raises(InputError, match="interpolation='cubic' is unknown"):
        two_views(interpolation='cubic')
    with pytest.raises(InputError, match='must be ranges'):
        two_views(scale=(0.5, 0.1))


# --- folders --------------------------------------------------------------------------------------------------------

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCropTwoViews', size=64, second_size=32),
    dict(type='BlockwiseMask', grid=4, num_masked=6, min_block=2),
    dict(type='PackViews'),
]


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures, some in sub-folders, and files that are none."""
    for i in range(20):
        path = tmp_path / 'train' / f'n{i % 3}' / f'{i:02}.JPEG'
        path.parent.mkdir(parents=True, exist_ok=True)
        ok, data = cv2.imencode('.jpg', np.full((80, 90, 3), 10 * i, np.uint8))
        assert ok
        path.write_bytes(data.tobytes())
    (tmp_path / 'train' / 'notes.txt').write_text('no picture')
    (tmp_path / 'train' / '.hidden.jpg').write_bytes(b'')
    return tmp_path


def build(folder, **kwargs):
    config = dict(type='UnlabelledImages', data_root=str(folder), data_prefix=dict(img_path='train'), pipeline=PIPELINE)
    return DATASETS.build(config | kwargs)


def test_finds_pictures_in_sub_folders(folder):
    dataset = build(folder)
    assert len(dataset) == 20
    assert dataset.get_data_info(0)['img_path'].endswith('n0/00.JPEG')


def test_a_batch(folder):
    batch = next(iter(DataLoader(build(folder), batch_size=4, collate_fn=default_collate)))
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()} == dict(
        img=((4, 3, 64, 64), torch.uint8), target_img=((4, 3, 32, 32), torch.uint8), mask=((4, 4, 4), torch.bool)
    )


@pytest.mark.parametrize('workers', [0, 2])
def test_unreadable_pictures_are_left_out_and_counted(folder, workers, caplog):
    (folder / 'train' / 'n0' / '03.JPEG').write_bytes(b'\xff\xd8 cut')
    (folder / 'train' / 'n1' / '04.JPEG').write_bytes(b'')
    dataset = build(folder, max_unreadable=0.2)
    loader = DataLoader(dataset, batch_size=5, collate_fn=default_collate, num_workers=workers)
    assert sum(len(batch['img']) for batch in loader) == 20
    assert [path[-9:] for path in dataset.unreadable] == ['0/03.JPEG', '1/04.JPEG']


def test_too_many_unreadable_pictures_stop(folder):
    for path in (folder / 'train').rglob('1*.JPEG'):
        path.write_bytes(b'not a picture')
    dataset = build(folder, max_unreadable=0.1)
    with pytest.raises(InputError, match=r'3 of 20 pictures cannot be read, more than max_unreadable=0.1 allows'):
        for i in range(20):
            dataset[i]


def test_empty_and_missing_folders(folder):
    (folder / 'empty').mkdir()
    with pytest.raises(MissingFileError, match=r'empty holds no picture \(.jpg, .*\), not in sub-folders either'):
        build(folder, data_prefix=dict(img_path='empty'))
    with pytest.raises(MissingFileError, match='nowhere does not exist: put the pictures there'):
        build(folder, data_prefix=dict(img_path='nowhere'))


def test_real_photographs(msrc):
    dataset = build(msrc, data_prefix=dict(img_path='images/training'))
    sample = dataset[0]
    assert sample['img'].float().std() > 5
    assert not dataset.unreadable
