"""What a result says, draws and writes."""

import numpy as np
import pytest
from PIL import Image

from mmseg_beit.apis.result import make_result
from mmseg_beit.errors import InputError
from mmseg_beit.visualization import blend, distinct_palette

from .conftest import photo


def result(num_classes=3, reduce_zero_label=False, mask=None):
    mask = np.arange(48 * 64).reshape(48, 64) % num_classes if mask is None else mask
    meta = dict(classes=[f'c{k}' for k in range(num_classes)], reduce_zero_label=reduce_zero_label)
    return make_result(photo(), mask, meta)


def test_shares_are_sorted_and_sum_to_one():
    mask = np.zeros((48, 64), np.int64)
    mask[:12] = 2
    assert result(mask=mask).shares == [('c0', 0.75), ('c2', 0.25)]


def test_overlay_is_the_blend_in_the_class_colours():
    made = result()
    assert (made.overlay(0.3) == blend(photo(), made.mask, distinct_palette(3), 0.3)).all()
    assert (made.overlay(0.3, legend=True)[:48, :64] == made.overlay(0.3)).all()


@pytest.mark.parametrize(('num_classes', 'dtype'), [(255, np.uint8), (256, np.int64)])
def test_masks_are_bytes_as_long_as_they_fit(num_classes, dtype):
    assert result(num_classes).mask.dtype == dtype


@pytest.mark.parametrize(('num_classes', 'mode'), [(150, 'L'), (254, 'L'), (255, 'I;16'), (400, 'I;16')])
@pytest.mark.parametrize('reduce_zero_label', [False, True])
def test_saved_masks_hold_the_values_of_annotations(tmp_path, num_classes, mode, reduce_zero_label):
    made = result(num_classes, reduce_zero_label)
    made.save_mask(tmp_path / 'mask.png')
    with Image.open(tmp_path / 'mask.png') as image:
        assert image.mode == mode
        assert (np.asarray(image) == np.arange(48 * 64).reshape(48, 64) % num_classes + reduce_zero_label).all()


def test_saved_overlays_are_whole_and_leave_nothing_beside_them(tmp_path):
    result().save(tmp_path / 'new' / 'a.png')
    result().save(tmp_path / 'new' / 'a.png', opacity=0.2)
    assert (np.asarray(Image.open(tmp_path / 'new' / 'a.png')) == result().overlay(0.2)).all()
    result().save(tmp_path / 'new' / 'a.jpg', legend=True)
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == ['a.jpg', 'a.png']


def test_mistakes_are_sentences(tmp_path):
    (tmp_path / 'file').write_text('x')
    for call, said in (
        (lambda: result().save(tmp_path / 'a.xyz'), 'a.xyz ends in no format'),
        (lambda: result().save_mask(tmp_path / 'a.jpg'), 'must be a PNG'),
        (lambda: result().save(tmp_path / 'file' / 'a.png'), 'cannot be written'),
        (lambda: result().overlay(opacity=2), 'opacity=2'),
    ):
        with pytest.raises(InputError, match=said):
            call()
