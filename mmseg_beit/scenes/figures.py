"""Cars, people and street furniture: composed shapes at true size."""

from collections.abc import Callable

import numpy as np

from .canvas import Finish, Hit, Part, Thing
from .colours import GARMENTS, MASONRY, PAINTS, SKIN, TIMBER, Colour, pick, step, tint
from .labels import LABELS, UNLABELLED
from .noise import cell_random, fractal
from .shapes import Capsule, Ellipsoid, Wheel, box, prism

_GLASS = np.float32([0.02, 0.024, 0.027])
_RUBBER = np.float32([0.02, 0.02, 0.02])


def _rounded(hit: Hit, half: np.ndarray, middle: np.ndarray, amount: float) -> np.ndarray:
    """Bends flat panels outwards, so that they catch light as pressed metal does."""
    bent = hit.normal + amount * ((hit.point - middle[:, None]) / half[:, None]) ** 3
    return (bent / np.sqrt((bent**2).sum(0))).astype(np.float32)


def _body_finish(paint: Colour, length: float, width: float, axles: tuple[float, float], radius: float, van: bool):
    half, middle = np.float32([width / 2, 0.4, length / 2]), np.float32([0, 0.55, 0])
    plate = np.float32([0.6, 0.58, 0.4]) if van else np.float32([0.6, 0.6, 0.58])

    def finish(hit: Hit) -> Finish:
        x, y, z = hit.point
        side = hit.face <= 1
        end = (hit.face == 4) | (hit.face == 5)
        colour = tint(paint, 1 + 0.02 * fractal(z, y, 1.0, 3.0))
        gloss = np.full(x.shape, 0.12, np.float32)
        arch = side & (
            np.minimum(np.hypot(z - axles[0], y - radius), np.hypot(z - axles[1], y - radius)) < radius * 1.16
        )
        skirt = y < 0.33
        seam = side & ((np.abs(z - 0.1) < 0.015) | (np.abs(z + 0.95) < 0.015) | (np.abs(z - 1.05) < 0.015))
        handle = side & (np.abs(y - 0.78) < 0.02) & (np.abs(np.abs(z + 0.35) - 0.45) < 0.09)
        lamp = end & (np.abs(np.abs(x) - width * 0.37) < width * 0.1) & (np.abs(y - 0.68) < 0.085)
        grille = end & (np.abs(x) < width * 0.24) & (np.abs(y - 0.6) < 0.07) & (hit.face == 5)
        number = end & (np.abs(x) < 0.26) & (np.abs(y - 0.47) < 0.06)
        bumper = end & (y < 0.55) & ~number
        colour = np.where(bumper, colour * 0.7, colour)
        colour = np.where(skirt | arch | grille, _RUBBER[:, None] * 1.3, colour)
        colour = np.where(seam, colour * 0.4, colour)
        colour = np.where(handle, _RUBBER[:, None] * 3, colour)
        light = np.where(hit.face == 5, np.float32([[0.75], [0.75], [0.7]]), np.float32([[0.4], [0.03], [0.02]]))
        colour = np.where(lamp, light, colour)
        colour = np.where(number, plate[:, None], colour)
        gloss[skirt | arch | grille | bumper] = 0.02
        return Finish(colour.astype(np.float32), _rounded(hit, half, middle, 0.5), gloss)

    return finish


def _cabin_finish(paint: Colour, bottom: tuple, low: float, high: float) -> Callable[[Hit], Finish]:
    middle_z = (bottom[2] + bottom[3]) / 2
    half = np.float32([bottom[1], (high - low), (bottom[3] - bottom[2]) / 2])
    middle = np.float32([0, low, middle_z])

    def finish(hit: Hit) -> Finish:
        x, y, z = hit.point
        rise = (y - low) / (high - low)
        glass = (hit.face != 3) & (rise > 0.08) & (rise < 0.86)
        side = hit.face <= 1
        lean = half[2] * (1 - 0.45 * rise)
        pillar = np.abs(np.abs(z - middle_z) - lean * 0.92) < 0.05
        pillar |= np.abs(z - middle_z + 0.1) < 0.045
        glass &= ~(side & pillar)
        glass &= side | (np.abs(x) < half[0] * 0.86)
        room = 1 + 0.8 * np.clip(fractal(x + z, y, 0.9, 6.0), -0.7, 1.5)
        colour = np.where(glass, tint(_GLASS, room), tint(paint, np.ones_like(x)))
        return Finish(colour.astype(np.float32), _rounded(hit, half, middle, 0.35), np.where(glass, 0.38, 0.1))

    return finish


def _wheel_finish(hit: Hit) -> Finish:
    around = np.arctan2(hit.normal[1], hit.normal[2])
    return Finish(tint(_RUBBER, 1 + 0.2 * np.sin(around * 30)))


def _hub_finish(centre: tuple[float, float, float], radius: float) -> Callable[[Hit], Finish]:
    def finish(hit: Hit) -> Finish:
        dy, dz = hit.point[1] - centre[1], hit.point[2] - centre[2]
        far, angle = np.hypot(dy, dz) / radius, np.arctan2(dy, dz)
        rim = (far < 0.66) & ((np.cos(5 * angle) > -0.1) | (far < 0.22) | (far > 0.58)) & (hit.face == 1)
        return Finish(
            np.where(rim, np.float32([[0.35], [0.35], [0.36]]), _RUBBER[:, None]), None, np.where(rim, 0.1, 0)
        )

    return finish


def car(rng: np.random.Generator, x: float, z: float, yaw: float) -> Thing:
    """A saloon, hatchback, estate or van at (x, z), its bonnet along its own +z."""
    paint = pick(rng, PAINTS, 0.15)
    kind = rng.choice(['saloon', 'hatch', 'estate', 'van'], p=[0.35, 0.35, 0.2, 0.1])
    van = kind == 'van'
    length = rng.uniform(3.7, 4.1) if kind == 'hatch' else rng.uniform(4.3, 4.8)
    width, radius = rng.uniform(1.66, 1.85), rng.uniform(0.3, 0.34)
    belt, roof = (1.05, rng.uniform(1.8, 2.1)) if van else (rng.uniform(0.82, 0.95), rng.uniform(1.36, 1.56))
    half, w = length / 2, width / 2
    tail = -half + {'saloon': 0.75, 'hatch': 0.08, 'estate': 0.05, 'van': 0.03}[kind]
    nose = half - {'saloon': 1.15, 'hatch': 0.85, 'estate': 1.1, 'van': 0.7}[kind]
    axles = (half - 0.8, -half + 0.75)
    lower = prism((-w, w, -half + 0.1, half - 0.1), (-w, w, -half, half), 0.2, 0.5)
    upper = prism((-w, w, -half, half), (-w * 0.95, w * 0.95, -half + 0.06, half - 0.12), 0.5, belt - 0.06)
    hood = prism(
        (-w * 0.95, w * 0.95, -half + 0.06, half - 0.12),
        (-w * 0.88, w * 0.88, -half + 0.12, nose),
        belt - 0.06,
        belt + 0.03,
    )
    bottom = (-w * 0.92, w * 0.92, tail, nose)
    slope = 0.12 if van else 0.6
    top = (-w * 0.72, w * 0.72, tail + (0.2 if kind != 'saloon' else 0.45), nose - slope - 0.2)
    body = _body_finish(paint, length, width, axles, radius, bool(rng.random() < 0.5))
    parts = [Part(shape, body, LABELS['car']) for shape in (lower, upper, hood)]
    parts.append(Part(prism(bottom, top, belt, roof), _cabin_finish(paint, bottom, belt, roof), LABELS['car']))
    for axle in axles:
        for side in (-1, 1):
            centre = (side * (w - 0.1), radius, axle)
            parts.append(Part(Wheel(centre, radius, 0.115), _hub_finish(centre, radius), LABELS['car']))
    for side in (-1, 1):
        mirror = Ellipsoid((side * (w + 0.08), belt + 0.08, nose - 0.35), (0.1, 0.07, 0.06))
        parts.append(Part(mirror, _plain(paint), LABELS['car']))
    corners = np.array([[-w, -half], [w, -half], [w, half], [-w, half]])
    return Thing(parts, x, z, yaw, corners)


def _plain(colour: Colour) -> Callable[[Hit], Finish]:
    return lambda hit: Finish(tint(colour, np.ones_like(hit.point[0])))


def _cloth(colour: Colour, salt: float) -> Callable[[Hit], Finish]:
    def finish(hit: Hit) -> Finish:
        u, v = hit.point[0] + hit.point[2], hit.point[1]
        folds = fractal(u * 2.5, v, 0.5, salt, hit.footprint)
        normal = hit.normal + 0.12 * np.stack([folds, 0 * folds, -folds])
        normal = normal / np.sqrt((normal**2).sum(0))
        gain = np.clip(1 + 0.13 * folds + 0.1 * fractal(u, v, 0.12, salt + 2, hit.footprint), 0.3, 2)
        return Finish(tint(colour, gain), normal.astype(np.float32), 0.0, 0.1)

    return finish


def person(rng: np.random.Generator, x: float, z: float, yaw: float) -> Thing:
    """A standing or walking person of 1.5 to 1.9 m, facing the own +z."""
    tall = rng.uniform(1.5, 1.9)
    s = tall / 1.75
    salt = float(rng.uniform(0, 100))
    trousers = GARMENTS[[0, 1, 5, 8, 1]] if rng.random() < 0.75 else GARMENTS
    coat, legs = _cloth(pick(rng, GARMENTS, 0.25), salt), _cloth(pick(rng, trousers, 0.25), salt + 1)
    skin, hair = _plain(pick(rng, SKIN)), _cloth(pick(rng, TIMBER, 0.3) * 0.4, salt + 2)
    shoe = _plain(pick(rng, GARMENTS[[0, 5, 8]]))
    bulk, swing = rng.uniform(0.9, 1.25), rng.uniform(0, 0.32)
    parts: list[tuple[object, Callable[[Hit], Finish]]] = []
    for side, phase in ((-1, 1), (1, -1)):
        hip = np.array([side * 0.09, 0.9, 0]) * s
        knee = np.array([side * 0.1, 0.49, phase * swing * 0.45 + 0.03]) * s
        foot = np.array([side * 0.105, 0.07, phase * swing - 0.04]) * s
        parts += [(Capsule(hip, knee, 0.085 * s * bulk), legs), (Capsule(knee, foot, 0.062 * s * bulk), legs)]
        parts.append((Ellipsoid(foot + (0, -0.02, 0.06), (0.055 * s, 0.05 * s, 0.14 * s)), shoe))
        shoulder = np.array([side * 0.19 * bulk, 1.4, 0]) * s
        elbow = np.array([side * 0.26 * bulk, 1.12, -phase * swing * 0.35 - 0.03]) * s
        hand = np.array([side * 0.25 * bulk, 0.86, -phase * swing * 0.7 + 0.06]) * s
        parts += [(Capsule(shoulder, elbow, 0.055 * s * bulk), coat), (Capsule(elbow, hand, 0.045 * s * bulk), coat)]
        parts.append((Ellipsoid(hand, (0.045 * s, 0.06 * s, 0.045 * s)), skin))
    skirted = rng.random() < 0.3
    for side in (-1, 1):
        chest, waist = np.array([side * 0.085 * bulk, 1.36, 0]) * s, np.array([side * 0.06 * bulk, 1.0, 0]) * s
        parts.append((Capsule(chest, waist, 0.105 * s * bulk), coat))
    if skirted:
        parts.append((Ellipsoid(np.array([0, 0.76, 0]) * s, np.array([0.165 * bulk, 0.27, 0.13 * bulk]) * s), coat))
    else:
        parts.append((Ellipsoid(np.array([0, 0.92, 0]) * s, np.array([0.15 * bulk, 0.12, 0.115 * bulk]) * s), legs))
    parts.append((Capsule(np.array([0, 1.42, 0]) * s, np.array([0, 1.55, 0.01]) * s, 0.055 * s), skin))
    parts.append((Ellipsoid(np.array([0, 1.64, 0.015]) * s, np.array([0.078, 0.115, 0.095]) * s), skin))
    parts.append((Ellipsoid(np.array([0, 1.675, -0.02]) * s, np.array([0.088, 0.1, 0.1]) * s), hair))
    if rng.random() < 0.35:
        bag = box((-0.15 * s, 1.0 * s, -0.32 * s), (0.15 * s, 1.42 * s, -0.1 * s))
        parts.append((bag, _cloth(pick(rng, GARMENTS, 0.2), salt + 3)))
    corners = 0.22 * np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    return Thing([Part(shape, finish, LABELS['person']) for shape, finish in parts], x, z, yaw, corners)


def fence(rng: np.random.Generator, x: float, z: float, length: float, yaw: float) -> Thing:
    """A wooden fence along its own x axis: upright boards with gaps, or posts with rails."""
    colour, salt = pick(rng, TIMBER), float(rng.uniform(0, 100))
    height, board = rng.uniform(0.9, 1.7), rng.uniform(0.11, 0.2)
    gap = rng.uniform(0.0, 0.35)
    railed = rng.random() < 0.35

    def finish(hit: Hit) -> Finish:
        u, v = hit.point[0], hit.point[1]
        plank = np.floor(u / board)
        grain = fractal(u * 3, v * 0.4, 0.5, salt, hit.footprint)
        gain = 0.8 + 0.4 * cell_random(plank, plank * 0, salt) + 0.2 * grain + 0.12 * fractal(u, v, 3.0, salt + 4)
        edge = 1 - 0.5 * step(np.abs(np.mod(u / board, 1) - 0.5), 0.45, 0.08) * np.clip(1 - hit.footprint / board, 0, 1)
        return Finish(tint(colour, np.clip(gain, 0.2, 2) * edge * (1 - 0.3 * np.exp(-np.maximum(v, 0) / 0.2))))

    def cutout(hit: Hit) -> np.ndarray:
        u, v = hit.point[0], hit.point[1] / height
        rails = (np.abs(v - 0.25) < 0.06) | (np.abs(v - 0.78) < 0.06)
        if railed:
            return rails | (np.abs(v - 0.52) < 0.06) | (np.mod(u, 2.2) < 0.14)
        top = 0.96 + 0.04 * cell_random(np.floor(u / board), u * 0, salt + 1)
        return ((np.mod(u / board, 1) > gap) & (v < top)) | rails

    panel = box((-length / 2, 0.0, -0.03), (length / 2, height, 0.03))
    corners = np.array([[-length / 2, -0.1], [length / 2, -0.1], [length / 2, 0.1], [-length / 2, 0.1]])
    return Thing([Part(panel, finish, LABELS['fence'], cutout)], x, z, yaw, corners)


def lamp_post(rng: np.random.Generator, x: float, z: float, toward: float) -> Thing:
    """A street lamp, unlabelled; its arm reaches along x by the sign of ``toward``."""
    height = rng.uniform(4.5, 8.0)
    colour = _plain(pick(rng, PAINTS[[1, 2, 6, 8]]))
    reach = toward * rng.uniform(0.6, 1.6)
    parts = [
        Part(Capsule((0, 0, 0), (0, height, 0), 0.065), colour, UNLABELLED),
        Part(Capsule((0, height, 0), (reach, height + 0.25, 0), 0.045), colour, UNLABELLED),
        Part(Ellipsoid((reach, height + 0.2, 0), (0.3, 0.1, 0.14)), colour, UNLABELLED),
    ]
    return Thing(parts, x, z)


def bin_or_bench(rng: np.random.Generator, x: float, z: float, yaw: float) -> Thing:
    """A litter bin, a bench or a box, unlabelled."""
    kind = rng.integers(3)
    if kind == 0:
        colour = _plain(pick(rng, PAINTS))
        parts = [Part(prism((-0.22, 0.22, -0.22, 0.22), (-0.28, 0.28, -0.28, 0.28), 0, 0.95), colour, UNLABELLED)]
    elif kind == 1:
        wood = _cloth(pick(rng, TIMBER), 5.0)
        boxes = [((-0.9, 0.4, -0.2), (0.9, 0.46, 0.25)), ((-0.9, 0.6, -0.26), (0.9, 0.9, -0.2))]
        boxes += [((sx - 0.04, 0, -0.22), (sx + 0.04, 0.62, 0.2)) for sx in (-0.75, 0.75)]
        parts = [Part(box(*corners), wood, UNLABELLED) for corners in boxes]
    else:
        colour = _cloth(pick(rng, MASONRY) * 0.6, 8.0)
        parts = [Part(box((-0.45, 0, -0.2), (0.45, rng.uniform(0.9, 1.4), 0.2)), colour, UNLABELLED)]
    corners = 0.5 * np.array([[-1.0, -0.5], [1, -0.5], [1, 0.5], [-1, 0.5]])
    return Thing(parts, x, z, yaw, corners)
