"""Colours by principal components, by hand."""

import numpy as np

from mmseg_beit.visualization.principal import PrincipalColors


def test_one_component_by_hand():
    """Vectors on a line: the ends' percentiles become black and white along it, the other components middle grey."""
    line = np.linspace(-1, 1, 101)[:, None] * np.array([[3.0, 4.0, 0.0, 0.0]]) + 7
    colors = PrincipalColors.of(line)
    np.testing.assert_allclose(colors.axes[:, 0], [0.6, 0.8, 0, 0], atol=1e-9)
    # The percentiles 2 and 98 are at -0.96 and 0.96 of the line.
    found = colors(line[[0, 2, 50, 74, 98, 100]])
    assert found[:, 0].tolist() == [0, 0, 128, round(255 * (0.48 + 0.96) / 1.92), 255, 255]
    assert set(found[:, 1:].flatten()) == {128}


def test_fewer_numbers_than_colours():
    assert PrincipalColors.of(np.array([[0.0], [1.0]]))(np.zeros((2, 3, 1))).shape == (2, 3, 3)
