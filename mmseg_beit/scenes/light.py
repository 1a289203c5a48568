"""Daylight: sun, sky and clouds by the time of day and the weather, cast shadows, haze and the mirror of water."""

from dataclasses import dataclass

import cv2
import numpy as np

from .canvas import Canvas, Thing, cast
from .labels import LABELS
from .noise import fractal, fractal_slope
from .views import along, sun_view

#: Half side in metres of the ground square in which shadows are cast, and its resolution in pixels.
_SHADOW_REACH, _SHADOW_PIXELS = 45.0, 512


@dataclass
class Daylight:
    """Light of one scene; colours are linear RGB radiances.

    Attributes:
        toward_sun: Unit vector (3,).
        sun: Irradiance of the sun, zero when it is hidden.
        zenith: Sky straight up.
        horizon: Sky at the horizon, also the colour of haze.
        glow: Added around the sun.
        cover: Share of the sky under cloud, 0..1.
        overcast: Whether the cloud is a closed sheet.
        haze: Extinction per metre.
        cloud_size: Largest features of the clouds.
        salt: Shifts the clouds.
    """

    toward_sun: np.ndarray
    sun: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    glow: np.ndarray
    cover: float
    overcast: bool
    haze: float
    cloud_size: float
    salt: float

    def hides(self, distance: float) -> bool:
        """Whether haze leaves less than a tenth of the contrast of what stands at a distance in metres."""
        return self.haze * distance > 2.3

    def gradient(self, direction: np.ndarray) -> np.ndarray:
        """Clear sky in unit directions (3, ...): radiance (3, ...)."""
        up = np.clip(direction[1], 0, 1)
        shape = (3,) + (1,) * (direction.ndim - 1)
        mix = (1 - up) ** 4.5
        colour = self.zenith.reshape(shape) * (1 - mix) + self.horizon.reshape(shape) * mix
        near_sun = np.clip(along(self.toward_sun, direction), 0, 1)
        return colour + self.glow.reshape(shape) * (0.55 * near_sun**6 + 1.6 * near_sun**60)


def random_daylight(rng: np.random.Generator) -> Daylight:
    """Draws a time of day, a place of the sun and the weather."""
    elevation = np.deg2rad(rng.choice([rng.uniform(4, 14), rng.uniform(14, 65)], p=[0.25, 0.75]))
    azimuth = rng.uniform(-np.pi, np.pi)
    toward = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    weather = rng.choice(['clear', 'fair', 'overcast', 'misty'], p=[0.25, 0.4, 0.25, 0.1])
    day = np.clip((np.rad2deg(elevation) - 3) / 25, 0, 1)
    sun = np.array([1.0, 0.50, 0.22]) * (1 - day) + np.array([1.0, 0.95, 0.86]) * day
    sun = sun * (0.9 + 1.5 * day)
    zenith = np.array([0.15, 0.20, 0.36]) * (1 - day) + np.array([0.12, 0.27, 0.58]) * day
    horizon = np.array([0.85, 0.55, 0.36]) * (1 - day) + np.array([0.62, 0.76, 0.90]) * day
    glow = np.array([0.8, 0.45, 0.2]) * (1 - day) + np.array([0.35, 0.33, 0.3]) * day
    haze = 1 / rng.uniform(3500, 12000)
    cover = 0.0 if weather == 'clear' else rng.uniform(0.25, 0.7)
    if weather in ('overcast', 'misty'):
        grey = np.array([0.62, 0.64, 0.67]) * rng.uniform(0.6, 1.25) * (0.6 + 0.4 * day)
        warm = np.array([1.03, 1.0, 0.97]) ** rng.uniform(-1, 2)
        zenith, horizon, glow = grey * 0.85 * warm, grey * 1.1 * warm, grey * 0.15
        sun = sun * (0.0 if weather == 'overcast' else 0.12)
        haze = 1 / rng.uniform(3000, 9000) if weather == 'overcast' else 1 / rng.uniform(120, 500)
        cover = 1.0
    else:
        horizon = horizon * rng.uniform(0.75, 1.15)
        zenith = zenith * rng.uniform(0.7, 1.3)
    toward, sun, zenith, horizon, glow = (v.astype(np.float32) for v in (toward, sun, zenith, horizon, glow))
    return Daylight(
        toward, sun, zenith, horizon, glow, cover, weather in ('overcast', 'misty'), haze,
        rng.uniform(1.2, 4.0), float(rng.uniform(0, 500)),
    )  # fmt: skip


def sky(light: Daylight, direction: np.ndarray) -> np.ndarray:
    """Sky with clouds in unit directions (3, N): radiance (3, N)."""
    colour = light.gradient(direction)
    if light.cover == 0:
        return colour
    lift = np.maximum(direction[1], 0) + 0.07
    x, z = direction[0] / lift, direction[2] / lift
    size = light.cloud_size
    body = fractal(x, z, size, light.salt) + 0.35 * fractal(x, z, size / 6, light.salt + 1)
    if light.overcast:
        return colour * (1 + 0.07 * body * np.clip(direction[1] * 6, 0, 1))
    density = np.clip((body - 1.3 + 2.1 * light.cover) * 0.9, 0, 1)
    # A second look a step towards the sun tells the lit edge of a cloud from its grey underside.
    shift = 0.12 * size * light.toward_sun[[0, 2]]
    toward = fractal(x + shift[0], z + shift[1], size, light.salt) + 0.35 * fractal(
        x + shift[0], z + shift[1], size / 6, light.salt + 1
    )
    lit = np.clip(0.62 + 0.32 * (body - toward) - 0.22 * np.clip(body, 0, 2), 0.3, 1.15)
    white = (light.sun * 0.32 + light.horizon * 0.42)[:, None] * lit + light.zenith[:, None] * 0.22
    opacity = density * (1 - np.exp(-np.maximum(direction[1], 0) * 30)) * 0.95
    return colour * (1 - opacity) + white * opacity


def sunlit(canvas: Canvas, things: list[Thing], light: Daylight) -> np.ndarray:
    """Share of the sun that reaches each pixel past the things, 0..1: float32 (H, W)."""
    view = canvas.view
    if light.sun.sum() == 0:
        return np.ones(view.size, np.float32)
    ahead = view.axes[2] * np.float32([1, 0, 1])
    target = view.eye * np.float32([1, 0, 1]) + ahead / max(np.linalg.norm(ahead), 1e-3) * 0.72 * _SHADOW_REACH
    above = sun_view(light.toward_sun, target, _SHADOW_REACH, _SHADOW_PIXELS)
    nearest = cast(above, things)
    place, point = canvas.nearer_than(4 * _SHADOW_REACH)
    # Lifting the point off its surface keeps a surface from shading itself.
    point += 0.12 * np.take(canvas.normal.reshape(3, -1), place, axis=1) + 0.1 * light.toward_sun[:, None]
    column, row, depth = above.project(point.T).astype(np.float32).T
    inside = (column > 1) & (row > 1) & (column < _SHADOW_PIXELS - 2) & (row < _SHADOW_PIXELS - 2)
    share = np.zeros(place.size, np.float32)
    taps = ((-0.7, -0.3), (0.3, -0.7), (0.7, 0.3), (-0.3, 0.7))
    for du, dv in taps:
        # Clipping only keeps indices valid: what lies outside the map counts as lit below.
        r = np.clip(row + (dv + 0.5), 0, _SHADOW_PIXELS - 1).astype(np.int32)
        c = np.clip(column + (du + 0.5), 0, _SHADOW_PIXELS - 1).astype(np.int32)
        share += np.take(nearest.reshape(-1), r * _SHADOW_PIXELS + c) > depth - 0.15
    lit = np.ones(view.size, np.float32)
    lit.reshape(-1)[place] = np.where(inside, share / len(taps), 1)
    return lit


def openness(canvas: Canvas, things: list[Thing]) -> np.ndarray:
    """Share of the sky that reaches each pixel: less beside and under things near the ground: float32 (H, W)."""
    view = canvas.view
    scale, side = 6.0, 512
    plan = np.zeros((side, side), np.float32)
    origin = view.eye[[0, 2]] + view.axes[2][[0, 2]] * 30 - side / scale / 2
    for thing in things:
        corners = thing.ground()
        if corners is not None:
            cv2.fillPoly(plan, [np.rint((corners - origin) * scale).astype(np.int32)], 1.0)
    near = cv2.GaussianBlur(plan, (0, 0), 0.22 * scale)
    wide = cv2.GaussianBlur(plan, (0, 0), 1.1 * scale)
    place, point = canvas.nearer_than(90)
    column = np.clip((point[0] - origin[0]) * scale, 0, side - 1).astype(np.int32)
    row = np.clip((point[2] - origin[1]) * scale, 0, side - 1).astype(np.int32)
    up = np.maximum(point[1], 0)
    spot = row * side + column
    shut = 0.75 * near.reshape(-1)[spot] * np.exp(-up / 0.15) + 0.5 * wide.reshape(-1)[spot] * np.exp(-up)
    out = np.ones(view.size, np.float32)
    out.reshape(-1)[place] = np.clip(1 - shut, 0.15, 1)
    return out


def shade(canvas: Canvas, things: list[Thing], light: Daylight) -> np.ndarray:
    """Lights everything that the canvas shows, water excepted: linear radiance, float32 (3, H, W)."""
    view = canvas.view
    length = np.sqrt((view.direction**2).sum(0))
    unit = view.direction / length
    facing = along(light.toward_sun, canvas.normal)
    diffuse = np.clip((facing + canvas.wrap) / (1 + canvas.wrap), 0, 1)
    up = 0.5 + 0.5 * canvas.normal[1]
    column = (slice(None), None, None)
    ambient = (light.zenith + light.horizon) * (1.1 if light.overcast else 0.45)
    bounce = 0.16 * (light.sun * max(light.toward_sun[1], 0.1) + ambient) * np.float32([1.0, 0.95, 0.85])
    dome = ambient[column] * up + bounce[column] * (1 - up)
    lit = sunlit(canvas, things, light)
    radiance = canvas.albedo * (light.sun[column] * (diffuse * lit) + dome * openness(canvas, things))
    glossy = np.flatnonzero(canvas.gloss)
    if glossy.size:
        flat = radiance.reshape(3, -1)
        flat[:, glossy] = _polish(canvas, light, glossy, flat[:, glossy], lit.reshape(-1)[glossy])
    clear = np.flatnonzero(np.isinf(canvas.depth))
    distance = np.where(np.isinf(canvas.depth), 0, canvas.depth) * length
    veil = 1 - np.exp(-light.haze * distance)
    near_sun = np.clip(along(light.toward_sun, unit), 0, 1) ** 6
    air = light.horizon[column] * 0.92 + 0.4 * light.glow[column] * near_sun
    radiance = radiance * (1 - veil) + air * veil
    radiance = np.ascontiguousarray(radiance, dtype=np.float32)
    radiance.reshape(3, -1)[:, clear] = sky(light, np.take(unit.reshape(3, -1), clear, axis=1))
    return radiance


def _polish(canvas: Canvas, light: Daylight, place: np.ndarray, base: np.ndarray, lit: np.ndarray) -> np.ndarray:
    """Adds what glass and paint mirror to their own radiance (3, N), at pixels given by flat indices (N,)."""
    ray = canvas.view.looks(place)
    ray = ray / np.sqrt((ray**2).sum(0))
    normal = canvas.normal.reshape(3, -1)[:, place]
    cos = (normal * ray).sum(0)
    mirrored = ray - 2 * cos * normal
    # What is mirrored from near the horizon is mostly the other side of the street, not sky.
    skyline = (mirrored[1] - 0.12) * 5 + 0.3 * fractal(mirrored[0], mirrored[1], 0.8, 3.0)
    seen = light.gradient(mirrored) * (0.25 + 0.75 * np.clip(skyline, 0, 1))
    share = np.clip(canvas.gloss.reshape(-1)[place] + 0.7 * (1 - np.abs(cos)) ** 4, 0, 0.9)
    glint = np.clip(along(light.toward_sun, mirrored), 0, 1) ** 120 * lit
    return base * (1 - share) + (seen + light.sun[:, None] * glint * 1.5) * share


def mirror_water(
    canvas: Canvas, radiance: np.ndarray, light: Daylight, waves: float, tone: np.ndarray, far: float, salt: float
) -> None:
    """Lights the water in place: the mirrored picture, broken by waves, over the colour of the depths.

    Args:
        canvas: The scene; its water pixels are changed.
        radiance: Lit scene (3, H, W), changed in place.
        light: Daylight.
        waves: Steepness of the waves, about 0.02 (calm) to 0.15 (windy).
        tone: Albedo (3,) of the water body.
        far: Depth in metres of the far shore.
        salt: Shifts the waves.
    """
    view = canvas.view
    place = np.flatnonzero(canvas.label == LABELS['water'])
    if not place.size:
        return
    t = canvas.depth.reshape(-1)[place]
    direction = view.looks(place)
    ray = direction / np.sqrt((direction**2).sum(0))
    x, z = view.eye[0] + t * direction[0], view.eye[2] + t * direction[2]
    foot = view.footprint(t) * 2
    big_x, big_z = fractal_slope(x * 0.5, z, 5.0, salt, foot)
    small_x, small_z = fractal_slope(x * 0.7, z, 1.0, salt + 1, foot)
    calm = np.clip(1 + 0.7 * fractal(x * 0.4, z, 30.0, salt + 2), 0.1, 2)
    slope_x, slope_z = (waves * calm * (0.6 * a + 0.5 * b) for a, b in ((big_x, small_x), (big_z, small_z)))
    normal = np.stack([-slope_x, np.ones_like(x), -slope_z])
    normal = normal / np.sqrt((normal**2).sum(0))
    cos = -(ray * normal).sum(0)
    mirrored = ray + 2 * cos * normal
    mirrored[1] = np.abs(mirrored[1]) + 1e-3
    reach = np.maximum(min(far, 400.0) - z, 10.0)
    spot = np.stack([x, np.zeros_like(x), z]) + mirrored * reach
    column, row, depth = view.project(spot.T).astype(np.float32).T
    height = view.size[0]
    seen = np.stack([_read(channel, column, row) for channel in radiance])
    below = np.nonzero((row > height - 1) | (depth < 0.1))[0]
    plain = light.gradient(mirrored / np.sqrt((mirrored**2).sum(0)))
    above = row < 2
    use_sky = above.copy()
    use_sky[below] = True
    wet = _read((canvas.label == LABELS['water']).astype(np.float32), column, row) > 0.4
    seen = np.where(use_sky | wet, plain, seen)
    fresnel = 0.03 + 0.97 * (1 - np.clip(cos, 0, 1)) ** 5
    ambient = light.zenith * 0.5 + light.horizon * 0.4 + light.sun * max(light.toward_sun[1], 0) * 0.6
    deep = (tone * ambient)[:, None] * (1 + 0.15 * fractal(x, z, 8.0, salt + 3, foot))
    glint = np.clip(along(light.toward_sun, mirrored), 0, 1.02) ** 160 * light.sun[:, None] * 1.2
    lit = deep * (1 - fresnel) + seen * fresnel + np.clip(glint, 0, 3)
    veil = 1 - np.exp(-light.haze * t)
    radiance.reshape(3, -1)[:, place] = lit * (1 - veil) + light.horizon[:, None] * 0.92 * veil


def _read(image: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Nearest pixels of an image (H, W) at positions (N,), clamped to its border."""
    r = np.clip(np.rint(row - 0.5), 0, image.shape[0] - 1).astype(np.int32)
    c = np.clip(np.rint(column - 0.5), 0, image.shape[1] - 1).astype(np.int32)
    return image[r, c]
