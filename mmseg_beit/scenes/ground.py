"""The ground plane: which surface lies where, and what each surface looks like from above and along it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .canvas import Canvas
from .colours import ASPHALT, FOLIAGE, PAVING, SOIL, TURF, Colour, blend, pick, step, tint
from .labels import LABELS
from .noise import cell_random, fractal, fractal_slope

#: Beyond this depth (metres) the plane is left to the backdrop.
_HORIZON = 3000.0


@dataclass
class GroundPlan:
    """A map of the ground; lengths in metres.

    Attributes:
        base: Surface off the road: ``grass``, ``earth`` or ``sidewalk``.
        road: Half the width of the road, 0 for none.
        bend: Road centre at depth z: ``bend[0] + bend[1] * z + bend[2] * z**2``.
        kerbs: Width of the pavement left and right of the road, 0 for none.
        track: Whether the road is an unmade track (earth).
        crossing: Depth and half width of a road that crosses, ``None`` for none.
        bare: How much of the grass is worn to earth, 0..1.
        water: Near shore (depth at x = 0, its slope over x) and depth of the far shore, ``None`` for none.
        path: Half width of a paved path through the grass along ``path_bend``, 0 for none.
        marking: ``white``, ``yellow`` or ``none``.
        relief: Height of the grass.
    """

    base: str = 'grass'
    road: float = 0.0
    bend: tuple[float, float, float] = (0.0, 0.0, 0.0)
    kerbs: tuple[float, float] = (0.0, 0.0)
    track: bool = False
    crossing: tuple[float, float] | None = None
    bare: float = 0.0
    water: tuple[float, float, float] | None = None
    path: float = 0.0
    path_bend: tuple[float, float, float] = (0.0, 0.0, 0.0)
    marking: str = 'white'
    relief: float = 0.07
    salt: float = 0.0
    colours: dict[str, Colour] = field(default_factory=dict)
    slabs: tuple[float, float] = (0.6, 0.4)
    worn: float = 0.5

    def centre(self, z: np.ndarray | float) -> np.ndarray | float:
        """Returns the x of the road's centre line at depth z."""
        z = np.clip(z, -20, 160)
        return self.bend[0] + self.bend[1] * z + self.bend[2] * z * z

    def surfaces(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Returns the ADE20K index of the surface at ground positions: uint8, as ``x``."""
        rough = 0.10 * fractal(x, z, 0.8, self.salt + 40) + 0.12 * fractal(x, z, 4.0, self.salt + 41)
        label = np.full(x.shape, LABELS[self.base], np.uint8)
        if self.bare > 0 and self.base == 'grass':
            worn = fractal(x, z, 14.0, self.salt + 42) + 0.25 * fractal(x, z, 1.5, self.salt + 43)
            label[worn > 2.2 - 2.4 * self.bare] = LABELS['earth']
        if self.path > 0:
            bend = self.path_bend
            across = x - (bend[0] + bend[1] * z + bend[2] * np.clip(z, 0, 80) ** 2)
            label[np.abs(across) + 0.4 * rough < self.path] = LABELS['sidewalk']
        if self.road > 0:
            across = x - self.centre(z)
            edge = across if any(self.kerbs) else across + rough * np.sign(across) * (2.5 if self.track else 1)
            outer = np.where(across < 0, self.kerbs[0], self.kerbs[1])
            label[(np.abs(across) < self.road + outer) & (outer > 0)] = LABELS['sidewalk']
            label[np.abs(edge) < self.road] = LABELS['earth' if self.track else 'road']
        if self.crossing is not None:
            side = np.abs(z - self.crossing[0])
            if any(self.kerbs):
                beside = (side < self.crossing[1] + max(self.kerbs)) & (label != LABELS['road'])
                label[beside] = LABELS['sidewalk']
            label[side < self.crossing[1]] = LABELS['road']
        if self.water is not None:
            near, slope, far = self.water
            bank = near + slope * x + 1.5 * fractal(x, z * 0.3, 12.0, self.salt + 44) + 3 * rough
            wet = (z > bank) & (z < far)
            if self.base == 'grass':
                label[(z > bank - 0.7 - 2.0 * np.abs(rough) * 3) & (z <= bank)] = LABELS['earth']
            label[wet] = LABELS['water']
        return label


def random_colours(rng: np.random.Generator) -> dict[str, Colour]:
    """Draws the colours of a plan's surfaces."""
    return {
        'road': pick(rng, ASPHALT, 0.18),
        'sidewalk': pick(rng, PAVING, 0.15),
        'grass': pick(rng, TURF, 0.15),
        'weeds': pick(rng, np.concatenate([TURF, FOLIAGE, SOIL[:2] * 0.7]), 0.15),
        'earth': pick(rng, SOIL, 0.15),
        'stones': pick(rng, PAVING, 0.2),
    }


Surface = tuple[np.ndarray, np.ndarray]


def _asphalt(plan: GroundPlan, x: np.ndarray, z: np.ndarray, foot: np.ndarray) -> Surface:
    across = x - plan.centre(z)
    gain = 1 + 0.12 * fractal(x, z, 9.0, plan.salt, foot) + 0.14 * fractal(x, z, 0.6, plan.salt + 1, foot)
    gain += 0.2 * fractal(x, z, 0.09, plan.salt + 2, foot) + 0.1 * fractal(across, z * 0.1, 2.5, plan.salt + 3, foot)
    lane = plan.road / 2
    tyres = np.exp(-(((np.abs(np.abs(across) - lane) - 0.75) / 0.3) ** 2))
    gain *= 1 - 0.12 * tyres
    patch = fractal(np.floor(x / 1.7), np.floor(z / 2.9), 3.0, plan.salt + 4) > 1.5
    gain = np.where(patch, gain * 0.72, gain)
    crack = np.abs(fractal(x, z, 3.5, plan.salt + 5)) < 0.045
    gain *= 1 - 0.45 * crack * np.clip(1 - foot / 0.08, 0, 1)
    colour = tint(plan.colours['road'], np.clip(gain, 0.3, 2.2))
    if plan.marking == 'none' or plan.road < 2.4:
        return colour, np.zeros_like(x)
    soft = np.maximum(foot * 0.7, 0.02)
    dash = step(1.6 - np.abs(np.mod(z + plan.salt, 6.5) - 3), 0, 0.05 + foot * 2)
    line = step(0.065 - np.abs(across), 0, soft) * dash
    line = np.maximum(line, step(0.06 - np.abs(np.abs(across) - plan.road + 0.35), 0, soft) * (plan.salt % 1 < 0.6))
    if plan.crossing is not None:
        line = line * (np.abs(z - plan.crossing[0]) > plan.crossing[1] + 3)
        zebra = np.abs(np.abs(z - plan.crossing[0]) - plan.crossing[1] - 1.6) < 1.2
        line = np.maximum(
            line, zebra * step(np.abs(np.mod(across, 1.1) - 0.55), 0.28, soft) * (np.abs(across) < plan.road)
        )
    kept = step(fractal(x, z, 0.7, plan.salt + 6), 1.5 * plan.worn - 1.6, 0.6)
    paint = np.float32([0.62, 0.61, 0.57] if plan.marking == 'white' else [0.6, 0.42, 0.06])
    return blend(colour, tint(paint, gain * 0.5 + 0.5), 0.85 * line * kept), np.zeros_like(x)


def _paving(plan: GroundPlan, x: np.ndarray, z: np.ndarray, foot: np.ndarray) -> Surface:
    across = x - plan.centre(z)
    u, v = z / plan.slabs[0], across / plan.slabs[1]
    u = u + 0.5 * np.mod(np.floor(v), 2)
    sharp = np.clip(1.1 - foot / (0.35 * min(plan.slabs)), 0, 1)
    joint = np.maximum(
        step(np.abs(np.mod(u, 1) - 0.5), 0.475, 0.03 + foot), step(np.abs(np.mod(v, 1) - 0.5), 0.465, 0.03 + foot)
    )
    gain = 1 + sharp * 0.22 * (cell_random(np.floor(u), np.floor(v), plan.salt) - 0.5)
    gain += 0.1 * fractal(x, z, 5.0, plan.salt + 10, foot) + 0.1 * fractal(x, z, 0.5, plan.salt + 11, foot)
    gain += 0.08 * fractal(x, z, 0.08, plan.salt + 12, foot)
    gain *= 1 - 0.5 * joint * sharp
    if plan.road > 0 and any(plan.kerbs):
        from_road = np.abs(across) - plan.road
        gain *= 1 + 0.25 * step(0.09 - np.abs(from_road - 0.1), 0, 0.02 + foot)
        gain *= 1 - 0.6 * step(0.045 - np.abs(from_road - 0.02), 0, 0.02 + foot)
    return tint(plan.colours['sidewalk'], np.clip(gain, 0.2, 2)), np.zeros_like(x)


def _turf(plan: GroundPlan, x: np.ndarray, z: np.ndarray, foot: np.ndarray) -> Surface:
    patch = step(fractal(x, z, 18.0, plan.salt + 20) + 0.5 * fractal(x, z, 2.5, plan.salt + 21, foot), 0.5, 2.2)
    gain = 1 + 0.18 * fractal(x, z, 1.6, plan.salt + 22, foot) + 0.28 * fractal(x, z, 0.3, plan.salt + 23, foot)
    gain += 0.35 * fractal(x * 1.8, z, 0.11, plan.salt + 24, foot) + 0.12 * fractal(x, z, 40.0, plan.salt + 25)
    straw = step(fractal(x, z, 0.22, plan.salt + 26, foot), 1.5, 0.8)
    colour = blend(plan.colours['grass'], plan.colours['weeds'], patch) * np.clip(gain, 0.25, 2.4)
    colour = blend(colour, np.float32([0.3, 0.25, 0.12]), 0.5 * straw)
    return colour, np.full_like(x, 0.25)


def _soil(plan: GroundPlan, x: np.ndarray, z: np.ndarray, foot: np.ndarray) -> Surface:
    gain = 1 + 0.15 * fractal(x, z, 6.0, plan.salt + 30, foot) + 0.2 * fractal(x, z, 0.7, plan.salt + 31, foot)
    gain += 0.25 * fractal(x, z, 0.13, plan.salt + 32, foot)
    if plan.track:
        across = np.abs(x - plan.centre(z))
        gain *= 1 - 0.2 * np.exp(-(((across - 0.8) / 0.3) ** 2))
    pebble = step(fractal(x, z, 0.35, plan.salt + 33, foot), 1.3, 0.4)
    weeds = step(fractal(x, z, 3.0, plan.salt + 34) + 0.4 * fractal(x, z, 0.2, plan.salt + 35, foot), 1.6, 0.5)
    colour = tint(plan.colours['earth'], np.clip(gain, 0.25, 2.2))
    colour = blend(colour, plan.colours['stones'], 0.45 * pebble)
    return blend(colour, plan.colours['weeds'] * 0.9, 0.7 * weeds), np.zeros_like(x)


def _water(plan: GroundPlan, x: np.ndarray, z: np.ndarray, foot: np.ndarray) -> Surface:
    # The light on water is mirrored, see `light.mirror_water`; the albedo is what shows through.
    return tint(np.float32([0.02, 0.03, 0.03]), np.ones_like(x)), np.zeros_like(x)


_PAINTERS: dict[int, tuple[Callable[[GroundPlan, np.ndarray, np.ndarray, np.ndarray], Surface], float, float]] = {
    LABELS['road']: (_asphalt, 0.08, 0.10),
    LABELS['sidewalk']: (_paving, 0.06, 0.3),
    LABELS['grass']: (_turf, 0.38, 0.35),
    LABELS['earth']: (_soil, 0.30, 0.6),
    LABELS['water']: (_water, 0.0, 1.0),
}


def _stand_up(plan: GroundPlan, view, x: np.ndarray, z: np.ndarray, t: np.ndarray, direction: np.ndarray):
    """Moves hits on grass towards the lens where a blade in front stands in the way, which gives upright texture."""
    for _ in range(2):
        blades = 0.5 + 0.35 * fractal(x * 2.2, z * 0.8, 0.25, plan.salt + 50) + 0.3 * fractal(x, z, 1.4, plan.salt + 51)
        height = plan.relief * np.clip(blades, 0, 1.5)
        reach = (view.eye[1] - height) / np.maximum(-direction[1], 1e-5)
        x, z = view.eye[0] + reach * direction[0], view.eye[2] + reach * direction[2]
    return x, z


def draw_ground(canvas: Canvas, plan: GroundPlan) -> None:
    """Draws the ground plane on a blank canvas of a perspective view."""
    view = canvas.view
    t = view.eye[1] / np.maximum(-view.direction[1], 1e-6)
    place = np.flatnonzero((view.direction[1] < -1e-5) & (t < _HORIZON))
    t = t.reshape(-1)[place]
    direction = view.looks(place)
    x, z = view.eye[0] + t * direction[0], view.eye[2] + t * direction[2]
    label = plan.surfaces(x, z)
    if plan.relief > 0:
        grass = np.nonzero((label == LABELS['grass']) & (t < 60))[0]
        x[grass], z[grass] = _stand_up(plan, view, x[grass], z[grass], t[grass], direction[:, grass])
        label = plan.surfaces(x, z)
    foot = view.footprint(t) * np.maximum(-direction[1], 0.02) ** -0.5
    for surface, (painter, bump, feature) in _PAINTERS.items():
        here = np.nonzero(label == surface)[0]
        if not here.size:
            continue
        xs, zs, fs = x[here], z[here], foot[here]
        albedo, wrap = painter(plan, xs, zs, fs)
        slope_x, slope_z = fractal_slope(xs, zs, feature, plan.salt + 60, fs)
        normal = np.stack([-bump * slope_x, np.ones_like(xs), -bump * slope_z])
        normal = normal / np.sqrt((normal**2).sum(0))
        canvas.put(place[here], t[here], surface, albedo, normal, 0.0, wrap)
