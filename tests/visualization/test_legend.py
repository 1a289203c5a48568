"""Legends: order, numbers, layout at any picture size."""

import numpy as np
import pytest

from mmseg_beit.visualization import LegendEntry, add_legend, distinct_palette, legend_entries
from mmseg_beit.visualization.legend import _fold, _Panel, font_size, format_share

CLASSES = ['sky', 'road', 'tree']
PALETTE = distinct_palette(3)


def entries(num, name='class'):
    palette = distinct_palette(num)
    return [LegendEntry(f'{name} {k}', tuple(map(int, palette[k])), (1 / num,)) for k in range(num)]


def test_entries_are_the_classes_present_by_share():
    found = legend_entries([np.array([[2, 2, 0, 255]])], CLASSES, PALETTE)
    assert [entry.name for entry in found] == ['tree', 'sky', 'unlabelled']
    assert [entry.shares for entry in found] == [(0.5,), (0.25,), (0.25,)]
    assert found[0].color == tuple(PALETTE[2]) and found[-1].color is None


def test_entries_of_two_masks_have_two_shares():
    found = legend_entries([np.array([[0, 255]]), np.array([[1, 1]])], CLASSES, PALETTE)
    assert [(entry.name, entry.shares) for entry in found] == [
        ('road', (0.0, 1.0)),
        ('sky', (0.5, 0.0)),
        ('unlabelled', (0.5, None)),
    ]


@pytest.mark.parametrize(
    ('share', 'text'),
    [(1.0, '100.0 %'), (0.1234, '12.3 %'), (0.0005, '0.1 %'), (1e-7, '<0.1 %'), (0.0, ''), (None, '')],
)
def test_shares_are_per_cent_and_never_zero_for_what_is_there(share, text):
    assert format_share(share) == text


@pytest.mark.parametrize('size', [(8, 8), (1, 300), (300, 1), (213, 320), (320, 213), (512, 2048), (2000, 3000)])
@pytest.mark.parametrize('num', [0, 1, 7, 150])
def test_the_picture_is_the_corner_pixel_by_pixel(size, num):
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    drawn = add_legend(picture, entries(num))
    assert (drawn[: size[0], : size[1]] == picture).all()
    below = size[1] > size[0]
    assert drawn.shape[0] > size[0] if below else drawn.shape[1] > size[1]
    panel = drawn[size[0] :] if below else drawn[:, size[1] :]
    for entry in entries(num)[:3]:
        assert (panel == entry.color).all(axis=-1).any()


def test_a_panel_does_not_outgrow_a_large_picture():
    drawn = add_legend(np.zeros((600, 800, 3), np.uint8), entries(150, 'a rather long class name'))
    assert drawn.shape[1] == 800 and drawn.shape[0] <= 900


def test_what_does_not_fit_is_summed_up():
    folded = _fold(entries(10), 4, 1)
    assert [entry.name for entry in folded] == ['class 0', 'class 1', 'class 2', '7 more']
    assert folded[-1].shares[0] == pytest.approx(0.7)
    assert _fold(entries(4), 4, 1) == entries(4)


def test_long_and_odd_names_stay_inside_their_column():
    odd = ['w' * 500, 'a\nb', '\u6c34 \ud800 \x00', '']
    found = legend_entries([np.array([[0, 1, 2, 3]])], odd, distinct_palette(4))
    assert found[1].name == 'a b'
    panel = _Panel(300, 400, found, [])
    assert panel.name_width == 14 * panel.size
    assert panel.draw(below=True).shape[1] == 400


def test_type_is_readable_on_small_pictures_and_grows_with_large_ones():
    assert font_size(8, 8) == font_size(213, 320) == 13
    assert font_size(4000, 6000) == pytest.approx(109, abs=1)
