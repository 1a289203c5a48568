"""From linear radiance to a photograph: lens, exposure, sensor and JPEG."""

import cv2
import numpy as np


def _disc(radius: float) -> np.ndarray:
    side = int(np.ceil(radius)) * 2 + 1
    y, x = np.mgrid[:side, :side] - side // 2
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    return kernel / kernel.sum()


def _luminance(image: np.ndarray) -> np.ndarray:
    return 0.21 * image[..., 0] + 0.72 * image[..., 1] + 0.07 * image[..., 2]


def lens(rng: np.random.Generator, image: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Diffraction, depth of field, camera shake, colour fringes and vignetting.

    Args:
        rng: Decides how strong each is.
        image: Linear radiance, float32 (H, W, 3).
        depth: Metres, float32 (H, W), infinite for sky.

    Returns:
        A new image like ``image``.
    """
    height, width = depth.shape
    scale = width / 320
    image = cv2.GaussianBlur(image, (0, 0), 0.45 * scale)
    if rng.random() < 0.35:
        focus, strength = rng.uniform(2.5, 14.0), rng.uniform(0.5, 3.5) * scale
        confusion = strength * np.abs(1 - focus / np.maximum(depth, 0.3))
        blurred = cv2.filter2D(image, -1, _disc(max(strength, 0.8)))
        share = cv2.GaussianBlur(np.clip(confusion / max(strength, 0.8), 0, 1), (0, 0), 1.5 * scale)[..., None]
        image = image * (1 - share) + blurred * share
    if rng.random() < 0.18:
        length, angle = rng.uniform(1.0, 3.0) * scale, rng.uniform(0, np.pi)
        side = int(length) * 2 + 3
        kernel = np.zeros((side, side), np.float32)
        reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        a, b = (tuple(round(v * 16) for v in side // 2 + sign * reach) for sign in (-1, 1))
        cv2.line(kernel, a, b, 1.0, 1, cv2.LINE_AA, 4)
        image = cv2.filter2D(image, -1, kernel / max(kernel.sum(), 1e-6))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    far = np.hypot((x - width / 2) / width, (y - height / 2) / width) * 2
    fall = 1 - rng.uniform(0.03, 0.28) * far**2
    fringe = rng.uniform(-0.0025, 0.0025)
    out = image.copy()
    for channel, sign in ((0, 1), (2, -1)):
        stretch = 1 + sign * fringe
        matrix = np.float32([[stretch, 0, (1 - stretch) * width / 2], [0, stretch, (1 - stretch) * height / 2]])
        plane = np.ascontiguousarray(image[..., channel])
        out[..., channel] = cv2.warpAffine(plane, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return out * fall[..., None]


def develop(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Exposure, white balance, sensor noise, tone curve and saturation.

    Args:
        rng: Decides the settings.
        image: Linear radiance, float32 (H, W, 3), at the final resolution.

    Returns:
        sRGB uint8 (H, W, 3).
    """
    luminance = _luminance(image)
    key = np.exp(np.log(np.maximum(luminance, 1e-3)).mean())
    exposure = 0.24 / key**0.9 * 2 ** rng.normal(0.0, 0.35)
    # Highlights may clip, but not half of the picture.
    exposure = min(exposure, 1.8 / np.quantile(luminance, 0.85))
    warmth = rng.normal(0, 0.07)
    balance = np.float32([1 + warmth, 1 + rng.normal(0, 0.02), 1 - warmth])
    image = np.maximum(image * exposure * balance, 0)
    shot, read = 10 ** rng.uniform(-4.5, -3.1), 10 ** rng.uniform(-3.3, -2.4)
    noise = rng.standard_normal(image.shape, np.float32)
    image = np.maximum(image + noise * np.sqrt(shot * image + read**2), 0)
    # A filmic shoulder, then the sRGB transfer curve.
    knee = 0.7
    image = np.where(image > knee, knee + (1 - knee) * np.tanh((image - knee) / (1.6 * (1 - knee))), image)
    grey = _luminance(image)[..., None]
    image = np.clip(grey + (image - grey) * rng.uniform(0.75, 1.3), 0, 1)
    image = np.where(image > 0.0031308, 1.055 * image ** (1 / 2.4) - 0.055, 12.92 * image)
    contrast = rng.uniform(0.95, 1.3)
    image = np.clip(0.5 + (image - 0.5) * contrast, 0, 1)
    if rng.random() < 0.6:
        soft = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.0)
        image = image + rng.uniform(0.2, 0.7) * (image - soft)
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
