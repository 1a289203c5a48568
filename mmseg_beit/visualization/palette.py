"""Colours of classes: the data set's own, or distinct ones made for any number of classes."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

# Linear sRGB to CIE XYZ, each row divided by the white point D65, so that white becomes (1, 1, 1).
_RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_RGB_TO_WHITE = _RGB_TO_XYZ / _RGB_TO_XYZ.sum(axis=1, keepdims=True)


def class_palette(dataset_meta: Mapping, num_classes: int) -> np.ndarray:
    """The colours to draw a data set's classes in.

    Args:
        dataset_meta: mmseg's meta information; its ``palette`` is used when it has a colour for every class.
        num_classes: K.

    Returns:
        uint8 RGB (K, 3); :func:`distinct_palette` where the data set has none.
    """
    palette = dataset_meta.get('palette')
    if isinstance(palette, Sequence | np.ndarray) and not isinstance(palette, str) and len(palette) >= num_classes:
        colors = np.asarray(palette[:num_classes])
        if colors.shape == (num_classes, 3) and colors.min() >= 0 and colors.max() <= 255:
            return colors.astype(np.uint8)
    return distinct_palette(num_classes)


@lru_cache(maxsize=8)
def distinct_palette(num_classes: int) -> np.ndarray:
    """Colours as unlike each other as they can be: each next one is the farthest from all before it in CIELAB.

    The same number always gives the same colours, and a smaller number the first of them (up to 4913 classes).

    Args:
        num_classes: K, at least 1.

    Returns:
        uint8 RGB (K, 3), all different, none black or white; read-only.
    """
    side = 17
    while side**3 < num_classes + 2:
        side += 1
    steps = np.round(np.linspace(0, 255, side)).astype(np.uint8)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing='ij'), axis=-1).reshape(-1, 3)
    lab = rgb_to_lab(candidates)
    # Distance to the nearest colour that is taken; black and white are taken from the start.
    distance = np.minimum(*(np.linalg.norm(lab - lab[i], axis=1) for i in (0, len(lab) - 1)))
    chosen = []
    for _ in range(num_classes):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    palette = candidates[chosen]
    palette.flags.writeable = False
    return palette


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB colours: uint8 (..., 3) to float64 (..., 3), L in 0..100."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _RGB_TO_WHITE.T
    x, y, z = np.moveaxis(np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
