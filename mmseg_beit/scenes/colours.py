"""Albedo palettes (linear RGB) and small helpers on colours.

The palettes of different classes overlap on purpose: a colour alone must not tell the class.
"""

import numpy as np

Colour = np.ndarray

#: Plaster, stone, brick and concrete; also used for pavements, rock and garments.
MASONRY = np.array(
    [
        [0.42, 0.38, 0.31], [0.55, 0.51, 0.44], [0.32, 0.17, 0.11], [0.38, 0.23, 0.16], [0.30, 0.29, 0.28],
        [0.60, 0.58, 0.54], [0.50, 0.40, 0.24], [0.24, 0.22, 0.20], [0.47, 0.31, 0.24], [0.36, 0.38, 0.38],
        [0.28, 0.33, 0.27], [0.33, 0.37, 0.43],
    ]
)  # fmt: skip
FOLIAGE = np.array(
    [
        [0.075, 0.110, 0.022], [0.100, 0.135, 0.026], [0.050, 0.080, 0.022], [0.130, 0.140, 0.030],
        [0.055, 0.070, 0.030], [0.170, 0.115, 0.028], [0.085, 0.115, 0.035],
    ]
)  # fmt: skip
TURF = np.array(
    [
        [0.075, 0.120, 0.028], [0.110, 0.150, 0.035], [0.150, 0.155, 0.050], [0.055, 0.095, 0.030],
        [0.200, 0.170, 0.075], [0.095, 0.115, 0.045],
    ]
)  # fmt: skip
SOIL = np.array([[0.20, 0.14, 0.09], [0.30, 0.23, 0.15], [0.15, 0.11, 0.08], [0.36, 0.30, 0.22], [0.24, 0.20, 0.16]])
ASPHALT = np.array([[0.10, 0.10, 0.10], [0.15, 0.145, 0.14], [0.20, 0.195, 0.185], [0.075, 0.078, 0.085]])
PAVING = np.array(
    [[0.30, 0.29, 0.27], [0.38, 0.35, 0.30], [0.22, 0.215, 0.21], [0.30, 0.20, 0.15], [0.17, 0.168, 0.165]]
)
PAINTS = np.array(
    [
        [0.55, 0.55, 0.55], [0.30, 0.31, 0.33], [0.03, 0.03, 0.035], [0.75, 0.75, 0.73], [0.30, 0.02, 0.02],
        [0.03, 0.06, 0.22], [0.02, 0.10, 0.06], [0.40, 0.33, 0.20], [0.10, 0.11, 0.12], [0.06, 0.16, 0.28],
        [0.45, 0.28, 0.03], [0.12, 0.03, 0.04],
    ]
)  # fmt: skip
GARMENTS = np.array(
    [
        [0.03, 0.03, 0.04], [0.04, 0.06, 0.14], [0.50, 0.48, 0.45], [0.28, 0.06, 0.06], [0.10, 0.13, 0.08],
        [0.22, 0.16, 0.10], [0.12, 0.20, 0.30], [0.42, 0.33, 0.12], [0.16, 0.16, 0.17], [0.22, 0.12, 0.17],
        [0.08, 0.16, 0.15], [0.65, 0.63, 0.60],
    ]
)  # fmt: skip
SKIN = np.array([[0.50, 0.30, 0.21], [0.36, 0.20, 0.13], [0.18, 0.09, 0.055], [0.58, 0.38, 0.29]])
TIMBER = np.array([[0.22, 0.15, 0.09], [0.30, 0.26, 0.21], [0.12, 0.09, 0.07], [0.45, 0.43, 0.40], [0.10, 0.14, 0.09]])
ROOFS = np.array([[0.25, 0.10, 0.06], [0.10, 0.10, 0.11], [0.18, 0.13, 0.10], [0.33, 0.16, 0.10], [0.16, 0.17, 0.19]])


def pick(rng: np.random.Generator, palette: np.ndarray, spread: float = 0.12) -> Colour:
    """Draws a colour near one of a palette's: float32 (3,), brightness and each channel jittered by ``spread``."""
    colour = palette[rng.integers(len(palette))]
    jitter = np.exp(rng.normal(0, spread) + rng.normal(0, spread / 3, 3))
    return np.clip(colour * jitter, 0.004, 0.85).astype(np.float32)


def tint(colour: Colour, gain: np.ndarray) -> np.ndarray:
    """Spreads a colour over pixels with a gain each: float32 (3, N)."""
    return colour[:, None] * gain.astype(np.float32)


def blend(under: np.ndarray, over: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mixes two (3, N) or (3,) colours by a share (N,) of the second."""
    if over.ndim == 1:
        over = over[:, None]
    if under.ndim == 1:
        under = under[:, None]
    return (under + (over - under) * share).astype(np.float32)


def step(value: np.ndarray, edge: float, width: float | np.ndarray) -> np.ndarray:
    """A smooth step of a value across an edge: 0 well below, 1 well above."""
    return np.clip((value - edge) / np.maximum(width, 1e-6) + 0.5, 0, 1).astype(np.float32)
