"""Reading of image and mask files with errors that name the file and the remedy.

The scan before training and the loading transforms share these functions, so they accept the same files, see the same
sizes and values, and say the same sentences.
"""

import io
import os
import warnings

import cv2
import mmcv
import mmengine.fileio as fileio
import numpy as np
from PIL import Image

from ...errors import InputError, MissingFileError

try:
    from kornia_rs.io import decode_image_png_u8
except ImportError:  # No wheel for this platform: Pillow reads the same values.
    decode_image_png_u8 = None

# How a whole file of a format begins and ends. Decoders disagree about a file cut short: some OpenCV versions fill the
# rest of a JPEG with grey and say nothing.
_ENDS = {b'\xff\xd8': b'\xff\xd9', b'\x89PNG': b'IEND\xaeB`\x82'}
# A PNG of one byte for each pixel: how it begins, and depth and colour type of grey levels and of palette indices.
_PNG, _BYTE_PER_PIXEL = b'\x89PNG\r\n\x1a\n', (b'\x08\x00', b'\x08\x03')
_JPEG_SCAN = 0xDA
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)
# Pillow raises these for a damaged file, depending on the format and on where the damage is.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read_bytes(path: str, what: str, backend_args: dict | None = None) -> bytes:
    """Reads a whole file.

    Args:
        path: File to read, on any of mmengine's file backends.
        what: What the file is, for the message: ``'image'`` or ``'mask'``.
        backend_args: Arguments of mmengine's file backend.

    Raises:
        MissingFileError: There is no such file.
        InputError: It cannot be read, or is empty.
    """
    try:
        if backend_args is None and '://' not in str(path):  # A local file: no need to look for its backend.
            with open(path, 'rb') as file:
                content = file.read()
        else:
            content = fileio.get(path, backend_args=backend_args)
    except FileNotFoundError as error:
        raise MissingFileError(f'{what} {path} does not exist: restore the file, or remove its pair') from error
    except OSError as error:
        raise InputError(
            f'{what} {path} cannot be read ({error.strerror or error}): check the file and its permissions'
        ) from error
    if not content:
        raise InputError(f'{what} {path} is an empty file: copy or download it again')
    return content


def is_truncated(content: bytes) -> bool:
    """Tells whether a JPEG or PNG file lacks its end; False for the other formats, which their decoders check.

    Bytes after the end are allowed: cameras append previews and clips.

    Args:
        content: The whole file.
    """
    for start, end in _ENDS.items():
        if content.startswith(start):
            return not content.endswith(end) and content.rfind(end, _pixels_begin(content)) < 0
    return False


def is_file_truncated(path: str) -> bool:
    """As :func:`is_truncated` for a local file, reading a few bytes of it where it ends as it should."""
    with open(path, 'rb') as file:
        head = file.read(4)
        file.seek(-min(os.fstat(file.fileno()).st_size, 16), os.SEEK_END)
        tail = file.read()
        if any(head.startswith(start) and tail.endswith(end) for start, end in _ENDS.items()):
            return False
        file.seek(0)
        return is_truncated(file.read())


def _pixels_begin(content: bytes) -> int:
    """Offset of a JPEG's pixel data: the preview picture in its header has an end marker too. 0 for other formats."""
    at = 2
    while content[:2] == b'\xff\xd8' and at + 4 <= len(content) and content[at] == 0xFF:
        if content[at + 1] == _JPEG_SCAN:
            return at
        at += 2 + int.from_bytes(content[at + 2 : at + 4], 'big')
    return at if content[:2] == b'\xff\xd8' else 0


def decode_image(
    content: bytes, path: str, color_type: str = 'color', backend: str | None = 'cv2', reduction: int = 1
) -> np.ndarray:
    """Decodes a photograph as mmcv does, EXIF rotation included.

    Args:
        content: The whole file.
        path: Its name, for the message.
        color_type: mmcv's flag: ``'color'``, ``'grayscale'``, ``'unchanged'`` or one that ignores EXIF rotation.
        backend: mmcv's image backend.
        reduction: 2, 4 or 8 to decode a colour picture at that fraction of its sides, by OpenCV.

    Returns:
        BGR or grey picture (H, W, 3) or (H, W), uint8 for ``'color'`` and ``'grayscale'``.

    Raises:
        InputError: The file is cut short or no readable picture.
    """
    if is_truncated(content):
        raise InputError(f'image {path} is cut short after {len(content):,} bytes: copy or download it again')
    try:
        if reduction == 1:
            image = mmcv.imfrombytes(content, flag=color_type, backend=backend)
        else:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), _REDUCED[reduction])
    except Exception as error:  # what a decoder raises depends on the backend and on the damage
        raise _unreadable('image', path, error) from error
    if image is None:
        raise _unreadable('image', path)
    return image


def decode_mask(content: bytes, path: str, backend: str | None = 'pillow') -> np.ndarray:
    """Decodes an index mask: one stored value per pixel, a palette's indices where it has one.

    Args:
        content: The whole file.
        path: Its name, for the message.
        backend: mmcv's image backend; ``'cv2'`` turns palette indices into colours, so it refuses palette files.

    Returns:
        uint8 (H, W), the values in the file.

    Raises:
        InputError: The file is cut short, unreadable, a colour picture, or holds values that 8 bits do not.
    """
    if is_truncated(content):
        raise InputError(f'mask {path} is cut short after {len(content):,} bytes: copy or download it again')
    if backend == 'pillow' and (mask := _png_bytes(content)) is not None:
        return mask
    try:
        mask = mmcv.imfrombytes(content, flag='unchanged', backend=backend)
    except Exception as error:  # as above
        raise _unreadable('mask', path, error) from error
    if mask is None:
        raise _unreadable('mask', path)
    if mask.ndim == 3 and mask.shape[2] == 1:
        mask = mask[:, :, 0]
    if mask.ndim != 2:
        raise _colour_mask(content, path, backend)
    if mask.dtype == np.uint8:
        return mask
    if mask.dtype.kind == 'b' or (mask.dtype.kind in 'iu' and mask.min() >= 0 and mask.max() <= 255):
        return mask.astype(np.uint8)
    if mask.dtype.kind in 'iu':
        values = f'the value {mask.max() if mask.max() > 255 else mask.min()}'
    else:
        values = f'{mask.dtype} values'
    raise InputError(
        f'mask {path} holds {values}, but labels are stored as 0..255: '
        'write an 8-bit PNG with one class index per pixel, 255 where a pixel is to be ignored'
    )


def _png_bytes(content: bytes) -> np.ndarray | None:
    """What :func:`decode_mask` wants of a PNG with one byte for each pixel, None for other files and damaged ones.

    A third of OpenCV's or Pillow's time: masks of ADE20K are two fifths of what decoding a training sample takes.
    """
    if decode_image_png_u8 is None or not content.startswith(_PNG) or content[24:26] not in _BYTE_PER_PIXEL:
        return None
    width, height = int.from_bytes(content[16:20], 'big'), int.from_bytes(content[20:24], 'big')
    if width * height > (Image.MAX_IMAGE_PIXELS or 1 << 30):
        return None
    try:
        return decode_image_png_u8(content, (height, width), 'mono')[:, :, 0]
    except Exception:  # Pillow has the last word on damaged files.
        return None


def image_size(path: str, rotated: bool = True) -> tuple[int, int]:
    """Size of a local picture, from its header.

    Args:
        path: File to look at.
        rotated: Whether the loader applies the EXIF rotation, as mmcv's default does.

    Returns:
        Height and width in pixels, as the loader will see them.

    Raises:
        InputError: The header cannot be read, or the file is cut short.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                width, height = picture.size
                # A TIFF's size is already that of the turned picture.
                turned = rotated and picture.format != 'TIFF' and _orientation(picture) in _QUARTER_TURNS
        truncated = is_file_truncated(path)
    except _DECODE_ERRORS:
        # Not a picture to Pillow, or damaged: the loader's own decoder has the last word.
        return decode_image(read_bytes(path, 'image'), path).shape[:2]
    if truncated:
        raise InputError(f'image {path} is cut short after {os.path.getsize(path):,} bytes: copy or download it again')
    return (width, height) if turned else (height, width)


def jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG file as the loader shows it, EXIF rotation applied; None for what is none."""
    try:
        with Image.open(io.BytesIO(content), formats=('JPEG',)) as picture:
            return picture.size if _orientation(picture) in _QUARTER_TURNS else picture.size[::-1]
    except _DECODE_ERRORS:
        return None


def mask_size(path: str) -> tuple[int, int]:
    """Height and width of a local mask, from its header.

    Raises:
        InputError: The header cannot be read, the file is cut short, or it is a colour picture.
    """
    try:
        with Image.open(path) as picture:
            size, bands = picture.size, picture.getbands()
        truncated = is_file_truncated(path)
    except _DECODE_ERRORS as error:
        raise _unreadable('mask', path, error) from error
    if truncated:
        raise InputError(f'mask {path} is cut short after {os.path.getsize(path):,} bytes: copy or download it again')
    if len(bands) > 1:
        raise _colour_mask(b'', path, 'pillow', ''.join(bands))
    return size[1], size[0]


def check_same_size(mask_size: tuple[int, ...], image_size: tuple[int, ...], mask_path: str, image_path: str) -> None:
    """Compares the sizes (H, W) of a mask and its picture.

    Raises:
        InputError: They differ.
    """
    mask_size, image_size = tuple(mask_size[:2]), tuple(image_size[:2])
    if mask_size == image_size:
        return
    (mask_h, mask_w), (image_h, image_w) = mask_size, image_size
    if mask_size == image_size[::-1]:
        remedy = 'one of them is turned by the EXIF rotation of the picture: turn the mask, or save the picture upright'
    else:
        remedy = 'draw the mask at the size of the picture, or resize it with nearest neighbour'
    raise InputError(
        f'mask {mask_path} is {mask_w}x{mask_h} pixels but image {image_path} is {image_w}x{image_h}: {remedy}'
    )


def _orientation(picture: Image.Image) -> int:
    try:
        return picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF data: decoders show such a picture as it is stored
        return 1


def _unreadable(what: str, path: str, error: Exception | None = None) -> InputError:
    if isinstance(error, Image.DecompressionBombError):
        return InputError(f'{what} {path} has more pixels than Pillow opens ({error}): cut it into tiles')
    return InputError(f'{what} {path} is damaged or not a picture: replace the file, or remove it and its pair')


def _colour_mask(content: bytes, path: str, backend: str | None, bands: str = '') -> InputError:
    if content:
        with Image.open(io.BytesIO(content)) as picture:
            bands = picture.mode
    if bands == 'P' and backend != 'pillow':
        return InputError(
            f'mask {path} has a palette, which the {backend} backend turns into colours: '
            "set imdecode_backend='pillow' in LoadAnnotations"
        )
    return InputError(
        f'mask {path} is a colour picture ({bands}), not an index mask: '
        'write an 8-bit PNG with one class index per pixel instead of the colours'
    )
