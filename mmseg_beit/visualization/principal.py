"""Colours for vectors of many numbers, so that what is alike looks alike: their three principal components as RGB."""

from dataclasses import dataclass

import numpy as np

_TAILS = (2.0, 98.0)  # percentiles that become 0 and 255: a few far vectors would leave the others grey


@dataclass(frozen=True)
class PrincipalColors:
    """Maps vectors of D numbers to colours; made by :meth:`of`.

    Args:
        mean: Float (D,).
        axes: Float (D, 3), zero where there are fewer than three components.
        low: Float (3,), the components that become 0.
        high: Float (3,), those that become 255.
    """

    mean: np.ndarray
    axes: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> 'PrincipalColors':
        """The colours that tell some vectors apart best.

        Args:
            vectors: Float (M, D), finite.
        """
        vectors = np.asarray(vectors, np.float64)
        mean = vectors.mean(axis=0)
        _, _, right = np.linalg.svd(vectors - mean, full_matrices=False)
        axes = np.zeros((vectors.shape[1], 3))
        axes[:, : len(right[:3])] = right[:3].T
        # Components have no sign of their own: the greatest entry is made positive.
        axes *= np.where(axes[np.abs(axes).argmax(axis=0), range(3)] < 0, -1, 1)
        low, high = np.percentile((vectors - mean) @ axes, _TAILS, axis=0)
        return cls(mean, axes, low, high)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Float (..., D) to uint8 RGB (..., 3); a component without extent is middle grey."""
        extent = self.high - self.low
        flat = extent < 1e-12 * max(float(np.abs(extent).max()), 1.0)
        share = ((np.asarray(vectors, np.float64) - self.mean) @ self.axes - self.low) / np.where(flat, 1, extent)
        return np.rint(255 * np.where(flat, 0.5, share).clip(0, 1)).astype(np.uint8)
