"""Solid shapes and where rays meet them, vectorised over rays.

``intersect`` takes origins and directions (3, H, W) that broadcast against each other and returns the ray length
(infinite on a miss) and the index of the face met (0 where a shape has one face), both (H, W) or broadcastable to it.
``normal`` takes points on the surface (3, N) and their faces (N,) and returns unit normals (3, N).
"""

from dataclasses import dataclass, field

import numpy as np

Meeting = tuple[np.ndarray, np.ndarray]
_FAR = np.float32(np.inf)
_ONE_FACE = np.zeros((1, 1), np.int8)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _vector(values: tuple[float, float, float] | np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)


def _column(values: np.ndarray) -> np.ndarray:
    return values[:, None, None]


@dataclass
class Ellipsoid:
    """An axis-aligned ellipsoid."""

    centre: np.ndarray
    radii: np.ndarray

    def __post_init__(self) -> None:
        self.centre, self.radii = _vector(self.centre), _vector(self.radii)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return self.centre - self.radii, self.centre + self.radii

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> Meeting:
        o = (origin - _column(self.centre)) / _column(self.radii)
        d = direction / _column(self.radii)
        a, b, c = _dot(d, d), _dot(o, d), _dot(o, o) - 1
        root = b * b - a * c
        t = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, _FAR)
        return np.where(t > 0, t, _FAR), _ONE_FACE

    def normal(self, points: np.ndarray, face: np.ndarray) -> np.ndarray:
        normal = (points - self.centre[:, None]) / self.radii[:, None] ** 2
        return normal / np.sqrt(_dot(normal, normal))


@dataclass
class Capsule:
    """All points within ``radius`` of a segment."""

    start: np.ndarray
    end: np.ndarray
    radius: float

    def __post_init__(self) -> None:
        self.start, self.end = _vector(self.start), _vector(self.end)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return np.minimum(self.start, self.end) - self.radius, np.maximum(self.start, self.end) + self.radius

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> Meeting:
        axis = _column(self.end - self.start)
        o = origin - _column(self.start)
        aa, ad, ao = float(_dot(axis, axis).item()), _dot(axis, direction), _dot(axis, o)
        dd, do, oo = _dot(direction, direction), _dot(direction, o), _dot(o, o)
        a = np.maximum(aa * dd - ad * ad, 1e-9)
        b, c = aa * do - ao * ad, aa * oo - ao * ao - self.radius**2 * aa
        root = b * b - a * c
        t = (-b - np.sqrt(np.maximum(root, 0))) / a
        along = np.clip((ao + t * ad) / aa, 0, 1)
        # Beyond an end the ray can only meet the ball around that end.
        ball = o - axis * np.where(along < 0.5, 0.0, 1.0)
        b_ball, c_ball = _dot(direction, ball), _dot(ball, ball) - self.radius**2
        root_ball = b_ball * b_ball - dd * c_ball
        t_ball = (-b_ball - np.sqrt(np.maximum(root_ball, 0))) / dd
        at_end = (along <= 0) | (along >= 1)
        t = np.where(at_end, t_ball, t)
        hit = np.where(at_end, root_ball > 0, root > 0) & (t > 0)
        return np.where(hit, t, _FAR), _ONE_FACE

    def normal(self, points: np.ndarray, face: np.ndarray) -> np.ndarray:
        axis = self.end - self.start
        away = points - self.start[:, None]
        along = np.clip(_dot(axis, away) / _dot(axis, axis), 0, 1)
        return (away - axis[:, None] * along) / self.radius


@dataclass
class Wheel:
    """A cylinder along x; face 0 is the tread, face 1 the discs."""

    centre: np.ndarray
    radius: float
    half_width: float

    def __post_init__(self) -> None:
        self.centre = _vector(self.centre)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        reach = _vector((self.half_width, self.radius, self.radius))
        return self.centre - reach, self.centre + reach

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> Meeting:
        o, d = origin - _column(self.centre), direction
        a = d[1] * d[1] + d[2] * d[2]
        b, c = o[1] * d[1] + o[2] * d[2], o[1] * o[1] + o[2] * o[2] - self.radius**2
        root = np.sqrt(np.maximum(b * b - a * c, 0))
        safe = np.where(np.abs(d[0]) < 1e-6, 1e-6, d[0])
        t_disc = (-np.sign(safe) * self.half_width - o[0]) / safe
        t_tread = (-b - root) / np.maximum(a, 1e-9)
        t_leave = np.minimum((-b + root) / np.maximum(a, 1e-9), (np.sign(safe) * self.half_width - o[0]) / safe)
        t = np.maximum(t_disc, t_tread)
        hit = (b * b > a * c) & (t < t_leave) & (t > 0)
        disc = t_disc > t_tread
        return np.where(hit, t, _FAR), disc.astype(np.int8)

    def normal(self, points: np.ndarray, face: np.ndarray) -> np.ndarray:
        away = points - self.centre[:, None]
        disc = face == 1
        tread = np.where(disc, 0, away / self.radius)
        return np.stack([np.where(disc, np.sign(away[0]), 0), tread[1], tread[2]])


@dataclass
class Convex:
    """The intersection of half-spaces ``normals @ p <= offsets``; the face is the index of its plane.

    Args:
        normals: float (K, 3), normalised here together with the offsets.
        offsets: float (K,).
        low: Lower corner of the bounding box.
        high: Upper corner of the bounding box.
    """

    normals: np.ndarray
    offsets: np.ndarray
    low: np.ndarray
    high: np.ndarray
    _unit: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.low, self.high = _vector(self.low), _vector(self.high)
        normals, offsets = np.asarray(self.normals, np.float64), np.asarray(self.offsets, np.float64)
        length = np.linalg.norm(normals, axis=1)
        self._unit = (normals / length[:, None]).astype(np.float32)
        self.offsets = (offsets / length).astype(np.float32)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return self.low, self.high

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> Meeting:
        shape = np.broadcast_shapes(origin.shape[1:], direction.shape[1:])
        enter, leave = np.full(shape, -_FAR, np.float32), np.full(shape, _FAR, np.float32)
        face = np.zeros(shape, np.int8)
        for k, (normal, offset) in enumerate(zip(self._unit, self.offsets, strict=True)):
            across = _dot(normal, direction)
            across = np.where(np.abs(across) < 1e-7, np.float32(1e-7), across)
            t = (offset - _dot(normal, origin)) / across
            entering = across < 0
            nearer = entering & (t > enter)
            enter = np.where(nearer, t, enter)
            face = np.where(nearer, np.int8(k), face)
            leave = np.where(entering, leave, np.minimum(leave, t))
        hit = (enter < leave) & (enter > 0)
        return np.where(hit, enter, _FAR), face

    def normal(self, points: np.ndarray, face: np.ndarray) -> np.ndarray:
        return self._unit.T[:, face]


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> Convex:
    """A box; faces 0..5 look to -x, +x, -y, +y, -z, +z."""
    normals = np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]], np.float64)
    offsets = np.array([-low[0], high[0], -low[1], high[1], -low[2], high[2]], np.float64)
    return Convex(normals, offsets, low, high)


def house(low: tuple[float, float, float], high: tuple[float, float, float], ridge: float) -> Convex:
    """A box under a gable roof along z: faces as :func:`box` with 3 the left and 6 the right slope of the roof.

    Args:
        low: Lower corner.
        high: Upper corner at the eaves.
        ridge: Height of the ridge above the eaves.
    """
    middle, half = (low[0] + high[0]) / 2, (high[0] - low[0]) / 2
    normals = [[-1, 0, 0], [1, 0, 0], [0, -1, 0], [-ridge, half, 0], [0, 0, -1], [0, 0, 1], [ridge, half, 0]]
    top = high[1] + ridge
    offsets = [-low[0], high[0], -low[1], half * top - ridge * middle, -low[2], high[2], half * top + ridge * middle]
    return Convex(np.array(normals, np.float64), np.array(offsets), low, (high[0], top, high[2]))


def prism(
    bottom: tuple[float, float, float, float], top: tuple[float, float, float, float], low: float, high: float
) -> Convex:
    """A truncated pyramid: faces 0..5 look to -x, +x, -y, +y, -z, +z, the four sides sloped.

    Args:
        bottom: (x0, x1, z0, z1) of the lower rectangle.
        top: (x0, x1, z0, z1) of the upper rectangle.
        low: Height of the lower rectangle.
        high: Height of the upper rectangle.
    """
    rise = high - low
    normals = [[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]]
    offsets = [0.0, 0.0, -low, high, 0.0, 0.0]
    for face, (axis, sign, b, t) in zip(
        (0, 1, 4, 5),
        ((0, -1, bottom[0], top[0]), (0, 1, bottom[1], top[1]), (2, -1, bottom[2], top[2]), (2, 1, bottom[3], top[3])),
        strict=True,
    ):
        normal = [0.0, 0.0, 0.0]
        normal[axis], normal[1] = sign * rise, -sign * (t - b)
        normals[face] = normal
        offsets[face] = sign * rise * b - sign * (t - b) * low
    x = (*bottom[:2], *top[:2])
    z = (*bottom[2:], *top[2:])
    return Convex(np.array(normals, np.float64), np.array(offsets), (min(x), low, min(z)), (max(x), high, max(z)))
