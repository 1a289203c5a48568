"""Buildings: boxes and gabled houses whose facades carry windows, doors, shop fronts, courses of brick and stains."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .canvas import Finish, Hit, Part, Thing
from .colours import GARMENTS, MASONRY, ROOFS, Colour, blend, pick, step, tint
from .labels import LABELS
from .noise import cell_random, fractal
from .shapes import box, house


@dataclass
class Facade:
    """The look of one building's walls; lengths in metres."""

    wall: Colour
    trim: Colour
    shop: Colour
    roof: Colour
    storey: float
    pitch: float
    window: tuple[float, float]
    brick: bool
    shops: bool
    glazed: bool
    cornice: float
    salt: float
    height: float


def _facade(rng: np.random.Generator, height: float, shops: bool, glazed: bool) -> Facade:
    storey, pitch = rng.uniform(2.7, 3.6), rng.uniform(1.7, 3.6)
    window = (
        (rng.uniform(0.8, 0.97), rng.uniform(0.7, 0.92)) if glazed else (rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.62))
    )
    return Facade(
        wall=pick(rng, MASONRY),
        trim=pick(rng, MASONRY, 0.2),
        shop=pick(rng, GARMENTS, 0.2),
        roof=pick(rng, ROOFS),
        storey=storey,
        pitch=pitch,
        window=window,
        brick=bool(rng.random() < 0.4) and not glazed,
        shops=shops,
        glazed=glazed,
        cornice=rng.uniform(0.2, 0.7),
        salt=float(rng.uniform(0, 100)),
        height=height,
    )


def _masonry(style: Facade, u: np.ndarray, v: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Wall colour with stains, courses and dirt rising from the ground: (3, N)."""
    gain = 1 + 0.09 * fractal(u, v, 6.0, style.salt, footprint) + 0.07 * fractal(u, v, 0.5, style.salt + 5, footprint)
    gain += 0.06 * fractal(u * 6, v * 0.6, 5.0, style.salt + 9, footprint)
    gain *= 1 - 0.25 * np.exp(-np.maximum(v, 0) / 0.7)
    if style.brick:
        course = np.floor(v / 0.075)
        along = u / 0.24 + 0.5 * np.mod(course, 2)
        sharp = np.clip(1.2 - footprint / 0.05, 0, 1)
        mortar = np.maximum(
            step(np.abs(np.mod(v / 0.075, 1) - 0.5), 0.4, 0.12), step(np.abs(np.mod(along, 1) - 0.5), 0.45, 0.06)
        )
        gain *= 1 + sharp * (0.35 * (cell_random(course, np.floor(along), style.salt) - 0.5))
        return blend(tint(style.wall, gain), tint(np.float32([0.4, 0.38, 0.35]), gain), sharp * mortar * 0.7)
    return tint(style.wall, gain)


def _glass(style: Facade, i: np.ndarray, j: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour and gloss of panes: dark rooms, some with curtains."""
    room = cell_random(i, j, style.salt)
    gain = 0.5 + 0.9 * room + 0.15 * fractal(u, v, 2.0, style.salt + 2)
    glass = tint(np.float32([0.035, 0.04, 0.045]), gain)
    curtain = (cell_random(i, j, style.salt + 31) < 0.3).astype(np.float32) * (0.75 + 0.25 * np.sin(u * 40))
    glass = blend(glass, np.float32([0.4, 0.38, 0.34]), 0.55 * curtain)
    return glass, 0.3 + 0.35 * cell_random(i, j, style.salt + 7)


def _walls(style: Facade, u: np.ndarray, v: np.ndarray, footprint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour (3, N) and gloss (N,) of a wall at ``u`` along it and height ``v``."""
    colour = _masonry(style, u, v, footprint)
    soft = np.clip(footprint / style.pitch, 0.01, 0.5)
    i, j = np.floor(u / style.pitch), np.floor(v / style.storey)
    fu, fv = u / style.pitch - i, v / style.storey - j
    half_w, half_h = style.window[0] / 2, style.window[1] / 2
    du, dv = np.abs(fu - 0.5), np.abs(fv - 0.52)
    inside = step(half_w - du, 0, soft) * step(half_h - dv, 0, soft)
    frame = step(half_w + 0.045 - du, 0, soft) * step(half_h + 0.05 - dv, 0, soft)
    below_roof = (j + 1) * style.storey < style.height + 0.4
    keep = below_roof & (cell_random(i, np.zeros_like(j), style.salt + 3) > 0.06)
    if style.shops:
        keep &= j > 0
    inside, frame = inside * keep, frame * keep
    glass, gloss = _glass(style, i, j, u, v)
    # The lintel's shadow, the sill's light and the bars make a window sit in the wall.
    lintel = step(fv - 0.52, half_h - 0.09, soft * 2)
    bars = np.maximum(step(0.022 - np.abs(fu - 0.5), 0, soft), step(0.022 - np.abs(fv - 0.56), 0, soft))
    glass = blend(glass * (1 - 0.6 * lintel), style.trim, 0.8 * bars * (1 - lintel))
    colour = blend(colour, style.trim * 1.1, 0.8 * frame)
    sill = step(-0.012 + half_w + 0.07 - du, 0, soft) * step(0.035 - np.abs(fv - 0.52 + half_h + 0.05), 0, soft) * keep
    colour = blend(colour, np.float32([0.55, 0.54, 0.5]), 0.8 * sill)
    under = step(0.03 - np.abs(fv - 0.52 + half_h + 0.12), 0, soft * 2) * step(half_w - du, 0, soft) * keep
    colour = colour * (1 - 0.35 * under)
    colour = blend(colour, glass, inside)
    gloss = gloss * inside * (1 - bars)
    if style.shops:
        colour, gloss = _shop_fronts(style, colour, gloss, u, v, soft)
    else:
        colour, gloss = _doors(style, colour, gloss, u, v, soft)
    band = step(0.5 * style.cornice - np.abs(v - style.height + 0.5 * style.cornice), 0, 0.05)
    colour = blend(colour, style.trim, 0.8 * band)
    under = step(0.12 - np.abs(v - style.height + style.cornice + 0.12), 0, 0.1)
    return colour * (1 - 0.45 * under), gloss * (1 - band)


def _shop_fronts(
    style: Facade, colour: np.ndarray, gloss: np.ndarray, u: np.ndarray, v: np.ndarray, soft: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    width = style.pitch * 2
    i = np.floor(u / width)
    fu, fv = u / width - i, v / style.storey
    first = step(0.99 - fv, 0, soft)
    pane = step(0.44 - np.abs(fu - 0.5), 0, soft) * step(0.3 - np.abs(fv - 0.45), 0, soft)
    board = step(0.1 - np.abs(fv - 0.87), 0, soft)
    hue = 0.4 + 1.2 * cell_random(i, i, style.salt + 17)
    colour = blend(colour, blend(style.trim, style.shop, step(fv, 0.2, 0.1)) * 0.8, 0.7 * first)
    colour = blend(colour, tint(style.shop, hue), first * board)
    inner = tint(np.float32([0.07, 0.065, 0.06]), 1 + 0.6 * fractal(u, v, 1.2, style.salt + 21))
    colour = blend(colour, inner, first * pane)
    return colour, np.where(first > 0.5, 0.45 * pane, gloss)


def _doors(
    style: Facade, colour: np.ndarray, gloss: np.ndarray, u: np.ndarray, v: np.ndarray, soft: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    i = np.floor(u / style.pitch)
    fu = u / style.pitch - i
    some = cell_random(i, i * 0, style.salt + 13) < 0.25
    door = some * step(0.5 - np.abs(fu - 0.5) * style.pitch, 0, soft * 2) * step(2.15 - v, 0, soft * 3)
    panel = 0.8 + 0.4 * step(np.abs(np.mod(v, 0.7) - 0.35), 0.27, 0.05)
    return blend(colour, tint(style.shop, panel), door), gloss * (1 - door)


def _finish(style: Facade, gabled: bool) -> Callable[[Hit], Finish]:
    roofs = (3, 6) if gabled else (3,)

    def finish(hit: Hit) -> Finish:
        across = (hit.face == 4) | (hit.face == 5)
        u = np.where(across, hit.point[0], hit.point[2] + 40.0)
        colour, gloss = _walls(style, u, hit.point[1], hit.footprint)
        on_roof = np.isin(hit.face, roofs)
        tiles = 1 + 0.25 * step(np.abs(np.mod(hit.point[1] * 4, 1) - 0.5), 0.3, 0.2) * np.clip(
            1 - hit.footprint * 10, 0, 1
        )
        tiles += 0.15 * fractal(hit.point[0], hit.point[2], 3.0, style.salt, hit.footprint)
        tiles += 0.12 * fractal(hit.point[2] * 3, hit.point[1], 0.8, style.salt + 4, hit.footprint)
        return Finish(np.where(on_roof, tint(style.roof, tiles), colour), None, np.where(on_roof, 0, gloss))

    return finish


def building(
    rng: np.random.Generator, x: float, z: float, width: float, depth: float, height: float, **look: bool
) -> Thing:
    """A flat-roofed building centred at (x, z); ``look`` takes ``shops`` and ``glazed``."""
    style = _facade(rng, height, look.get('shops', False), look.get('glazed', False))
    parts = [
        Part(
            box((-width / 2, -0.2, -depth / 2), (width / 2, height, depth / 2)),
            _finish(style, False),
            LABELS['building'],
        )
    ]
    if rng.random() < 0.35:
        inset = rng.uniform(0.5, 2.0)
        top = box(
            (-width / 2 + inset, height, -depth / 2 + inset),
            (width / 2 - inset, height + rng.uniform(1, 3), depth / 2 - inset),
        )
        parts.append(Part(top, _finish(style, False), LABELS['building']))
    return Thing(parts, x, z, 0.0, _rectangle(width, depth))


def gabled(
    rng: np.random.Generator, x: float, z: float, width: float, depth: float, height: float, yaw: float
) -> Thing:
    """A house with a gable roof and chimneys; the ridge runs along its own z axis."""
    style = _facade(rng, height, False, False)
    ridge = width * rng.uniform(0.25, 0.5)
    body = house((-width / 2, -0.3, -depth / 2), (width / 2, height, depth / 2), ridge)
    parts = [Part(body, _finish(style, True), LABELS['building'])]
    for side in (-1, 1)[: int(rng.integers(0, 3))]:
        low = (-0.4, height, side * depth * 0.38 - 0.35)
        parts.append(Part(box(low, (0.4, height + ridge + 0.9, low[2] + 0.7)), _plain(style), LABELS['building']))
    if rng.random() < 0.3:
        wing = box((width / 2 - 0.1, -0.3, -depth * 0.3), (width / 2 + rng.uniform(2, 4), height * 0.6, depth * 0.2))
        parts.append(Part(wing, _finish(style, False), LABELS['building']))
    return Thing(parts, x, z, yaw, _rectangle(width, depth))


def _plain(style: Facade) -> Callable[[Hit], Finish]:
    def finish(hit: Hit) -> Finish:
        return Finish(_masonry(style, hit.point[0] + hit.point[2], hit.point[1] + 9.0, hit.footprint))

    return finish


def _rectangle(width: float, depth: float) -> np.ndarray:
    return np.array([[-width, -depth], [width, -depth], [width, depth], [-width, depth]]) / 2
