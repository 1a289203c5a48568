"""Loading transforms: mmseg's values, and one sentence with the file's name where a file cannot be used."""

import os
import pickle

import cv2
import mmcv.transforms
import mmseg.datasets.transforms
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image
from torch.utils.data import DataLoader

from mmseg_beit.datasets.checks import build_dataset, files
from mmseg_beit.datasets.transforms import LoadAnnotations, LoadImageFromFile
from mmseg_beit.errors import InputError, MissingFileError, sentence
from mmseg_beit.registry import TRANSFORMS


def item(pairs, name='a', **changes):
    return (
        dict(
            img_path=str(pairs.image(name)),
            seg_map_path=str(pairs.mask(name)),
            reduce_zero_label=True,
            label_map=None,
            num_classes=3,
            seg_fields=[],
        )
        | changes
    )


def load_both(results):
    return LoadAnnotations()(LoadImageFromFile()(results))


def test_ours_win_in_our_scope():
    init_default_scope('mmseg_beit')
    assert type(TRANSFORMS.build(dict(type='LoadImageFromFile'))) is LoadImageFromFile
    assert type(TRANSFORMS.build(dict(type='LoadAnnotations'))) is LoadAnnotations


@pytest.mark.parity
@pytest.mark.parametrize('to_float32', [False, True])
@pytest.mark.parametrize('color_type', ['color', 'grayscale', 'unchanged'])
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_image_equals_mmcvs(pairs, color_type, backend, to_float32):
    exif = Image.Exif()
    exif[0x0112] = 8
    with Image.open(pairs.image('a')) as picture:
        picture.save(pairs.image('a'), exif=exif)
    arguments = dict(color_type=color_type, imdecode_backend=backend, to_float32=to_float32)
    ours = LoadImageFromFile(**arguments)(item(pairs))
    theirs = mmcv.transforms.LoadImageFromFile(**arguments)(item(pairs))
    assert ours.keys() == theirs.keys() and ours['img'].dtype == theirs['img'].dtype
    assert np.array_equal(ours['img'], theirs['img'])
    assert ours['img_shape'] == theirs['img_shape'] == ours['ori_shape'] == theirs['ori_shape']


@pytest.mark.parity
@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 255, 1: 0, 2: 1, 3: 255, 7: 2}])
def test_mask_equals_mmsegs(pairs, reduce_zero_label, label_map):
    stored = np.random.default_rng(1).integers(0, 256, (24, 32), dtype=np.uint8)
    pairs.spoil('a', lambda mask: stored)
    changes = dict(reduce_zero_label=reduce_zero_label, label_map=label_map, num_classes=None)
    ours = LoadAnnotations()(item(pairs, **changes))
    theirs = mmseg.datasets.transforms.LoadAnnotations()(item(pairs, **changes))
    assert ours.keys() == theirs.keys() and ours['seg_fields'] == ['gt_seg_map']
    assert ours['gt_seg_map'].dtype == np.uint8
    assert np.array_equal(ours['gt_seg_map'], theirs['gt_seg_map'])


@pytest.mark.parity
@pytest.mark.parametrize('fast', [True, False], ids=['kornia', 'pillow'])
@pytest.mark.parametrize('mode', ['L', 'P', 'P8', '1', 'LA'])
def test_kinds_of_png(pairs, mode, fast, monkeypatch):
    """A byte for each pixel passes through kornia-rs where it is installed; bits and files with more to them do not."""
    if not fast:
        monkeypatch.setattr(files, 'decode_image_png_u8', None)
    values = np.random.default_rng(1).integers(0, 2, (24, 32), dtype=np.uint8)
    picture = Image.fromarray(values * 255 if mode == '1' else values).convert(mode[:1] if mode == 'P8' else mode)
    if mode in ('P', 'P8'):  # Pillow stores two colours in a bit each unless it is told otherwise.
        picture = Image.fromarray(values, 'P')
        picture.putpalette([200, 30, 40, 7, 8, 9])
    picture.save(pairs.mask('a'), **(dict(bits=8) if mode == 'P8' else {}))
    if mode == 'LA':
        with pytest.raises(InputError, match='colour picture'):
            LoadAnnotations()(item(pairs, num_classes=None))
        return
    ours = LoadAnnotations()(item(pairs, num_classes=None))['gt_seg_map']
    np.testing.assert_array_equal(ours, np.where(values, 0, 255))


def test_png_with_a_wrong_checksum_is_refused(pairs):
    content = bytearray(pairs.mask('a').read_bytes())
    content[content.index(b'IDAT') + 12] ^= 0x55
    pairs.mask('a').write_bytes(content)
    with pytest.raises(InputError, match='damaged or not a picture'):
        LoadAnnotations()(item(pairs))


def test_paths_may_be_path_objects(pairs):
    results = load_both(item(pairs, img_path=pairs.image('a'), seg_map_path=pairs.mask('a')))
    assert results['img'].shape[:2] == results['gt_seg_map'].shape == (24, 32)


def test_mask_values(pairs):
    results = load_both(item(pairs))
    assert results['gt_seg_map'][0].tolist() == [255] * 8 + [0] * 8 + [1] * 8 + [2] * 8


def test_a_mask_of_one_row_keeps_its_shape(pairs):
    pairs.spoil('a', lambda mask: mask[:1])
    assert LoadAnnotations()(item(pairs))['gt_seg_map'].shape == (1, 32)


@pytest.mark.parametrize('transform, kind', [(LoadImageFromFile(), 'image'), (LoadAnnotations(), 'mask')])
@pytest.mark.parametrize(
    'spoil, error, words',
    [
        (os.remove, MissingFileError, 'does not exist'),
        (lambda path: path.write_bytes(b''), InputError, 'is an empty file'),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), InputError, 'is cut short'),
        (lambda path: path.write_bytes(path.read_bytes()[:30]), InputError, ''),
        (lambda path: path.write_text('<html>404</html>'), InputError, 'is damaged or not a picture'),
    ],
)
def test_file_that_cannot_be_read(pairs, transform, kind, spoil, error, words):
    path = getattr(pairs, kind)('a')
    spoil(path)
    with pytest.raises(error) as caught:
        transform(item(pairs))
    assert sentence(caught.value).startswith(f'{kind} {path} {words}')


def test_decoder_that_says_nothing_of_a_cut_jpeg(pairs, monkeypatch):
    # OpenCV 4 fills the rest of the picture with grey.
    monkeypatch.setattr(cv2, 'imdecode', lambda content, flag: np.zeros((24, 32, 3), np.uint8))
    pairs.image('a').write_bytes(pairs.image('a').read_bytes()[:-30])
    with pytest.raises(InputError, match='is cut short'):
        LoadImageFromFile()(item(pairs))


def test_unreadable_images_can_be_skipped(pairs):
    pairs.image('a').write_text('')
    assert LoadImageFromFile(ignore_empty=True)(item(pairs)) is None


def test_colour_mask(pairs):
    pairs.spoil('a', lambda mask: np.stack([mask] * 3, -1))
    with pytest.raises(InputError, match=r'a\.png is a colour picture \(RGB\)'):
        LoadAnnotations()(item(pairs))


def test_large_values_do_not_wrap(pairs):
    pairs.spoil('a', lambda mask: mask.astype(np.uint16) + 256)
    with pytest.raises(InputError, match='holds the value 259'):
        LoadAnnotations()(item(pairs))


def test_size_is_compared_with_the_picture_as_loaded(pairs):
    pairs.spoil('a', lambda mask: mask[:, :30])
    with pytest.raises(InputError, match=r'a\.png is 30x24 pixels but image .*a\.jpg is 32x24'):
        load_both(item(pairs))


def test_size_is_compared_after_a_resize_too(pairs):
    resized = mmcv.transforms.Resize(scale=(16, 12))(LoadImageFromFile()(item(pairs)))
    assert LoadAnnotations()(resized)['gt_seg_map'].shape == (24, 32)


def test_label_beyond_the_classes(pairs):
    pairs.spoil('a', lambda mask: mask + 1)
    with pytest.raises(InputError, match=r'mask .*a\.png hold the value 4, but 3 classes'):
        LoadAnnotations()(item(pairs))
    assert LoadAnnotations()(item(pairs, num_classes=None))['gt_seg_map'].max() == 3


def test_an_ignored_label_other_than_255(pairs):
    pairs.spoil('a', lambda mask: np.where(mask == 0, 200, mask - 1).astype(np.uint8))
    results = item(pairs, reduce_zero_label=False)
    assert LoadAnnotations(ignore_index=200)(results)['gt_seg_map'].max() == 200


def test_transform_and_data_set_disagree(pairs):
    with pytest.warns(UserWarning, match='reduce_zero_label'):
        transform = LoadAnnotations(reduce_zero_label=False)
    with pytest.raises(InputError, match='reduce_zero_label is False in LoadAnnotations but True in the dataset'):
        transform(item(pairs))


def test_transforms_travel_to_workers():
    for transform in (LoadImageFromFile(), LoadAnnotations(ignore_index=7)):
        assert repr(pickle.loads(pickle.dumps(transform))) == repr(transform)


def as_list(batch):
    return batch


@pytest.mark.parametrize('kind', ['image', 'mask'])
def test_sentence_survives_the_loader_process(pairs, kind):
    dataset = build_dataset(pairs.config())
    path = getattr(pairs, kind)('b')
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError) as caught:
        list(DataLoader(dataset, num_workers=1, collate_fn=as_list))
    assert sentence(caught.value) == (
        f'{kind} {path} is cut short after {path.stat().st_size:,} bytes: copy or download it again'
    )


def test_label_is_checked_in_our_data_sets(pairs):
    dataset = build_dataset(pairs.config())
    pairs.spoil('b', lambda mask: mask + 1)
    with pytest.raises(InputError, match=r'b\.png hold the value 4'):
        dataset[1]


# JPEG files decoded at a fraction of their sides


def write_big(pairs, orientation=None, size=(600, 900)):
    """A photograph-like picture and a mask with the same outlines."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    mask = 1 + ((y // 200 + x // 300) % 3).astype(np.uint8)
    picture = np.stack([80 * mask, x * 255 // width, y * 255 // height], -1).astype(np.uint8)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(picture).save(pairs.image('a'), quality=95, exif=exif)
    if orientation in (6, 8):
        mask = np.rot90(mask, 1 if orientation == 8 else -1)
    Image.fromarray(np.ascontiguousarray(mask)).save(pairs.mask('a'))


@pytest.mark.parametrize(
    'enough_for, reduction',
    [
        ((900, 600), 1),
        ((451, 301), 1),
        ((450, 300), 2),
        ((300, 450), 2),  # in either order
        ((4096, 300), 2),
        ((225, 150), 4),
        ((20, 20), 8),
    ],
)
def test_decoding_no_more_than_is_enough(pairs, enough_for, reduction):
    write_big(pairs)
    results = load_both(item(pairs)) | dict(num_classes=3)
    reduced = LoadAnnotations()(LoadImageFromFile(enough_for=enough_for)(item(pairs)))
    size = tuple(-(-side // reduction) for side in (600, 900))
    assert reduced['img_shape'] == reduced['img'].shape[:2] == reduced['gt_seg_map'].shape == size
    assert reduced['ori_shape'] == (600, 900)
    assert reduced.get('jpeg_reduction', 1) == reduction
    rows, columns = (((np.arange(n) + 0.5) * whole / n).astype(int) for n, whole in zip(size, (600, 900), strict=True))
    np.testing.assert_array_equal(reduced['gt_seg_map'], results['gt_seg_map'][np.ix_(rows, columns)])
    expected = cv2.resize(results['img'], size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(reduced['img'].astype(int) - expected).mean() < 2


@pytest.mark.parametrize('orientation', [3, 6, 8])
def test_reduced_decoding_turns_the_picture(pairs, orientation):
    write_big(pairs, orientation)
    results = LoadImageFromFile(enough_for=(450, 300))(item(pairs))
    whole = LoadImageFromFile()(item(pairs))
    assert results['ori_shape'] == whole['ori_shape'] == ((600, 900) if orientation == 3 else (900, 600))
    assert results['img_shape'] == tuple(side // 2 for side in whole['img_shape'])
    expected = cv2.resize(whole['img'], results['img_shape'][::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(results['img'].astype(int) - expected).mean() < 2
    assert LoadAnnotations()(results)['gt_seg_map'].shape == results['img_shape']


def test_reduced_decoding_through_pipelines(pairs):
    """Training: both come out alike. Testing: the mask that is loaded after the resize stays whole."""
    write_big(pairs)
    load = dict(type='LoadImageFromFile', enough_for=(400, 200))
    resize, labels, pack = (dict(type=name) for name in ('Resize', 'LoadAnnotations', 'PackSegInputs'))
    resize.update(scale=(400, 133), keep_ratio=True)
    crop = dict(type='RandomCrop', crop_size=(64, 96), cat_max_ratio=0.75)
    dataset = build_dataset(pairs.config(pipeline=[load, labels, resize, crop, pack]))
    sample = dataset[0]
    assert sample['inputs'].shape == (3, 64, 96) and sample['data_samples'].gt_sem_seg.shape == (64, 96)
    # The first channel (last in BGR order) was drawn from the labels.
    drawn = (sample['inputs'][2].float() / 80).round().long() - 1
    assert (drawn == sample['data_samples'].gt_sem_seg.data[0]).float().mean() > 0.97
    sample = build_dataset(pairs.config(pipeline=[load, resize, labels, pack]))[0]
    assert sample['inputs'].shape[1:] == (133, 200) and sample['data_samples'].gt_sem_seg.shape == (600, 900)
    assert sample['data_samples'].ori_shape == (600, 900)
    with pytest.raises(InputError, match=r'a\.jpg was decoded at 1/2 of its sides for a resize that does not come'):
        build_dataset(pairs.config(pipeline=[load, labels, pack]))[0]


def test_other_formats_are_decoded_whole(pairs):
    write_big(pairs)
    with Image.open(pairs.image('a')) as picture:
        picture.save(pairs.image('a').with_suffix('.png'))
    results = LoadImageFromFile(enough_for=(20, 20))(item(pairs, img_path=str(pairs.image('a').with_suffix('.png'))))
    assert results['img_shape'] == results['ori_shape'] == (600, 900) and 'jpeg_reduction' not in results


@pytest.mark.parametrize('spoil', [lambda path: path.write_bytes(path.read_bytes()[:-30]), os.remove])
def test_reduced_decoding_of_a_bad_file(pairs, spoil):
    write_big(pairs)
    spoil(pairs.image('a'))
    with pytest.raises(InputError, match=r'a\.jpg (is cut short|does not exist)'):
        LoadImageFromFile(enough_for=(20, 20))(item(pairs))


@pytest.mark.parametrize('enough_for', [512, (512,), (0, 512), (1, 2, 3)])
def test_reduced_decoding_wants_two_sides(enough_for):
    with pytest.raises(InputError, match=r'must be two sides in pixels: \(long, short\)'):
        LoadImageFromFile(enough_for=enough_for)


def test_reduced_decoding_of_grey_pictures_is_refused():
    with pytest.raises(InputError, match='leave out color_type'):
        LoadImageFromFile(color_type='grayscale', enough_for=(20, 20))
