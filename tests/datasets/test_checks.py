"""Checks of a data set before training: each mistake is one sentence that names the file and the remedy."""

import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from mmseg_beit.datasets.checks import build_dataset, check_dataset, leaf_datasets, scan_dataset
from mmseg_beit.datasets.checks.labels import explain_bad_values, explain_lost_labels, label_table, name_values
from mmseg_beit.errors import InputError, MissingFileError, sentence

from .conftest import PIPELINE


def said(config, kind=InputError, **kwargs):
    """What the check of a data set says."""
    with pytest.raises(kind) as caught:
        check_dataset(config, **kwargs)
    text = sentence(caught.value)
    assert '\n' not in text
    return text


def present(*values):
    flags = np.zeros(256, bool)
    flags[list(values)] = True
    return flags


# Sound data ---------------------------------------------------------------------------------------------------------


def test_sound_data_is_counted(pairs):
    (report,) = check_dataset(pairs.config())
    assert (report.num_images, report.num_masks, report.num_classes) == (4, 4, 3)
    assert report.sizes == {'32x24': 4}
    # Four masks of 24 rows; each stored value covers 8 of the 32 columns; the stored 0 is ignored.
    pixels = report.class_pixels()
    assert pixels[:3].tolist() == [4 * 24 * 8] * 3 and pixels[255] == 4 * 24 * 8 and pixels.sum() == 4 * 24 * 32
    assert report.class_images()[:3].tolist() == [4, 4, 4]
    assert not report.problems and not report.doubts


def test_headers_open_the_files_without_looking_at_labels(pairs):
    pairs.spoil('b', lambda mask: mask + 100)
    (report,) = check_dataset(pairs.config(), mode='headers')
    assert report.sizes == {'32x24': 4} and report.value_pixels == []


def test_off_still_checks_names(pairs):
    assert check_dataset(pairs.config(), mode='off') == []
    os.remove(pairs.mask('b'))
    assert 'b.jpg' in said(pairs.config(), MissingFileError, mode='off')


def test_unknown_mode(pairs):
    assert "'fast'" in said(pairs.config(), mode='fast')


def test_joined_and_repeated_data_sets_are_all_checked(pairs):
    joined = dict(
        type='ConcatDataset',
        datasets=[dict(type='RepeatDataset', times=3, dataset=pairs.config()), pairs.config(indices=2)],
    )
    assert [report.num_images for report in check_dataset(joined)] == [4, 2]
    assert len(list(leaf_datasets(build_dataset(joined)))) == 2


def test_palette_masks_hold_their_indices(pairs):
    with Image.open(pairs.mask('a')) as picture:
        indexed = Image.fromarray(np.array(picture)).convert('P')
    indexed.putpalette(list(range(255, -1, -1)) * 3)
    indexed.save(pairs.mask('a'))
    (report,) = check_dataset(pairs.config())
    assert report.class_pixels()[:3].tolist() == [4 * 24 * 8] * 3


def test_masks_of_other_depths_are_read_where_their_values_fit(pairs):
    pairs.spoil('a', lambda mask: mask.astype(np.uint16))
    pairs.spoil('b', lambda mask: mask > 1)
    (report,) = check_dataset(pairs.config())
    assert report.value_images[:5] == [4, 4, 3, 3, 0]


# Folders and names --------------------------------------------------------------------------------------------------


def test_missing_root_names_the_nearest_folder(pairs):
    shutil.rmtree(pairs.root / 'images')
    text = said(pairs.config(), MissingFileError)
    assert f'folder {pairs.root}/images does not exist' in text and 'has annotations' in text
    assert 'data_prefix.img_path' in text


def test_missing_mask_folder(pairs):
    shutil.rmtree(pairs.root / 'annotations')
    assert 'data_prefix.seg_map_path' in said(pairs.config(), MissingFileError)


def test_missing_folder_of_mmsegs_own_data_set(pairs):
    shutil.rmtree(pairs.root / 'images')
    text = said(pairs.config(type='mmseg.BaseSegDataset'), MissingFileError)
    assert text.startswith(f'{pairs.root}/images does not exist')


def test_images_without_masks_are_counted_and_the_first_named(pairs):
    os.remove(pairs.mask('b'))
    os.remove(pairs.mask('d'))
    assert '2 images' in (text := said(pairs.config(), MissingFileError)) and '(b.jpg, d.jpg)' in text


def test_mmsegs_own_data_set_is_checked_by_the_scan(pairs):
    os.remove(pairs.mask('b'))
    assert '(b.jpg)' in said(pairs.config(type='mmseg.BaseSegDataset'))


def test_mask_without_image(pairs):
    os.remove(pairs.image('c'))
    text = said(pairs.config(), MissingFileError)
    assert '1 mask' in text and '(c.png)' in text and 'ann_file' in text


def test_a_list_of_names_may_leave_masks_out(pairs):
    (pairs.root / 'names.txt').write_text('a\nb\n')
    os.remove(pairs.image('c'))
    (report,) = check_dataset(pairs.config(ann_file='names.txt'))
    assert report.num_images == 2


@pytest.mark.parametrize('names, words', [('a\nz\n', '(z.jpg)'), ('', 'is empty'), (None, 'does not exist')])
def test_bad_list_of_names(pairs, names, words):
    if names is not None:
        (pairs.root / 'names.txt').write_text(names)
    text = said(pairs.config(ann_file='names.txt'), MissingFileError)
    assert words in text and 'names.txt' in text


def test_empty_folder(pairs):
    for name in 'abcd':
        os.remove(pairs.image(name))
    assert 'holds no picture: put the images there' in said(pairs.config(), MissingFileError)


def test_all_pictures_of_another_suffix(pairs):
    for name in 'abcd':
        pairs.image(name).rename(pairs.image(name).with_suffix('.JPG'))
    text = said(pairs.config(), MissingFileError)
    assert "img_suffix='.jpg'" in text and "set img_suffix='.JPG'" in text
    (report,) = check_dataset(pairs.config(img_suffix='.JPG'))
    assert report.num_images == 4


def test_one_picture_of_another_suffix(pairs):
    pairs.image('b').rename(pairs.image('b').with_suffix('.JPG'))
    text = said(pairs.config(), MissingFileError)
    assert '(b.JPG)' in text and 'rename' in text


def test_wrong_suffix_of_masks(pairs):
    text = said(pairs.config(seg_map_suffix='_label.png'), MissingFileError)
    assert 'a_label.png' in text and 'seg_map_suffix' in text


def test_pipeline_without_masks_wants_none(pairs):
    shutil.rmtree(pairs.root / 'annotations')
    (report,) = check_dataset(pairs.config(pipeline=[PIPELINE[0], PIPELINE[2]]))
    assert (report.num_images, report.num_masks) == (4, 0)


# Files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('mode', ['full', 'headers'])
@pytest.mark.parametrize('kind', ['image', 'mask'])
@pytest.mark.parametrize('damage, words', [('half', 'cut short'), ('empty', ''), ('text', 'not a picture')])
def test_damaged_file_is_named(pairs, kind, damage, words, mode):
    path = getattr(pairs, kind)('b')
    content = path.read_bytes()
    path.write_bytes({'half': content[: len(content) // 2], 'empty': b'', 'text': b'<html>404</html>'}[damage])
    text = said(pairs.config(), mode=mode)
    assert text.startswith(f'{kind} {path}') and words in text


def test_jpeg_with_a_preview_is_seen_to_be_cut_short(pairs):
    content, preview = pairs.image('a').read_bytes(), pairs.image('b').read_bytes()
    inner = b'\xff\xe9' + (len(preview) + 2).to_bytes(2, 'big') + preview
    whole = content[:2] + inner + content[2:]
    pairs.image('a').write_bytes(whole)
    check_dataset(pairs.config())
    pairs.image('a').write_bytes(whole[:-200])
    assert 'cut short' in said(pairs.config())


def test_bytes_after_the_end_are_allowed(pairs):
    for path in (pairs.image('a'), pairs.mask('a')):
        path.write_bytes(path.read_bytes() + b'\0' * 500)
    check_dataset(pairs.config())


@pytest.mark.parametrize('mode', ['full', 'headers'])
@pytest.mark.parametrize('colours', ['RGB', 'RGBA', 'LA'])
def test_colour_mask(pairs, colours, mode):
    with Image.open(pairs.mask('b')) as picture:
        coloured = picture.convert(colours)
    coloured.save(pairs.mask('b'))
    text = said(pairs.config(), mode=mode)
    assert f'b.png is a colour picture ({colours})' in text and '8-bit PNG' in text


def test_palette_with_a_backend_that_decodes_colours(pairs):
    with Image.open(pairs.mask('b')) as picture:
        indexed = Image.fromarray(np.array(picture)).convert('P')
    indexed.save(pairs.mask('b'))
    pipeline = [PIPELINE[0], dict(type='LoadAnnotations', imdecode_backend='cv2'), PIPELINE[2]]
    assert "imdecode_backend='pillow'" in said(pairs.config(pipeline=pipeline))


def test_values_beyond_8_bits(pairs):
    pairs.spoil('b', lambda mask: mask.astype(np.uint16) * 300)
    text = said(pairs.config())
    assert 'b.png holds the value 900' in text and '8-bit' in text


@pytest.mark.parametrize('mode', ['full', 'headers'])
def test_sizes_differ(pairs, mode):
    for name in 'bcd':
        pairs.spoil(name, lambda mask: mask[:20])
    text = said(pairs.config(), mode=mode)
    assert 'b.png is 32x20 pixels' in text and 'b.jpg is 32x24' in text
    assert '(2 more like it: c.png, d.png)' in text


def test_sizes_are_compared_as_exif_rotation_shows_them(pairs):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    with Image.open(pairs.image('b')) as picture:
        picture.save(pairs.image('b'), exif=exif)
    text = said(pairs.config())
    assert 'b.png is 32x24' in text and 'b.jpg is 24x32' in text and 'EXIF' in text
    pairs.spoil('b', np.rot90)
    (report,) = check_dataset(pairs.config())
    assert report.sizes == {'32x24': 3, '24x32': 1}
    # A loader that ignores the rotation wants the mask as the picture is stored.
    stored = [dict(type='LoadImageFromFile', color_type='color_ignore_orientation'), *PIPELINE[1:]]
    assert 'b.jpg is 32x24' in said(pairs.config(pipeline=stored))


def test_several_kinds_of_problems_are_all_reported(pairs):
    pairs.spoil('a', lambda mask: mask[:20])
    pairs.image('b').write_bytes(pairs.image('b').read_bytes()[:-50])
    pairs.spoil('c', lambda mask: mask + 90)
    assert '(and 2 more kinds of problem' in said(pairs.config())
    report = scan_dataset(build_dataset(pairs.config()))
    assert len(report.problems) == 3


# Labels -------------------------------------------------------------------------------------------------------------


def test_table_has_mmsegs_arithmetic():
    plain, reduced = label_table(False), label_table(True)
    assert plain.tolist() == list(range(256))
    assert reduced[[0, 1, 2, 150, 254, 255]].tolist() == [255, 0, 1, 149, 253, 255]
    renamed = label_table(True, {0: 255, 1: 0, 2: 1})
    assert renamed[[0, 1, 2, 3, 4]].tolist() == [255, 255, 0, 1, 3]


def test_value_beyond_the_classes_names_the_mask(pairs):
    pairs.spoil('c', lambda mask: np.where(mask == 3, 4, mask).astype(np.uint8))
    text = said(pairs.config())
    assert '1 of 4 masks (first' in text and 'c.png) hold the value 4' in text
    assert '3 classes are stored as 1..3' in text


def test_labels_from_1_without_reduce_zero_label(pairs):
    text = said(pairs.config(reduce_zero_label=False))
    assert 'hold the value 3' in text and 'set reduce_zero_label=True' in text


def test_labels_from_0_with_reduce_zero_label(pairs):
    for name in 'abcd':
        pairs.spoil(name, lambda mask: np.where(mask == 0, 255, mask - 1).astype(np.uint8))
    check_dataset(pairs.config(reduce_zero_label=False))
    assert 'set reduce_zero_label=False' in said(pairs.config())
    # Chance in a small validation set: a doubt, no mistake.
    (report,) = check_dataset(pairs.config(test_mode=True))
    assert 'reduce_zero_label=False' in report.doubts[0]


@pytest.mark.parametrize('reduce_zero_label', [False, True])
def test_black_and_white_masks(pairs, reduce_zero_label):
    for name in 'abcd':
        pairs.spoil(name, lambda mask: np.where(mask > 1, 255, 0).astype(np.uint8))
    config = pairs.config(reduce_zero_label=reduce_zero_label, metainfo=dict(classes=('no', 'yes')))
    assert 'hold only 0 and 255' in (text := said(config)) and 'mask // 255' in text


def test_nothing_labelled(pairs):
    for name in 'abcd':
        pairs.spoil(name, lambda mask: mask * 0)
    assert 'nothing can be learnt' in said(pairs.config())


def test_chosen_classes_are_checked_after_renaming(pairs, project):
    config = pairs.config(type='ADE20KDataset', metainfo=dict(classes=('building', 'sky')))
    (report,) = check_dataset(config)
    # Stored 1, 2, 3 are wall, building, sky: wall is not asked for and ignored like the stored 0.
    pixels = report.class_pixels()
    assert pixels[[0, 1, 255]].tolist() == [4 * 24 * 8, 4 * 24 * 8, 2 * 4 * 24 * 8]


def test_class_count_of_the_model(pairs):
    text = said(pairs.config(), num_classes=150)
    assert 'num_classes=150' in text and 'names 3 classes' in text


def test_other_ignored_labels(pairs):
    table = label_table(True)
    assert explain_bad_values(present(0, 1, 3), table, 3, True) is None
    said_of_254 = explain_bad_values(present(0, 1, 3), table, 3, True, ignore_index=254)
    assert 'set ignore_index=255' in said_of_254 and 'instead of 254' in said_of_254


def test_grey_levels_are_recognised():
    text = explain_bad_values(present(*range(0, 250, 5)), label_table(False), 3, False)
    assert 'grey levels' in text


def test_lost_labels_are_seen_only_where_certain():
    table = label_table(True)
    assert explain_lost_labels(present(0, 1, 2), table, 3, True) is not None
    assert explain_lost_labels(present(0, 1, 2, 3), table, 3, True) is None
    assert explain_lost_labels(present(0, 1), table, 150, True) is None


def test_values_are_named_briefly():
    assert name_values(np.array([4])) == '4'
    assert name_values(np.array([4, 5, 7, 8, 9, 20])) == '4, 5, 7..9, 20'
    assert name_values(np.arange(1, 99, 2)).endswith('... up to 97')


# Memory -------------------------------------------------------------------------------------------------------------


def test_sound_data_is_remembered_until_a_file_changes(pairs, tmp_path):
    memory = str(tmp_path / 'work')
    (first,) = check_dataset(pairs.config(), cache_dir=memory)
    (second,) = check_dataset(pairs.config(), cache_dir=memory)
    assert (first.remembered, second.remembered) == (False, True)
    assert second.class_pixels().tolist() == first.class_pixels().tolist()
    pairs.spoil('c', lambda mask: mask + 90)
    os.utime(pairs.mask('c'), (time.time() + 5,) * 2)
    assert 'c.png' in said(pairs.config(), cache_dir=memory)


def test_settings_are_part_of_the_memory(pairs, tmp_path):
    check_dataset(pairs.config(), cache_dir=str(tmp_path))
    assert 'reduce_zero_label=True' in said(pairs.config(reduce_zero_label=False), cache_dir=str(tmp_path))
    (report,) = check_dataset(pairs.config(), cache_dir=str(tmp_path), mode='headers')
    assert not report.remembered


def test_mistakes_are_not_remembered_and_the_data_stay_untouched(pairs, tmp_path):
    pairs.spoil('c', lambda mask: mask + 90)
    before = sorted(pairs.root.rglob('*'))
    said(pairs.config(), cache_dir=str(tmp_path / 'work'))
    assert not (tmp_path / 'work').exists()
    assert sorted(pairs.root.rglob('*')) == before


def test_a_spoilt_or_unwritable_memory_costs_only_time(pairs, tmp_path):
    (tmp_path / 'data_check.json').write_text('{"x": ')
    (report,) = check_dataset(pairs.config(), cache_dir=str(tmp_path))
    assert not report.remembered
    (tmp_path / 'file').write_text('')
    check_dataset(pairs.config(), cache_dir=str(tmp_path / 'file' / 'work'))


# Real data ----------------------------------------------------------------------------------------------------------


def test_msrc_is_sound(msrc):
    config = dict(
        type='MSRCDataset',
        data_root=str(msrc),
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=PIPELINE,
    )
    (report,) = check_dataset(config, num_classes=23)
    assert report.num_images == report.num_masks == 147 and not report.doubts
    assert (report.class_pixels()[:23] > 0).all()


def test_ade20k_samples_are_sound(ade20k_samples):
    config = dict(
        type='ADE20KDataset',
        data_root=str(ade20k_samples),
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=PIPELINE,
    )
    (report,) = check_dataset(config, num_classes=150)
    assert report.num_images == 3 and report.sizes['683x512'] == 1 and not report.doubts
