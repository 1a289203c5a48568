"""Rays: the photographer's perspective camera and the sun's parallel view, from which shadows are cast.

World axes: x right, y up, z forward (along the street), in metres; the ground is y = 0.
"""

from dataclasses import dataclass

import numpy as np

Window = tuple[slice, slice]


def along(axis: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Scalar product of an axis (3,) with each of many vectors (3, ...).

    Not a matrix product: BLAS would start threads for it in every rendering process.
    """
    return axis[0] * vectors[0] + axis[1] * vectors[1] + axis[2] * vectors[2]


@dataclass
class View:
    """A bundle of rays, one per pixel.

    Attributes:
        origin: Ray origins, float32 (3, 1, 1) or (3, H, W).
        direction: Ray directions, float32 (3, H, W) or (3, 1, 1); one unit of ray length is one metre of depth.
        axes: Right, up and forward unit vectors, float32 (3, 3), one per row.
        size: (H, W).
        focal: Pixels per unit of tangent (perspective) or per metre (parallel).
        centre: Column and row of the principal point.
        perspective: Whether rays spread from one point.
    """

    origin: np.ndarray
    direction: np.ndarray
    axes: np.ndarray
    size: tuple[int, int]
    focal: float
    centre: tuple[float, float]
    perspective: bool
    eye: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """Projects points (..., 3) to column, row and depth (..., 3)."""
        offset = np.moveaxis(points - self.eye, -1, 0)
        across, up, depth = (along(axis, offset) for axis in self.axes)
        scale = self.focal / np.where(np.abs(depth) < 1e-3, 1e-3, depth) if self.perspective else self.focal
        return np.stack([self.centre[0] + across * scale, self.centre[1] - up * scale, depth], -1)

    def windows(self, corners: np.ndarray) -> list[tuple[Window, float] | None]:
        """Finds the pixels that boxes can touch.

        Args:
            corners: float (M, 8, 3), the corners of M boxes.

        Returns:
            For each box the rectangle of pixels and its least depth, or ``None`` where it is out of sight.
        """
        height, width = self.size
        spots = self.project(corners)
        low, high = spots.min(1), spots.max(1)
        first = np.maximum(low[:, :2] - 1, 0)
        last = np.minimum(high[:, :2] + 2, (width, height))
        if self.perspective:
            # A box that reaches behind the lens may show anywhere.
            behind = low[:, 2] < 0.2
            first[behind], last[behind] = 0, (width, height)
            last[high[:, 2] < 0.2] = 0
        found: list[tuple[Window, float] | None] = []
        for (left, top), (right, bottom), depth in zip(first.astype(int), last.astype(int), low[:, 2], strict=True):
            seen = left < right and top < bottom
            found.append(((slice(top, bottom), slice(left, right)), float(depth)) if seen else None)
        return found

    def rays(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Returns origins and directions of a window, one of them broadcast over its pixels."""
        if self.perspective:
            return self.origin, self.direction[:, window[0], window[1]]
        return self.origin[:, window[0], window[1]], self.direction

    def looks(self, place: np.ndarray) -> np.ndarray:
        """Directions (3, N) of a perspective view's pixels, given by their flat indices (N,)."""
        return np.take(self.direction.reshape(3, -1), place, axis=1)

    def footprint(self, depth: np.ndarray) -> np.ndarray:
        """Size in metres of a pixel at a depth, before foreshortening."""
        return depth / self.focal if self.perspective else np.full_like(depth, 1 / self.focal)


def camera(
    position: tuple[float, float, float],
    yaw: float,
    pitch: float,
    roll: float,
    field_of_view: float,
    size: tuple[int, int],
) -> View:
    """Builds the photographer's view.

    Args:
        position: Where the lens is, in metres.
        yaw: Turn to the right of the street's direction, in radians.
        pitch: Upward tilt, in radians.
        roll: Clockwise tilt of the horizon, in radians.
        field_of_view: Horizontal, in radians.
        size: (H, W) of the picture.
    """
    height, width = size
    focal = width / (2 * np.tan(field_of_view / 2))
    forward = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
    up = np.cross(forward, right)
    right, up = right * np.cos(roll) - up * np.sin(roll), up * np.cos(roll) + right * np.sin(roll)
    axes = np.stack([right, up, forward]).astype(np.float32)
    centre = (width / 2, height / 2)
    column = ((np.arange(width) + 0.5 - centre[0]) / focal).astype(np.float32)
    row = ((np.arange(height) + 0.5 - centre[1]) / focal).astype(np.float32)
    direction = axes[2][:, None, None] + axes[0][:, None, None] * column - axes[1][:, None, None] * row[:, None]
    eye = np.asarray(position, np.float32)
    return View(eye[:, None, None], direction, axes, size, focal, centre, True, eye)


def sun_view(toward_sun: np.ndarray, target: np.ndarray, radius: float, resolution: int) -> View:
    """Builds the parallel view from the sun onto the ground around ``target``.

    Args:
        toward_sun: Unit vector, float (3,).
        target: Middle of the covered ground, float (3,).
        radius: Half the side of the covered square, in metres.
        resolution: Pixels per side.
    """
    forward = -toward_sun
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= max(np.linalg.norm(right), 1e-6)
    up = np.cross(forward, right)
    axes = np.stack([right, up, forward]).astype(np.float32)
    eye = (target + toward_sun * 200.0).astype(np.float32)
    focal = resolution / (2 * radius)
    offset = ((np.arange(resolution) + 0.5 - resolution / 2) / focal).astype(np.float32)
    origin = eye[:, None, None] + axes[0][:, None, None] * offset - axes[1][:, None, None] * offset[:, None]
    centre = (resolution / 2, resolution / 2)
    direction = axes[2][:, None, None]
    return View(origin, direction, axes, (resolution, resolution), focal, centre, False, eye)
