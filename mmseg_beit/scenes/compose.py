"""Layouts: streets, suburbs, country, lakes and parks, filled with things at plausible places and sizes."""

from dataclasses import dataclass, field

import numpy as np

from .backdrop import Range, Wood, random_range, random_wood
from .buildings import building, gabled
from .canvas import Thing
from .figures import bin_or_bench, car, fence, lamp_post, person
from .ground import GroundPlan, random_colours
from .vegetation import broadleaf, bush, conifer


@dataclass
class Scene:
    """Everything but the light and the film: ground, things, horizon and where the photographer stands."""

    plan: GroundPlan
    position: tuple[float, float, float]
    yaw: float
    pitch: float
    roll: float
    field_of_view: float
    things: list[Thing] = field(default_factory=list)
    ranges: list[Range] = field(default_factory=list)
    woods: list[Wood] = field(default_factory=list)
    waves: float = 0.05
    water_tone: tuple[float, float, float] = (0.03, 0.06, 0.06)


def random_scene(rng: np.random.Generator) -> Scene:
    """Draws a scene of any kind."""
    kinds = [_street, _suburb, _country, _lake, _park]
    return kinds[rng.choice(len(kinds), p=[0.3, 0.2, 0.2, 0.16, 0.14])](rng)


def _photographer(rng: np.random.Generator, plan: GroundPlan, x: float, turn: float) -> Scene:
    """Places the camera at about eye height, looking along the street give or take ``turn`` radians."""
    height = float(rng.choice([rng.uniform(1.3, 1.9), rng.uniform(1.9, 5.0)], p=[0.75, 0.25]))
    pitch = rng.normal(-0.015 - 0.035 * (height - 1.5), 0.05)
    field_of_view = np.deg2rad(rng.uniform(42, 68))
    tone = rng.choice([0.3, 1.0]) * np.array([0.05, 0.09, 0.09]) * np.exp(rng.normal(0, 0.4, 3))
    yaw = float(np.clip(rng.normal(0, turn), -1.3, 1.3))
    scene = Scene(plan, (x, height, 0.0), yaw, pitch, rng.normal(0, 0.012), field_of_view)
    scene.waves, scene.water_tone = float(10 ** rng.uniform(-1.9, -0.9)), tuple(tone)
    return scene


def _plan(rng: np.random.Generator, base: str, **fields: object) -> GroundPlan:
    plan = GroundPlan(base, salt=float(rng.uniform(0, 200)), colours=random_colours(rng), **fields)
    plan.marking = str(rng.choice(['white', 'yellow', 'none'], p=[0.6, 0.15, 0.25]))
    plan.slabs = (rng.uniform(0.3, 1.2), rng.uniform(0.3, 0.8))
    plan.worn = rng.uniform(0, 1)
    return plan


def _tree(rng: np.random.Generator, x: float, z: float, scene: Scene, size: float = 1.0) -> Thing:
    """A tree with as much detail as its distance needs."""
    far = np.hypot(x - scene.position[0], z)
    detail = int(np.clip(420 / max(far, 8), 9, 34))
    if rng.random() < 0.22:
        return conifer(rng, x, z, size * rng.uniform(6, 14), max(6, detail // 2))
    return broadleaf(rng, x, z, size * rng.uniform(4.5, 10), detail)


def _clear(scene: Scene, x: float, z: float, room: float) -> bool:
    """Whether a thing may stand here: not in the lens, not in the water."""
    if np.hypot(x - scene.position[0], z - scene.position[2]) < room:
        return False
    water = scene.plan.water
    return water is None or not (water[0] + water[1] * x - 1.5 < z < water[2] + 3)


def _in_view(rng: np.random.Generator, scene: Scene, near: float, far: float) -> tuple[float, float]:
    """A random place on the ground inside the camera's field of view."""
    distance = near * (far / near) ** rng.random()
    angle = scene.yaw + scene.field_of_view * rng.uniform(-0.5, 0.5)
    return scene.position[0] + distance * np.sin(angle), scene.position[2] + distance * np.cos(angle)


def _people(rng: np.random.Generator, scene: Scene, count: int, near: float, far: float) -> None:
    for _ in range(count):
        x, z = _in_view(rng, scene, near, far)
        if not _clear(scene, x, z, near * 0.8):
            continue
        yaw = rng.uniform(-np.pi, np.pi)
        for k in range(1 + int(rng.random() < 0.4)):
            scene.things.append(person(rng, x + 0.65 * k, z + 0.2 * k, yaw + rng.normal(0, 0.3)))


def _traffic(rng: np.random.Generator, scene: Scene, parked: float, moving: int) -> None:
    """Cars at the kerbs (a share of the bays, 0..1) and on the lanes."""
    plan = scene.plan
    heading = np.arctan(plan.bend[1])
    for side in (-1, 1):
        z = rng.uniform(1, 8)
        while z < 75:
            x = plan.centre(z) + side * (plan.road - 1.05)
            if rng.random() < parked and _clear(scene, x, z, 4.2):
                turn = heading + 2 * plan.bend[2] * z + (np.pi if rng.random() < 0.4 else 0) + rng.normal(0, 0.02)
                scene.things.append(car(rng, x + rng.normal(0, 0.08), z, turn))
            z += rng.uniform(5.4, 8.0)
    for _ in range(moving):
        z = 7 * 12 ** rng.random()
        side = int(rng.choice([-1, 1]))
        x = plan.centre(z) + side * plan.road * 0.3
        if _clear(scene, x, z, 6):
            scene.things.append(car(rng, x, z, heading + 2 * plan.bend[2] * z + (0 if side > 0 else np.pi)))


def _horizon(rng: np.random.Generator, scene: Scene, hills: float, wood: float) -> None:
    """Adds mountain ranges and woods with these chances."""
    if rng.random() < hills:
        steepness = rng.uniform(0.07, 0.3)
        for k in range(int(rng.integers(1, 4))):
            scene.ranges.append(random_range(rng, rng.uniform(5000, 12000) * 0.55**k, steepness * 0.75**k))
    if rng.random() < wood:
        far = rng.uniform(110, 420)
        scene.woods.append(random_wood(rng, far, rng.uniform(8, 22)))


def _terrace(rng: np.random.Generator, scene: Scene, side: int, setback: float, tall: tuple[float, float]) -> None:
    """A row of flat-roofed buildings along one side of the road."""
    plan = scene.plan
    z = rng.uniform(-12, 0)
    crossing = plan.crossing
    while z < 130:
        width, depth = rng.uniform(9, 22), rng.uniform(8, 14)
        middle = z + width / 2
        hole = crossing is not None and abs(middle - crossing[0]) < width / 2 + crossing[1] + 3
        if not hole and rng.random() < 0.9:
            x = plan.centre(middle) + side * (setback + depth / 2 + rng.uniform(0, 0.8))
            look = {'shops': bool(rng.random() < 0.45), 'glazed': bool(rng.random() < 0.15)}
            if np.hypot(max(abs(x - scene.position[0]) - depth / 2, 0), max(abs(middle) - width / 2, 0)) > 2.5:
                scene.things.append(building(rng, x, middle, depth, width, rng.uniform(*tall), **look))
        z += width + (rng.uniform(2, 9) if rng.random() < 0.25 else 0.02)


def _street(rng: np.random.Generator) -> Scene:
    road = rng.uniform(2.8, 6.0)
    kerbs = (rng.uniform(1.6, 4.5), rng.uniform(1.6, 4.5))
    bend = (0.0, rng.normal(0, 0.04), rng.choice([0.0, rng.normal(0, 0.0015)]))
    crossing = (rng.uniform(12, 45), rng.uniform(2.5, 4.5)) if rng.random() < 0.35 else None
    base = str(rng.choice(['sidewalk', 'grass', 'earth'], p=[0.6, 0.3, 0.1]))
    plan = _plan(rng, base, road=road, kerbs=kerbs, bend=bend, crossing=crossing, bare=rng.uniform(0, 0.6))
    stand = rng.choice([rng.uniform(-road, road), road + kerbs[1] * 0.6, -road - kerbs[0] * 0.6])
    scene = _photographer(rng, plan, float(stand), float(rng.choice([0.12, 0.5])))
    low = rng.uniform(4, 9)
    setback = road + max(kerbs) + rng.choice([0.1, rng.uniform(1, 5)])
    for side in (-1, 1):
        if rng.random() < 0.88:
            _terrace(rng, scene, side, setback, (low, low + rng.uniform(1, 14)))
        if rng.random() < 0.55:
            for z in np.arange(rng.uniform(4, 10), 70, rng.uniform(7, 14)):
                x = plan.centre(z) + side * (road + rng.uniform(0.6, 1.2))
                if _clear(scene, x, z, 3) and rng.random() < 0.85:
                    scene.things.append(_tree(rng, x, z, scene, 0.8))
        if rng.random() < 0.6:
            for z in np.arange(rng.uniform(5, 12), 60, 16.0):
                if _clear(scene, plan.centre(z) + side * (road + 0.4), z, 1.5):
                    scene.things.append(lamp_post(rng, plan.centre(z) + side * (road + 0.4), z, -side))
        if rng.random() < 0.4:
            z = rng.uniform(4, 20)
            x = plan.centre(z) + side * (road + min(kerbs) * 0.7)
            if _clear(scene, x, z, 3):
                scene.things.append(bin_or_bench(rng, x, z, np.pi / 2 * -side))
    _traffic(rng, scene, rng.choice([0.0, rng.uniform(0.2, 0.8)]), int(rng.integers(0, 4)))
    _people(rng, scene, int(rng.integers(0, 8)), 3.5, 35)
    _horizon(rng, scene, 0.3, 0.5)
    return scene


def _suburb(rng: np.random.Generator) -> Scene:
    road = rng.uniform(2.4, 3.8)
    kerbs = tuple(rng.choice([0.0, rng.uniform(1.2, 2.2)], p=[0.35, 0.65]) for _ in range(2))
    bend = (0.0, rng.normal(0, 0.05), rng.normal(0, 0.0015))
    plan = _plan(rng, 'grass', road=road, kerbs=kerbs, bend=bend, bare=rng.choice([0, rng.uniform(0, 0.7)]))
    scene = _photographer(rng, plan, rng.uniform(-road, road) * 1.6, float(rng.choice([0.2, 0.6])))
    for side in (-1, 1):
        edge = road + max(kerbs) + 0.3
        z = rng.uniform(-8, 6)
        while z < 110:
            width, depth = rng.uniform(6, 9), rng.uniform(8, 13)
            setback = edge + rng.uniform(3.5, 9)
            x = plan.centre(z) + side * (setback + depth / 2)
            if _clear(scene, x, z, 9) and rng.random() < 0.82:
                yaw = np.pi / 2 * int(rng.integers(0, 2)) + rng.normal(0, 0.05)
                scene.things.append(gabled(rng, x, z, width, depth, rng.uniform(2.6, 6), yaw))
            if rng.random() < 0.6:
                tx, tz = plan.centre(z) + side * (edge + rng.uniform(0.8, 9)), z + rng.uniform(5, 9)
                if _clear(scene, tx, tz, 4):
                    scene.things.append(_tree(rng, tx, tz, scene, 0.75))
            if rng.random() < 0.35 and _clear(scene, plan.centre(z) + side * (edge + 1.2), z - 5, 3):
                scene.things.append(bush(rng, plan.centre(z) + side * (edge + 1.2), z - 5, rng.uniform(0.8, 1.6)))
            z += rng.uniform(12, 20)
        if rng.random() < 0.6:
            start = rng.uniform(2, 12)
            length = rng.uniform(14, 45)
            middle = start + length / 2
            turn = np.pi / 2 + np.arctan(plan.bend[1] + 2 * plan.bend[2] * middle)
            x = plan.centre(middle) + side * (edge + 0.4)
            scene.things.append(fence(rng, x, middle, length, turn))
    _traffic(rng, scene, rng.choice([0.0, rng.uniform(0.1, 0.5)]), int(rng.integers(0, 3)))
    _people(rng, scene, int(rng.integers(0, 5)), 4, 30)
    _horizon(rng, scene, 0.45, 0.7)
    return scene


def _country(rng: np.random.Generator) -> Scene:
    road = float(rng.choice([0.0, rng.uniform(1.5, 3.6)], p=[0.2, 0.8]))
    bend = (rng.normal(0, 2.5), rng.normal(0, 0.15), rng.normal(0, 0.004))
    base = str(rng.choice(['grass', 'earth'], p=[0.8, 0.2]))
    track = bool(rng.random() < 0.4)
    plan = _plan(rng, base, road=road, bend=bend, track=track, bare=rng.uniform(0, 0.9), relief=rng.uniform(0.05, 0.22))
    scene = _photographer(rng, plan, rng.uniform(-5, 5), 0.3)
    for _ in range(int(rng.integers(1, 9))):
        x, z = _in_view(rng, scene, 7, 110)
        if abs(x - plan.centre(z)) > road + 1.5:
            scene.things.append(_tree(rng, x, z, scene) if rng.random() < 0.8 else bush(rng, x, z, rng.uniform(0.8, 2)))
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.45, 0.3, 0.15, 0.1]))):
        x, z = _in_view(rng, scene, 22, 130)
        if abs(x - plan.centre(z)) > road + 8:
            house = gabled(
                rng, x, z, rng.uniform(6, 10), rng.uniform(8, 16), rng.uniform(2.5, 6), rng.uniform(0, np.pi)
            )
            scene.things.append(house)
    if rng.random() < 0.6:
        z = rng.uniform(5, 25)
        x = scene.position[0] + rng.uniform(-8, 8)
        scene.things.append(fence(rng, x, z, rng.uniform(12, 50), rng.normal(0, 0.5)))
    if road > 0 and not track:
        _traffic(rng, scene, 0.0, int(rng.integers(0, 4)))
    elif rng.random() < 0.3:
        x, z = _in_view(rng, scene, 8, 25)
        scene.things.append(car(rng, x, z, rng.uniform(-np.pi, np.pi)))
    _people(rng, scene, int(rng.integers(0, 4)), 4, 30)
    _horizon(rng, scene, 0.75, 0.6)
    return scene


def _lake(rng: np.random.Generator) -> Scene:
    near = rng.uniform(5, 22)
    far = float(rng.choice([2900.0, rng.uniform(60, 400)], p=[0.35, 0.65]))
    base = str(rng.choice(['grass', 'earth', 'sidewalk'], p=[0.45, 0.35, 0.2]))
    slope = rng.normal(0, 0.25)
    plan = _plan(rng, base, water=(near, slope, far), bare=rng.uniform(0, 0.7), relief=rng.uniform(0.05, 0.2))
    scene = _photographer(rng, plan, 0.0, 0.3)
    for _ in range(int(rng.integers(0, 6))):
        x, z = _in_view(rng, scene, 5, near + 4)
        if _clear(scene, x, z, 5):
            scene.things.append(
                _tree(rng, x, z, scene) if rng.random() < 0.7 else bush(rng, x, z, rng.uniform(0.7, 1.6))
            )
    if far < 1000:
        for _ in range(int(rng.integers(0, 6))):
            x, z = _in_view(rng, scene, far + 8, far + 40)
            house = gabled(rng, x, z, rng.uniform(7, 12), rng.uniform(8, 16), rng.uniform(3, 9), rng.uniform(0, np.pi))
            scene.things.append(house)
        for _ in range(int(rng.integers(0, 5))):
            x, z = _in_view(rng, scene, far + 5, far + 25)
            scene.things.append(_tree(rng, x, z, scene))
        scene.woods.append(random_wood(rng, far + rng.uniform(45, 90), rng.uniform(8, 22)))
    if rng.random() < 0.35:
        scene.things.append(fence(rng, rng.uniform(-6, 6), near * 0.75, rng.uniform(8, 25), np.arctan(-slope)))
    if rng.random() < 0.3:
        x, z = _in_view(rng, scene, 3, max(near - 2, 4))
        if _clear(scene, x, z, 3):
            scene.things.append(bin_or_bench(rng, x, z, rng.uniform(0, 6)))
    if rng.random() < 0.25:
        x, z = _in_view(rng, scene, 7, max(near - 2, 8))
        if _clear(scene, x, z, 5):
            scene.things.append(car(rng, x, z, rng.uniform(-np.pi, np.pi)))
    _people(rng, scene, int(rng.integers(0, 6)), 3.5, max(near - 1, 4.5))
    _horizon(rng, scene, 0.75, 0.2 if far > 1000 else 0.0)
    return scene


def _park(rng: np.random.Generator) -> Scene:
    path = rng.uniform(1.0, 2.6)
    bend = (rng.normal(0, 1.5), rng.normal(0, 0.2), rng.normal(0, 0.008))
    paved = rng.random() < 0.3
    plan = _plan(rng, 'sidewalk' if paved else 'grass', path=path, path_bend=bend, bare=rng.uniform(0, 0.7))
    scene = _photographer(rng, plan, bend[0] + rng.normal(0, 2), 0.3)
    for _ in range(int(rng.integers(4, 13))):
        x, z = _in_view(rng, scene, 6, 60)
        centre = bend[0] + bend[1] * z + bend[2] * np.clip(z, 0, 80) ** 2
        if abs(x - centre) > path + 0.8:
            scene.things.append(
                _tree(rng, x, z, scene) if rng.random() < 0.85 else bush(rng, x, z, rng.uniform(0.7, 1.8))
            )
    for _ in range(int(rng.integers(0, 4))):
        x, z = _in_view(rng, scene, 3.5, 15)
        if _clear(scene, x, z, 3):
            scene.things.append(bin_or_bench(rng, x, z, rng.uniform(0, 6)))
    if rng.random() < 0.6:
        z = rng.uniform(45, 90)
        for x in np.arange(-60, 60, rng.uniform(14, 22)):
            if rng.random() < 0.7:
                scene.things.append(building(rng, x, z, rng.uniform(11, 16), 12, rng.uniform(6, 24)))
    if rng.random() < 0.3:
        scene.things.append(
            fence(rng, rng.uniform(-8, 8), rng.uniform(12, 40), rng.uniform(10, 40), rng.normal(0, 0.2))
        )
    _people(rng, scene, int(rng.integers(1, 9)), 3.5, 30)
    _horizon(rng, scene, 0.2, 0.8)
    return scene
