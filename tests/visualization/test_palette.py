"""Colours for any number of classes."""

import numpy as np
import pytest

from mmseg_beit.visualization import class_palette, distinct_palette
from mmseg_beit.visualization.palette import rgb_to_lab


@pytest.mark.parametrize('num_classes', [1, 2, 23, 150, 847])
def test_distinct_palette_has_a_different_colour_for_every_class(num_classes):
    palette = distinct_palette(num_classes)
    assert palette.shape == (num_classes, 3) and palette.dtype == np.uint8
    assert len(np.unique(palette, axis=0)) == num_classes


def test_more_classes_than_the_usual_candidates():
    assert len(np.unique(distinct_palette(5000), axis=0)) == 5000


def test_distinct_palette_is_the_same_each_time_and_grows_at_its_end():
    first = distinct_palette(40).copy()
    distinct_palette.cache_clear()
    assert (distinct_palette(40) == first).all()
    assert (distinct_palette(10) == first[:10]).all()


def test_few_classes_are_far_apart_black_and_white_too():
    lab = rgb_to_lab(np.concatenate([distinct_palette(12), [[0, 0, 0], [255, 255, 255]]]))
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert distance[~np.eye(14, dtype=bool)].min() > 40


def test_lab_of_known_colours():
    lab = rgb_to_lab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [119, 119, 119]]))
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [50.03, 0, 0]]
    np.testing.assert_allclose(lab, expected, atol=0.05)


def test_the_data_set_palette_wins_where_it_fits():
    own = [[1, 2, 3], [4, 5, 6]]
    assert class_palette(dict(palette=own), 2).tolist() == own
    for unusable in (None, [], [[1, 2, 3]], [[1, 2]] * 2, [[1, 2, 300]] * 2, 'random'):
        assert (class_palette(dict(palette=unusable), 2) == distinct_palette(2)).all()
