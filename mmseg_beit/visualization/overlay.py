"""Class masks drawn over pictures: pure numpy, exact to the rounding, memory in proportion to the picture only.

Shapes: H, W the picture; K classes. Pictures are uint8 RGB. A label outside 0..K-1 (255, "ignore", among them) is no
class: the picture stays as it is there.
"""

import numpy as np

from ..errors import InputError

_STRIP_PIXELS = 1 << 20


def blend(
    image: np.ndarray, mask: np.ndarray, palette: np.ndarray, opacity: float = 0.5, borders: bool = False
) -> np.ndarray:
    """Lays the classes' colours over a picture.

    Every value becomes ``round((1 - opacity) * image + opacity * colour)``, halves rounded up.

    Args:
        image: uint8 RGB (H, W, 3); not changed.
        mask: Integer (H, W), 0..K-1; other labels leave the picture as it is.
        palette: uint8 RGB (K, 3).
        opacity: Share of the colour, 0 (the picture) to 1 (the colours).
        borders: Whether regions get an outline in their full colour, inside the region.

    Returns:
        uint8 RGB (H, W, 3).

    Raises:
        InputError: ``opacity`` is outside 0..1.
        ValueError: Shapes or types do not fit.
    """
    check_opacity(opacity)
    _check_picture(image, mask)
    table = _blend_table(np.asarray(palette), opacity)
    outline = region_borders(mask, border_thickness(*mask.shape)) if borders else None
    out = np.empty_like(image)
    for rows in _strips(*mask.shape):
        rank = _class_rank(mask[rows], len(palette))
        for channel in range(3):
            out[rows, :, channel] = table[channel, rank, image[rows, :, channel]]
        if outline is not None:
            drawn = outline[rows] & (rank < len(palette))
            out[rows][drawn] = np.asarray(palette, np.uint8)[rank[drawn]]
    return out


def color_mask(mask: np.ndarray, palette: np.ndarray, background: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """The classes' colours alone: integer (H, W) to uint8 RGB (H, W, 3); labels that are no class get `background`."""
    table = np.concatenate([np.asarray(palette, np.uint8).reshape(-1, 3), np.array([background], np.uint8)])
    return table[_class_rank(mask, len(table) - 1)]


def class_shares(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """How much of a picture each class covers.

    Args:
        mask: Integer (H, W).
        num_classes: K.

    Returns:
        float64 (K + 1,), shares 0..1 of all pixels that sum to 1; the last is that of labels that are no class.
    """
    counts = np.zeros(num_classes + 1, np.int64)
    for rows in _strips(*mask.shape):
        counts += np.bincount(_class_rank(mask[rows], num_classes).ravel(), minlength=num_classes + 1)
    return counts / max(mask.size, 1)


def region_borders(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """Pixels within `thickness` of another label along rows and columns: bool (H, W). A picture's edge is none."""
    border = np.zeros(mask.shape, bool)
    for step in range(1, thickness + 1):
        for labels, drawn in ((mask, border), (mask.T, border.T)):
            differs = labels[:-step] != labels[step:]
            drawn[:-step] |= differs
            drawn[step:] |= differs
    return border


def border_thickness(height: int, width: int) -> int:
    """Outline in pixels that looks the same on pictures of any size: 1 for those seen pixel by pixel, then more."""
    return max(1, round(min(height, width) / 600))


def check_opacity(opacity: float) -> None:
    """Raises :class:`InputError` unless `opacity` is in 0..1."""
    if not 0 <= opacity <= 1:
        raise InputError(f'opacity={opacity} is out of range: choose 0 (picture only) to 1 (colours only)')


def _blend_table(palette: np.ndarray, opacity: float) -> np.ndarray:
    """Blended value by channel, class and picture value: uint8 (3, K + 1, 256); class K leaves the value alone."""
    values = np.arange(256)
    colors = palette.reshape(-1, 3).T[:, :, None].astype(np.float64)
    blended = np.floor((1 - opacity) * values + opacity * colors + 0.5)
    unchanged = np.broadcast_to(values, (3, 1, 256))
    return np.concatenate([blended, unchanged], axis=1).astype(np.uint8)


def _class_rank(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """The label where it is a class, else K: intp, the mask's shape."""
    labels = mask.astype(np.intp)
    labels[(labels < 0) | (labels >= num_classes)] = num_classes
    return labels


def _strips(height: int, width: int) -> list[slice]:
    """Rows in groups of about a million pixels: indices take eight bytes per pixel, pictures may have a billion."""
    step = max(1, _STRIP_PIXELS // max(width, 1))
    return [slice(start, start + step) for start in range(0, height, step)]


def _check_picture(image: np.ndarray, mask: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f'the picture must be uint8 RGB (H, W, 3), not {image.dtype} {image.shape}')
    if mask.shape != image.shape[:2] or mask.dtype.kind not in 'iu':
        raise ValueError(f'the mask must be integer {image.shape[:2]} like its picture, not {mask.dtype} {mask.shape}')
