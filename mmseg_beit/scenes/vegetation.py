"""Trees: trunks, limbs and crowns built from ragged clumps of leaves with gaps that let sky and light through."""

from collections.abc import Callable

import numpy as np

from .canvas import Finish, Hit, Part, Thing
from .colours import FOLIAGE, TIMBER, Colour, pick, tint
from .labels import LABELS
from .noise import fractal, fractal_slope
from .shapes import Capsule, Ellipsoid


def _leaf_plane(hit: Hit) -> tuple[np.ndarray, np.ndarray]:
    """Two coordinates on the axis plane that the surface faces most, for looking up leaf texture without stretching."""
    x, y, z = hit.point
    ax, ay, az = np.abs(hit.normal)
    u = np.where((ax > ay) & (ax > az), z + 17.0, x)
    return u, np.where((ay >= ax) & (ay >= az), z - 31.0, y)


def _ragged(feature: float, salt: float, density: float) -> Callable[[Hit], np.ndarray]:
    """Cuts the rim of a clump ragged and opens gaps in it."""

    def cutout(hit: Hit) -> np.ndarray:
        u, v = _leaf_plane(hit)
        length = np.sqrt((hit.direction**2).sum(0))
        facing = -(hit.normal * hit.direction).sum(0) / length
        leaves = fractal(u, v, feature, salt) + 0.8 * fractal(v, u, feature * 0.3, salt + 3, hit.footprint)
        return facing + 0.3 * leaves > 0.62 - 0.5 * density

    return cutout


def _leaves(
    colour: Colour, centre: np.ndarray, reach: np.ndarray, feature: float, salt: float
) -> Callable[[Hit], Finish]:
    def finish(hit: Hit) -> Finish:
        u, v = _leaf_plane(hit)
        away = (hit.point - centre[:, None]) / reach[:, None]
        depth = np.clip(np.sqrt((away**2).sum(0)), 0, 1.2)
        # Light reaches the outer and upper leaves; the heart of the crown stays dark.
        inner = np.clip(0.28 + 0.62 * depth**2 + 0.22 * away[1], 0.12, 1.2)
        clump = fractal(u, v, feature, salt)
        small = fractal(v, u, feature * 0.3, salt + 3, hit.footprint)
        gain = inner * np.clip(1 + 0.3 * clump + 0.4 * small, 0.25, 2.2)
        hue = 1 + 0.12 * fractal(u, v, feature * 3, salt + 8)
        albedo = tint(colour, gain) * np.stack([hue, np.ones_like(hue), 2 - hue])
        su, sv = fractal_slope(u, v, feature * 0.5, salt + 11, hit.footprint)
        bump = np.stack([su + 0.5 * sv, sv, 0.7 * su - 0.45 * sv])
        normal = 0.55 * hit.normal + 0.45 * away + 0.42 * bump
        normal = normal / np.maximum(np.sqrt((normal**2).sum(0)), 1e-3)
        return Finish(albedo, normal.astype(np.float32), 0.0, 0.3)

    return finish


def _bark(colour: Colour, salt: float) -> Callable[[Hit], Finish]:
    def finish(hit: Hit) -> Finish:
        around = np.arctan2(hit.normal[0], hit.normal[2])
        grooves = fractal(around * 0.5, hit.point[1] * 0.25, 0.35, salt, hit.footprint * 0.3)
        gain = np.clip(1 + 0.3 * grooves + 0.15 * fractal(around, hit.point[1], 1.5, salt + 1), 0.3, 2)
        return Finish(tint(colour, gain))

    return finish


def broadleaf(
    rng: np.random.Generator, x: float, z: float, height: float, detail: int, hue: Colour | None = None
) -> Thing:
    """A deciduous tree.

    Args:
        rng: Decides the shape.
        x: Place in metres.
        z: Place in metres.
        height: Of the whole tree in metres.
        detail: Number of clumps of leaves in the crown.
        hue: Colour of the leaves; drawn when not given.
    """
    colour = pick(rng, FOLIAGE) if hue is None else hue * np.float32(np.exp(rng.normal(0, 0.15)))
    stem = height * rng.uniform(0.15, 0.38)
    spread = height * rng.uniform(0.26, 0.42)
    centre = np.array([0, (stem + height) / 2, 0], np.float32)
    reach = np.array([spread, (height - stem) / 2, spread], np.float32)
    trunk_colour = pick(rng, TIMBER) * 0.6
    salt = float(rng.uniform(0, 100))
    lean = rng.normal(0, 0.04) * height
    thick = height * rng.uniform(0.018, 0.032)
    fork = np.array([lean * 0.5, stem * 1.15, 0])
    parts = [Part(Capsule((0, -0.1, 0), fork, thick), _bark(trunk_colour, salt), LABELS['tree'])]
    for _ in range(min(3, detail // 4)):
        tip = centre + reach * rng.normal(0, 0.35, 3)
        parts.append(Part(Capsule(fork, tip, thick * 0.55), _bark(trunk_colour, salt), LABELS['tree']))
    feature = max(height * 0.14, 0.5)
    density = rng.uniform(0.35, 0.8)
    for k in range(detail):
        # Golden-angle directions spread the clumps evenly over the crown; the jitter makes each tree its own.
        up = 1 - 2 * (k + 0.5) / detail
        turn = 2.39996 * k + rng.normal(0, 0.5)
        out = np.sqrt(1 - up * up) * rng.uniform(0.4, 0.85)
        offset = np.array([np.cos(turn) * out, up * rng.uniform(0.45, 0.8), np.sin(turn) * out])
        size = reach * rng.uniform(0.26, 0.5) * (1.3 if detail < 10 else 1.0)
        shape = Ellipsoid(centre + reach * offset, size * np.exp(rng.normal(0, 0.18, 3)))
        salt_k = salt + 7.0 * k
        leaves = _leaves(colour, centre, reach, feature, salt_k)
        parts.append(Part(shape, leaves, LABELS['tree'], _ragged(feature, salt_k, density)))
    return Thing(parts, x, z, 0.0, _disc(thick * 2.5))


def conifer(rng: np.random.Generator, x: float, z: float, height: float, detail: int) -> Thing:
    """A fir or spruce: tiers of drooping boughs around a straight trunk; arguments as :func:`broadleaf`."""
    colour = pick(rng, FOLIAGE[[2, 4]], 0.2) * np.float32(0.75)
    spread = height * rng.uniform(0.16, 0.25)
    centre = np.array([0, height * 0.45, 0], np.float32)
    reach = np.array([spread, height * 0.5, spread], np.float32)
    salt = float(rng.uniform(0, 100))
    trunk = Capsule((0, -0.1, 0), (0, height * 0.8, 0), height * 0.014)
    parts = [Part(trunk, _bark(pick(rng, TIMBER) * 0.5, salt), LABELS['tree'])]
    tiers = max(4, detail)
    for k in range(tiers):
        level = (k + 0.5) / tiers
        radius = spread * (1.08 - level) * rng.uniform(0.85, 1.1)
        shift = rng.normal(0, 0.06 * spread, 2)
        middle = (shift[0], height * (0.14 + 0.84 * level), shift[1])
        shape = Ellipsoid(middle, (radius, height * 0.95 / tiers, radius))
        leaves = _leaves(colour, centre, reach, height * 0.09, salt + 5.0 * k)
        parts.append(Part(shape, leaves, LABELS['tree'], _ragged(height * 0.09, salt + 5.0 * k, 0.5)))
    return Thing(parts, x, z, 0.0, _disc(spread * 0.5))


def bush(rng: np.random.Generator, x: float, z: float, size: float) -> Thing:
    """A large shrub: leaves down to the ground."""
    colour = pick(rng, FOLIAGE)
    centre = np.array([0, size * 0.4, 0], np.float32)
    reach = np.array([size * 0.8, size * 0.7, size * 0.8], np.float32)
    parts = []
    for _ in range(5):
        offset = np.array([rng.uniform(-0.6, 0.6) * size, size * rng.uniform(0.2, 0.5), rng.uniform(-0.5, 0.5) * size])
        shape = Ellipsoid(offset, size * rng.uniform(0.3, 0.5, 3))
        salt = float(rng.uniform(0, 100))
        parts.append(Part(shape, _leaves(colour, centre, reach, 0.5, salt), LABELS['tree'], _ragged(0.5, salt, 0.8)))
    return Thing(parts, x, z, 0.0, _disc(size * 0.8))


def _disc(radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)
