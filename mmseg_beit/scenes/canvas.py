"""The deferred canvas: what each pixel of a view meets first, and how a thing made of parts is drawn on it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .views import View


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
    rotation: np.ndarray = field(init=False, repr=False)
    place: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        # Rows are the own axes in world coordinates, so rotation @ world = own.
        self.rotation = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], np.float32)
        self.place = np.array([self.x, 0, self.z], np.float32)

    def ground(self) -> np.ndarray | None:
        """Returns the footprint in world coordinates (M, 2)."""
        if self.footprint is None:
            return None
        corners = np.insert(self.footprint, 1, 0.0, axis=1)
        return (corners @ self.rotation + self.place)[:, [0, 2]]


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
        for part in thing.parts:
            found = meet(self.view, self.depth, thing, part)
            if found is None:
                continue
            place, depth, hit = found
            finish = part.finish(hit)
            normal = hit.normal if finish.normal is None else finish.normal
            self.depth[place] = depth
            self.label[place] = part.label
            self.albedo[:, place[0], place[1]] = finish.albedo
            self.normal[:, place[0], place[1]] = thing.rotation.T @ normal
            self.gloss[place] = finish.gloss
            self.wrap[place] = finish.wrap


def meet(
    view: View, depth: np.ndarray, thing: Thing, part: Part
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, Hit] | None:
    """Finds the pixels of a view where a part is nearer than ``depth`` (H, W).

    Returns:
        Rows and columns (N,), the new depths (N,) and the hits, or ``None`` where there are none.
    """
    low, high = part.shape.bounds()
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    window = view.window((corners @ thing.rotation + thing.place).astype(np.float32))
    if window is None:
        return None
    origin, direction = view.rays(window)
    origin = np.tensordot(thing.rotation, origin - thing.place[:, None, None], 1)
    direction = np.tensordot(thing.rotation, direction, 1)
    t, face = part.shape.intersect(origin, direction)
    rows, columns = np.nonzero(t < depth[window])
    if not rows.size:
        return None
    t = t[rows, columns]
    face = np.broadcast_to(face, depth[window].shape)[rows, columns]
    o = origin[:, rows, columns] if origin.shape[1] > 1 else origin[:, 0]
    d = direction[:, rows, columns] if direction.shape[1] > 1 else np.broadcast_to(direction[:, 0], (3, t.size))
    point = o + t * d
    hit = Hit(point, part.shape.normal(point, face), d, face, view.footprint(t))
    if part.cutout is not None:
        keep = np.nonzero(part.cutout(hit))[0]
        if not keep.size:
            return None
        rows, columns, t = rows[keep], columns[keep], t[keep]
        hit = Hit(point[:, keep], hit.normal[:, keep], d[:, keep], face[keep], hit.footprint[keep])
    return (rows + window[0].start, columns + window[1].start), t, hit


def cast(view: View, things: list[Thing]) -> np.ndarray:
    """Returns the depth (H, W) of the nearest part in each pixel of a view: a shadow map."""
    depth = np.full(view.size, np.inf, np.float32)
    for thing in things:
        for part in thing.parts:
            found = meet(view, depth, thing, part)
            if found is not None:
                depth[found[0]] = found[1]
    return depth
