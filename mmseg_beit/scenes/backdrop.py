"""What stands on the horizon: mountain ranges and the edge of distant woods, drawn by direction."""

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas
from .colours import FOLIAGE, MASONRY, SOIL, TURF, Colour, blend, pick, step, tint
from .labels import LABELS
from .noise import cell_random, fractal, fractal_slope, ridge


@dataclass
class Range:
    """A mountain range: distance, height and feature size in metres."""

    distance: float
    height: float
    feature: float
    rock: Colour
    forest: Colour
    snow: float
    treeline: float
    salt: float


@dataclass
class Wood:
    """A row of tree tops: distance, height and crown width in metres."""

    distance: float
    height: float
    crown: float
    colour: Colour
    pointed: bool
    gaps: float
    salt: float


def random_range(rng: np.random.Generator, distance: float, steepness: float) -> Range:
    """Draws a mountain range whose top stands about ``steepness`` (tangent) above the horizon."""
    return Range(
        distance=distance,
        height=distance * steepness,
        feature=distance * rng.uniform(0.35, 0.9),
        rock=pick(rng, np.concatenate([MASONRY[[4, 5, 7, 9]], SOIL[[0, 4]]]), 0.15),
        forest=pick(rng, np.concatenate([FOLIAGE, TURF]), 0.15) * 0.8,
        snow=float(rng.choice([2.0, rng.uniform(0.6, 1.0)], p=[0.65, 0.35])),
        treeline=rng.uniform(0.1, 1.1),
        salt=float(rng.uniform(0, 500)),
    )


def random_wood(rng: np.random.Generator, distance: float, height: float) -> Wood:
    """Draws the edge of a wood."""
    pointed = bool(rng.random() < 0.35)
    crown = height * (rng.uniform(0.3, 0.45) if pointed else rng.uniform(0.6, 1.1))
    gaps = float(rng.choice([0.0, rng.uniform(0.1, 0.6)], p=[0.6, 0.4]))
    return Wood(distance, height, crown, pick(rng, FOLIAGE, 0.2), pointed, gaps, float(rng.uniform(0, 500)))


def _region(canvas: Canvas, distance: float, highest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Flat indices of the pixels that look at a wall (metres), their depths and positions along and up the wall."""
    view = canvas.view
    level = np.hypot(view.direction[0], view.direction[2])
    depth = distance / level
    up = view.eye[1] + depth * view.direction[1]
    place = np.flatnonzero((up > -0.02 * distance) & (up < highest) & (depth < canvas.depth))
    direction = view.looks(place)
    along = np.arctan2(direction[0], direction[2]) * distance
    return place, depth.reshape(-1)[place], along, up.reshape(-1)[place]


def draw_range(canvas: Canvas, hills: Range) -> None:
    """Draws a mountain range where nothing nearer is."""
    place, depth, along, up = _region(canvas, hills.distance, hills.height * 2.2)
    outline = ridge(along, 2.5 * hills.feature, hills.salt) + 0.1 * ridge(along, hills.feature / 3, hills.salt + 1)
    top = hills.height * np.clip(0.75 + 0.33 * outline, 0.06, 2.1)
    keep = np.nonzero(up < top)[0]
    if not keep.size:
        return
    place, depth, along, up, top = place[keep], depth[keep], along[keep], up[keep], top[keep]
    foot = depth / canvas.view.focal
    # Spurs run down from the ridge: the texture is stretched along the slope and sheared by the height.
    u, v = along + 0.4 * up, (top - up) * 0.6
    gully_u, gully_v = fractal_slope(u, v, hills.feature * 0.35, hills.salt + 2, foot)
    fine_u, fine_v = fractal_slope(u, v * 1.4, hills.feature * 0.06, hills.salt + 3, foot)
    azimuth = along / hills.distance
    side = 0.55 * gully_u + 0.45 * fine_u
    rise = 0.7 + 0.35 * gully_v + 0.35 * fine_v
    normal = np.stack([side * np.cos(azimuth) - np.sin(azimuth), rise, -side * np.sin(azimuth) - np.cos(azimuth)])
    normal = normal / np.sqrt((normal**2).sum(0))
    level = up / hills.height + 0.16 * fractal(u, v, hills.feature * 0.2, hills.salt + 4, foot)
    grain = 1 + 0.2 * fractal(u, v, hills.feature * 0.1, hills.salt + 5, foot)
    grain += 0.2 * fractal(u, v, hills.feature * 0.02, hills.salt + 6, foot)
    colour = blend(tint(hills.forest, grain), tint(hills.rock, grain), step(level, hills.treeline, 0.35))
    colour = blend(colour, np.float32([0.75, 0.77, 0.8]), step(level + 0.2 * normal[1], hills.snow + 0.15, 0.2))
    canvas.put(place, depth, LABELS['mountain'], colour, normal, wrap=0.1)


def draw_wood(canvas: Canvas, wood: Wood) -> None:
    """Draws the edge of a wood where nothing nearer is: three staggered rows of crowns."""
    for row in range(3):
        far = wood.distance * (1.15 - 0.07 * row)
        salt = wood.salt + 19.0 * row
        place, depth, along, up = _region(canvas, far, wood.height * 1.3)
        if not place.size:
            continue
        u = along / wood.crown + 0.37 * row
        i = np.floor(u)
        across = 2 * (u - i) - 1 + 0.25 * (cell_random(i, i, salt) - 0.5)
        tall = wood.height * (0.6 + 0.4 * cell_random(i, i, salt + 1)) * (1 - 0.08 * row)
        tall = np.where(cell_random(np.floor(i / 3), i * 0, salt + 2) < wood.gaps, tall * 0.12, tall)
        fall = np.abs(across) * 0.8 if wood.pointed else 0.4 * across**2
        foot = depth / canvas.view.focal
        leaves = fractal(along, up, wood.height * 0.25, salt + 3)
        top = tall * (1 - fall + 0.07 * leaves)
        keep = np.nonzero(up < top)[0]
        if not keep.size:
            continue
        high = np.clip(up[keep] / np.maximum(top[keep], 0.1), 0, 1)
        small = fractal(along[keep], up[keep], wood.height * 0.09, salt + 4, foot[keep])
        gain = (0.35 + 0.65 * high) * np.clip(1 + 0.35 * leaves[keep] + 0.4 * small, 0.2, 2.2)
        hue = (0.8 + 0.4 * cell_random(i[keep], i[keep], salt + 5)).astype(np.float32)
        colour = tint(wood.colour, gain) * np.stack([hue, np.ones_like(hue), np.ones_like(hue)])
        azimuth = along[keep] / far
        side = 0.8 * across[keep] + 0.4 * small
        lift = 0.2 + 0.9 * high + 0.3 * leaves[keep]
        normal = np.stack([side * np.cos(azimuth) - np.sin(azimuth), lift, -side * np.sin(azimuth) - np.cos(azimuth)])
        normal = normal / np.sqrt((normal**2).sum(0))
        canvas.put(place[keep], depth[keep], LABELS['tree'], colour, normal, wrap=0.3)
