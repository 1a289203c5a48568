"""Band-limited noise: one tileable fractal tile, looked up at world positions and faded out below a pixel's size."""

from functools import lru_cache

import cv2
import numpy as np

_SIZE = 512
#: Tile cells per smallest and per largest feature of the fractal tile.
_FINEST, _COARSEST = 2.5, 40.0
#: ``cv2.remap`` refuses maps with a side above 32767, so flat lists of positions are folded to rows of this length.
_ROW = 1024


@lru_cache(maxsize=1)
def _tile() -> np.ndarray:
    """Returns the fractal tile: float32 (512, 512, 3), value (zero mean, unit deviation) and its two gradients."""
    rng = np.random.default_rng(20210615)
    frequency = np.hypot(np.fft.fftfreq(_SIZE)[:, None], np.fft.rfftfreq(_SIZE)[None])
    band = np.clip(frequency, 1 / _COARSEST, None) ** -1.35 * np.exp(-((frequency * _FINEST) ** 2))
    band[0, 0] = 0
    value = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((_SIZE, _SIZE))) * band, s=(_SIZE, _SIZE))
    value /= value.std()
    along_x = (np.roll(value, -1, 1) - np.roll(value, 1, 1)) / 2
    along_y = (np.roll(value, -1, 0) - np.roll(value, 1, 0)) / 2
    return np.ascontiguousarray(np.stack([value, along_x, along_y], -1), dtype=np.float32)


@lru_cache(maxsize=1)
def _value() -> np.ndarray:
    return np.ascontiguousarray(_tile()[..., 0])


def _wrap(x: np.ndarray) -> np.ndarray:
    """Wraps positions into the tile; several times faster than ``np.mod``."""
    x = x.astype(np.float32, copy=False)
    return x - np.float32(_SIZE) * np.floor(x * np.float32(1 / _SIZE))


def _lookup(tile: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Reads a wrapped tile bilinearly at positions in cells; any shape of positions, at most two dimensions."""
    if not x.size:
        return np.zeros((*x.shape, *tile.shape[2:]), np.float32)
    x, y = _wrap(x), _wrap(y)
    if x.ndim == 2:
        return cv2.remap(tile, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    num = x.size
    rows = -(-num // _ROW)
    maps = np.empty((2, rows * _ROW), np.float32)
    maps[0, :num], maps[1, :num] = x, y
    maps[:, num:] = 0
    out = cv2.remap(
        tile, maps[0].reshape(rows, _ROW), maps[1].reshape(rows, _ROW), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )
    return out.reshape((rows * _ROW, *out.shape[2:]))[:num]


def _fade(feature: float, footprint: np.ndarray | float | None) -> np.ndarray | float:
    """Share of the contrast left when features of this size are seen through pixels of this footprint."""
    if footprint is None:
        return 1.0
    return 1 / (1 + (np.asarray(footprint, np.float32) / (0.35 * feature)) ** 2)


def fractal(
    x: np.ndarray, y: np.ndarray, feature: float, offset: float = 0.0, footprint: np.ndarray | float | None = None
) -> np.ndarray:
    """Fractal noise at world positions.

    Args:
        x: Positions in metres, float32, (N,) or (H, W).
        y: Positions in metres, as ``x``.
        feature: Size in metres of the largest features; the smallest are a sixteenth of it.
        offset: Shifts the tile, so that two textures of one scene differ.
        footprint: Size in metres of a pixel at each position; contrast finer than it fades out.

    Returns:
        Zero mean, about unit deviation, float32, as ``x``.
    """
    scale, offset = _COARSEST / float(feature), float(offset)
    out = _lookup(_value(), x * scale + 71.3 * offset, y * scale + 37.7 * offset)
    return out * _fade(feature / 3, footprint)


def fractal_slope(
    x: np.ndarray, y: np.ndarray, feature: float, offset: float = 0.0, footprint: np.ndarray | float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes along x and y of :func:`fractal`, scaled to about unit deviation; arguments as there."""
    scale, offset = _COARSEST / float(feature), float(offset)
    out = _lookup(_tile(), x * scale + 71.3 * offset, y * scale + 37.7 * offset)
    fade = _fade(feature / 3, footprint) * 4.0
    return out[..., 1] * fade, out[..., 2] * fade


def ridge(x: np.ndarray, feature: float, offset: float = 0.0) -> np.ndarray:
    """Fractal noise along a line: the outline of hills and tree tops; arguments as in :func:`fractal`."""
    return fractal(x, np.full_like(x, 11.0 * offset), feature, offset)


def cell_random(i: np.ndarray, j: np.ndarray, salt: float = 0.0) -> np.ndarray:
    """A fixed pseudo-random number in 0..1 for each integer cell (i, j): float32, as ``i``."""
    phase = np.asarray(i, np.float64) * 12.9898 + np.asarray(j, np.float64) * 78.233 + salt * 3.7
    return np.mod(np.sin(phase) * 43758.5453, 1.0).astype(np.float32)
