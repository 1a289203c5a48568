"""Overlays by hand-computed values."""

import numpy as np
import pytest

from mmseg_beit.errors import InputError
from mmseg_beit.visualization import blend, class_shares, color_mask, region_borders
from mmseg_beit.visualization.overlay import border_thickness

PALETTE = np.array([[200, 0, 101], [0, 255, 0]], np.uint8)


def grey(height, width, value=100):
    return np.full((height, width, 3), value, np.uint8)


def test_blend_is_the_rounded_weighted_mean_and_leaves_other_labels_alone():
    mask = np.array([[0, 1, 255, -1, 2]])
    drawn = blend(grey(1, 5), mask, PALETTE, opacity=0.5)
    # (100 + 200) / 2, (100 + 0) / 2, (100 + 101) / 2 = 100.5 -> 101; (100 + 255) / 2 = 177.5 -> 178
    assert drawn.tolist() == [[[150, 50, 101], [50, 178, 50], [100] * 3, [100] * 3, [100] * 3]]


@pytest.mark.parametrize(('opacity', 'expected'), [(0, [100] * 3), (1, [200, 0, 101]), (0.25, [125, 75, 100])])
def test_blend_weighs_by_opacity(opacity, expected):
    assert blend(grey(1, 1), np.zeros((1, 1), np.uint8), PALETTE, opacity)[0, 0].tolist() == expected


def test_blend_does_not_change_its_arguments():
    image, mask = grey(4, 4), np.zeros((4, 4), np.int64)
    blend(image, mask, PALETTE, borders=True)
    assert (image == 100).all() and (mask == 0).all()


def test_blend_equals_the_formula_on_a_large_picture_in_strips():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1100, 1000, 3), dtype=np.uint8)
    mask = rng.integers(0, 3, (1100, 1000))
    palette = rng.integers(0, 256, (3, 3), dtype=np.uint8)
    expected = np.floor(0.7 * image + 0.3 * palette[mask].astype(float) + 0.5)
    assert np.abs(blend(image, mask, palette, 0.3) - expected).max() <= 0


@pytest.mark.parametrize('opacity', [-0.01, 1.01, float('nan')])
def test_opacity_out_of_range_is_one_sentence(opacity):
    with pytest.raises(InputError, match=r'opacity=.*choose 0'):
        blend(grey(1, 1), np.zeros((1, 1), int), PALETTE, opacity)


@pytest.mark.parametrize(
    ('image', 'mask'),
    [
        (grey(2, 2)[..., 0], np.zeros((2, 2), int)),
        (grey(2, 2).astype(float), np.zeros((2, 2), int)),
        (grey(2, 2), np.zeros((2, 3), int)),
        (grey(2, 2), np.zeros((2, 2))),
    ],
)
def test_wrong_shapes_and_types_are_refused(image, mask):
    with pytest.raises(ValueError, match='must be'):
        blend(image, mask, PALETTE)


def test_color_mask():
    assert color_mask(np.array([[1, 255, 0]]), PALETTE).tolist() == [[[0, 255, 0], [0, 0, 0], [200, 0, 101]]]


def test_class_shares_count_every_pixel_once():
    shares = class_shares(np.array([[0, 0, 1, 255]], np.uint8), 3)
    assert shares.tolist() == [0.5, 0.25, 0.0, 0.25]


def test_borders_are_both_sides_of_a_change_and_not_the_picture_edge():
    mask = np.array([[0, 0, 0, 1, 1, 1]] * 2)
    assert region_borders(mask).tolist() == [[False, False, True, True, False, False]] * 2
    assert region_borders(mask, 2).tolist() == [[False, True, True, True, True, False]] * 2
    assert region_borders(mask.T).T.tolist() == region_borders(mask).tolist()
    assert not region_borders(np.zeros((1, 1), int), 3).any()


def test_borders_are_drawn_in_the_full_colour_inside_classes_only():
    mask = np.array([[0, 0, 0, 255, 255]])
    drawn = blend(grey(1, 5), mask, PALETTE, 0.5, borders=True)
    assert drawn[0].tolist() == [[150, 50, 101]] * 2 + [[200, 0, 101]] + [[100] * 3] * 2


@pytest.mark.parametrize(('size', 'expected'), [((8, 8), 1), ((512, 512), 1), ((1200, 1600), 2), ((4000, 6000), 7)])
def test_borders_grow_with_the_picture(size, expected):
    assert border_thickness(*size) == expected
