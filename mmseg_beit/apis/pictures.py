"""Pictures of every kind as uint8 RGB arrays, and where to find them.

Ordinary files (8-bit JPEG and PNG) give exactly the pixels of the config's ``LoadImageFromFile``. The others:

- EXIF rotation is applied; grey is repeated over the channels; palettes, CMYK, YCbCr and LAB are converted;
- transparency is laid on white, as a viewer shows it (what hides under it is arbitrary);
- 16-bit values keep their upper 8 bits; floating point pictures have no fixed range and are refused;
- of an animation or a stack of pages the first picture is taken.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError, MissingFileError

SUFFIXES = {
    '.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.dib', '.tif', '.tiff', '.webp', '.gif', '.ppm', '.pgm', '.pbm',
    '.pnm', '.jp2', '.avif', '.tga',
}  # fmt: skip
"""Endings by which a folder's pictures are found. A file that is named itself may have any."""

MAX_PIXELS = 1 << 30
"""Largest picture that is opened, as OpenCV's limit; Pillow's own (179 million) is below what scanners deliver."""


@dataclass(frozen=True)
class Picture:
    """A picture file that was found.

    Args:
        path: The file.
        name: Its path relative to the folder that was searched, which keeps apart equal names in different folders.
    """

    path: Path
    name: Path


def find_pictures(
    sources: Sequence[str | os.PathLike[str]], recursive: bool = False, skip: str | os.PathLike[str] | None = None
) -> list[Picture]:
    """Finds the pictures that a user named by files, folders and patterns.

    Args:
        sources: Files of any ending; folders and patterns such as ``a/**/*.jpg``, for files in :data:`SUFFIXES`.
        recursive: Whether folders inside a folder are searched too.
        skip: A folder whose files are nobody's input, because results are written there: left out when searching.

    Returns:
        The pictures in the order of the sources, by name within a source, each file once.

    Raises:
        MissingFileError: A source is no file, no folder and no pattern with matches.
        InputError: A folder or a pattern holds no picture.
    """
    found: dict[str, Picture] = {}
    for source in sources:
        text = os.fspath(source)
        for picture in _search(text, recursive, Path(skip).resolve() if skip is not None else None):
            found.setdefault(os.path.abspath(picture.path), picture)
    return list(found.values())


def _search(text: str, recursive: bool, skip: Path | None) -> list[Picture]:
    path = Path(text).expanduser()
    if path.is_dir():
        files = path.rglob('*') if recursive else path.iterdir()
        hits, root, what = sorted(files), path, f'folder {text}'
    elif path.exists():
        return [Picture(path, Path(path.name))]
    elif glob.has_magic(text):
        hits = [Path(hit) for hit in sorted(glob.glob(str(path), recursive=True))]
        root, what = _fixed_part(path), f'pattern {text}'
    else:
        raise MissingFileError(f'picture {text} does not exist: name a file, a folder or a pattern like photos/*.jpg')
    # A link to nowhere stays: it is reported when it cannot be read.
    pictures = [hit for hit in hits if not hit.is_dir() and _looks_like_picture(hit)]
    if skip is not None and root.resolve() not in (skip, *skip.parents):
        skip = None  # The search does not lead there, but may happen inside.
    kept = [Picture(hit, hit.relative_to(root)) for hit in pictures if skip not in hit.resolve().parents]
    if not kept and pictures:
        raise InputError(f'{what} holds only what is in the output folder {skip}: write the results to another folder')
    if not kept:
        more = '' if recursive or not path.is_dir() else ', or search its folders too with --recursive'
        raise InputError(f'{what} holds no picture: name one with files such as *.jpg or *.png{more}')
    return kept


def _looks_like_picture(path: Path) -> bool:
    # macOS leaves `._photo.jpg` beside photos on foreign disks; such files are no pictures.
    return path.suffix.lower() in SUFFIXES and not path.name.startswith('.')


def _fixed_part(pattern: Path) -> Path:
    """The folders of a pattern before its first wildcard."""
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a picture file.

    Args:
        path: The file; its content decides the format, not its name.

    Returns:
        uint8 RGB (H, W, 3), turned as its EXIF data says.

    Raises:
        MissingFileError: There is no such file.
        InputError: It cannot be read; the message names it and the reason.
    """
    try:
        with _larger_limit(), Image.open(path) as image:
            return picture_array(_upright(image))
    except FileNotFoundError:
        raise MissingFileError(f'picture {path} does not exist: correct the path') from None
    except InputError as error:
        raise InputError(f'picture {path} cannot be used: {error}') from None
    except UnidentifiedImageError:
        empty = os.path.getsize(path) == 0
        reason = 'the file is empty' if empty else 'its content is no picture format that Pillow knows'
        raise InputError(f'picture {path} cannot be read: {reason}') from None
    # What a decoder raises depends on the format and on the damage.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
        raise InputError(f'picture {path} cannot be read: {reason}') from None


def picture_array(image: np.ndarray | Image.Image, channel_order: str = 'rgb') -> np.ndarray:
    """Turns a picture in memory into the form that everything here works with.

    Args:
        image: A Pillow image of any mode but floating point, or an array uint8 or uint16 of shape (H, W), (H, W, 1),
            (H, W, 2) with alpha, (H, W, 3) or (H, W, 4) with alpha. Not changed.
        channel_order: Of an array: ``'rgb'``, or ``'bgr'`` as OpenCV and mmcv read files.

    Returns:
        uint8 RGB (H, W, 3), contiguous; may share memory with the argument.

    Raises:
        InputError: It is no such picture.
    """
    if channel_order not in ('rgb', 'bgr'):
        raise InputError(f'channel_order={channel_order!r} is unknown: use rgb, or bgr for arrays that OpenCV read')
    if isinstance(image, Image.Image):
        image, channel_order = _pillow_array(image), 'rgb'
    if not isinstance(image, np.ndarray):
        raise InputError(f'a {type(image).__name__} is no picture: give a path, a Pillow image or an array (H, W, 3)')
    array = image[:, :, None] if image.ndim == 2 else image
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise InputError(f'an array of shape {image.shape} is no picture: give (H, W, 3), (H, W, 4) or (H, W)')
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f'a picture of {image.dtype} values has no known range: convert it to uint8, 0..255')
    if array.shape[2] in (2, 4):
        array = _on_white(array[..., :-1], array[..., -1:])
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    elif channel_order == 'bgr':
        array = array[..., ::-1]
    return np.ascontiguousarray(array)


def _pillow_array(image: Image.Image) -> np.ndarray:
    if image.mode == 'F':
        raise InputError('its values are floating point and have no fixed range: convert it to 8 bits')
    if image.mode.startswith('I'):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f'its values reach from {values.min()} to {values.max()}: convert it to 8 or 16 bits')
        return values.astype(np.uint16)
    if image.has_transparency_data:
        return np.asarray(image.convert('RGBA'))
    return np.asarray(image.convert('RGB'))


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data: viewers show such a picture as it is stored
        return image


def _on_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """``round(alpha * colour + (1 - alpha) * 255)`` in integers: uint8 (H, W, C) and (H, W, 1) to uint8 (H, W, C)."""
    weight = alpha.astype(np.uint16)
    return ((color * weight + (255 - weight) * np.uint16(255) + np.uint16(127)) // np.uint16(255)).astype(np.uint8)


@contextmanager
def _larger_limit() -> Iterator[None]:
    # Pillow refuses twice its limit and warns above it; both checks are made when the file is opened.
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
