"""The deferred canvas: what each pixel of a view meets first, and how a thing made of parts is drawn on it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .views import View, Window

#: Which bound, lower or upper, each corner of a box takes along x, y and z.
_CORNERS = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]


def _turn(vectors: np.ndarray, yaw: float) -> np.ndarray:
    """Turns vectors (3, ...) to the right about the vertical."""
    if yaw == 0:
        return vectors
    cos, sin = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
    x, y, z = vectors
    return np.stack([cos * x + sin * z, y, cos * z - sin * x])


class Shape(Protocol):
    """What a part needs of a shape; see :mod:`.shapes`."""

    def bounds(self) -> tuple[np.ndarray, np.ndarray]: ...

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    def normal(self, points: np.ndarray, face: np.ndarray) -> np.ndarray: ...


@dataclass
class Hit:
    """Where rays meet a part, in the part's own axes; N rays.

    Attributes:
        point: float32 (3, N), metres.
        normal: float32 (3, N), unit, outward.
        direction: float32 (3, N), of the ray.
        face: int8 (N,).
        footprint: float32 (N,), metres per pixel.
    """

    point: np.ndarray
    normal: np.ndarray
    direction: np.ndarray
    face: np.ndarray
    footprint: np.ndarray


@dataclass
class Finish:
    """How a surface takes light.

    Attributes:
        albedo: float32 (3, N), linear RGB, 0..1.
        normal: float32 (3, N), unit; ``None`` keeps the shape's.
        gloss: Share of mirrored sky, 0..1, float or (N,).
        wrap: How far light creeps round into the shade, 0..1 (foliage, cloth).
    """

    albedo: np.ndarray
    normal: np.ndarray | None = None
    gloss: np.ndarray | float = 0.0
    wrap: float = 0.0


@dataclass
class Part:
    """A shape with its finish; ``cutout`` keeps the hits for which it is true (gaps in foliage and fences)."""

    shape: Shape
    finish: Callable[[Hit], Finish]
    label: int
    cutout: Callable[[Hit], np.ndarray] | None = None


@dataclass
class Thing:
    """Parts that stand together on the ground.

    Attributes:
        parts: In the thing's own axes, y = 0 the ground.
        x: Place on the ground, metres.
        z: Place on the ground, metres.
        yaw: Turn to the right, radians.
        footprint: Corners (M, 2) as (x, z) in own axes of the ground it darkens, ``None`` for none.
    """

    parts: list[Part]
    x: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    footprint: np.ndarray | None = None
    place: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.place = np.array([self.x, 0, self.z], np.float32)

    def to_own(self, vectors: np.ndarray) -> np.ndarray:
        """Turns vectors (3, ...) from world axes into own axes."""
        return _turn(vectors, -self.yaw)

    def to_world(self, vectors: np.ndarray) -> np.ndarray:
        """Turns vectors (3, ...) from own axes into world axes."""
        return _turn(vectors, self.yaw)

    def corners(self) -> np.ndarray:
        """Returns the corners of each part's bounding box in world coordinates: float32 (M, 8, 3)."""
        bounds = np.array([part.shape.bounds() for part in self.parts], np.float32)
        own = np.stack([bounds[:, pick, (0, 1, 2)] for pick in _CORNERS], 1)
        return np.moveaxis(self.to_world(np.moveaxis(own, -1, 0)), 0, -1) + self.place

    def ground(self) -> np.ndarray | None:
        """Returns the footprint in world coordinates (M, 2)."""
        if self.footprint is None:
            return None
        corners = np.insert(self.footprint, 1, 0.0, axis=1).T
        return (self.to_world(corners).T + self.place)[:, [0, 2]]


@dataclass
class Canvas:
    """Per pixel of a view: depth, class and finish of the nearest surface. Sky has infinite depth."""

    view: View
    depth: np.ndarray
    label: np.ndarray
    albedo: np.ndarray
    normal: np.ndarray
    gloss: np.ndarray
    wrap: np.ndarray

    @classmethod
    def blank(cls, view: View, sky: int) -> 'Canvas':
        """Builds a canvas that shows nothing but sky."""
        return cls(
            view,
            np.full(view.size, np.inf, np.float32),
            np.full(view.size, sky, np.uint8),
            np.zeros((3, *view.size), np.float32),
            np.zeros((3, *view.size), np.float32),
            np.zeros(view.size, np.float32),
            np.zeros(view.size, np.float32),
        )

    def draw(self, thing: Thing) -> None:
        """Draws a thing where it is nearer than what is there."""
        for part, (place, depth, hit) in meetings(self.view, self.depth, thing):
            finish = part.finish(hit)
            normal = hit.normal if finish.normal is None else finish.normal
            self.put(place, depth, part.label, finish.albedo, thing.to_world(normal), finish.gloss, finish.wrap)

    def put(
        self,
        place: np.ndarray,
        depth: np.ndarray,
        label: int,
        albedo: np.ndarray,
        normal: np.ndarray,
        gloss: np.ndarray | float = 0.0,
        wrap: np.ndarray | float = 0.0,
    ) -> None:
        """Overwrites pixels, given by their flat indices (N,)."""
        self.depth.reshape(-1)[place] = depth
        self.label.reshape(-1)[place] = label
        self.gloss.reshape(-1)[place] = gloss
        self.wrap.reshape(-1)[place] = wrap
        for channel in range(3):
            self.albedo[channel].reshape(-1)[place] = albedo[channel]
            self.normal[channel].reshape(-1)[place] = normal[channel]

    def nearer_than(self, depth: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns the flat indices (N,) of pixels nearer than a depth, and their points in the world (3, N)."""
        place = np.flatnonzero(self.depth < depth)
        return place, self.view.eye[:, None] + self.depth.reshape(-1)[place] * self.view.looks(place)


Meeting = tuple[np.ndarray, np.ndarray, Hit]


def meetings(view: View, depth: np.ndarray, thing: Thing) -> Iterator[tuple[Part, Meeting]]:
    """Finds, part by part, the pixels of a view where a thing is nearer than ``depth`` (H, W).

    Yields:
        The part, the flat indices (N,) of its pixels, their new depths (N,) and the hits.
    """
    for part, seen in zip(thing.parts, view.windows(thing.corners()), strict=True):
        if seen is None or depth[seen[0]].max() < seen[1]:
            continue
        found = _meet(view, depth, thing, part, seen[0])
        if found is not None:
            yield part, found


def _meet(view: View, depth: np.ndarray, thing: Thing, part: Part, window: Window) -> Meeting | None:
    origin, direction = view.rays(window)
    origin, direction = thing.to_own(origin - thing.place[:, None, None]), thing.to_own(direction)
    t, face = part.shape.intersect(origin, direction)
    found = np.flatnonzero(t < depth[window])
    if not found.size:
        return None
    rows, columns = np.divmod(found, t.shape[1])
    place = (rows + window[0].start) * depth.shape[1] + columns + window[1].start
    t = t.reshape(-1)[found]
    face = face.reshape(-1)[found] if face.size > 1 else np.broadcast_to(face.reshape(-1), found.shape)
    o = origin.reshape(3, -1)[:, found] if origin.shape[1] > 1 else origin[:, 0]
    d = direction.reshape(3, -1)
    d = d[:, found] if direction.shape[1] > 1 else np.broadcast_to(d, (3, t.size))
    point = o + t * d
    hit = Hit(point, part.shape.normal(point, face), d, face, view.footprint(t))
    if part.cutout is not None:
        keep = np.nonzero(part.cutout(hit))[0]
        if not keep.size:
            return None
        place, t = place[keep], t[keep]
        hit = Hit(point[:, keep], hit.normal[:, keep], d[:, keep], face[keep], hit.footprint[keep])
    return place, t, hit


def cast(view: View, things: list[Thing]) -> np.ndarray:
    """Returns the depth (H, W) of the nearest part in each pixel of a view: a shadow map."""
    depth = np.full(view.size, np.inf, np.float32)
    for thing in things:
        for _, (place, nearer, _) in meetings(view, depth, thing):
            depth.reshape(-1)[place] = nearer
    return depth
