"""Renders one scene: a photograph and its exact mask from the same geometry."""

import numpy as np

from . import photo
from .backdrop import draw_range, draw_wood
from .canvas import Canvas
from .compose import random_scene
from .ground import draw_ground
from .labels import LABELS
from .light import mirror_water, random_daylight, shade
from .views import camera

#: Rays per pixel and axis.
_OVERSAMPLING = 2


def _majority(label: np.ndarray) -> np.ndarray:
    """The class that most of a pixel's 2 x 2 rays meet; the first ray's on a tie: uint8 (2H, 2W) to (H, W)."""
    a, b, c, d = label[::2, ::2], label[::2, 1::2], label[1::2, ::2], label[1::2, 1::2]
    return np.where((b == c) | (b == d), b, np.where(c == d, c, a))


def render_scene(
    seed: int, split: int, index: int, size: tuple[int, int] = (240, 320)
) -> tuple[np.ndarray, np.ndarray]:
    """Renders a scene that depends on nothing but the arguments.

    Args:
        seed: Of the data set.
        split: 0 for training, 1 for validation.
        index: Of the image in its split.
        size: (H, W) in pixels.

    Returns:
        The photograph, sRGB uint8 (H, W, 3) in RGB order, and the mask, uint8 (H, W) of ADE20K indices with 0 for
        unlabelled.
    """
    rng = np.random.default_rng([seed, split, index])
    scene, light = random_scene(rng), random_daylight(rng)
    fine = (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING)
    view = camera(scene.position, scene.yaw, scene.pitch, scene.roll, scene.field_of_view, fine)
    canvas = Canvas.blank(view, LABELS['sky'])
    draw_ground(canvas, scene.plan)
    # What nobody could see in the photograph must not be in the mask.
    for hills in scene.ranges:
        if not light.hides(hills.distance):
            draw_range(canvas, hills)
    for wood in scene.woods:
        if not light.hides(wood.distance):
            draw_wood(canvas, wood)
    # Near things first: what they hide is then never painted.
    away = [float(np.hypot(thing.x - scene.position[0], thing.z - scene.position[2])) for thing in scene.things]
    things = [scene.things[k] for k in np.argsort(away) if not light.hides(away[k])]
    for thing in things:
        canvas.draw(thing)
    radiance = shade(canvas, things, light)
    far = scene.plan.water[2] if scene.plan.water else 0.0
    mirror_water(canvas, radiance, light, scene.waves, np.asarray(scene.water_tone), far, scene.plan.salt)
    image = np.ascontiguousarray(radiance.transpose(1, 2, 0), dtype=np.float32)
    image = photo.lens(rng, image, canvas.depth)
    image = image.reshape(size[0], _OVERSAMPLING, size[1], _OVERSAMPLING, 3).mean((1, 3))
    return photo.develop(rng, image), _majority(canvas.label)
