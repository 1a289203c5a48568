"""What inference returns for a picture."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..engine.resuming import replacing
from ..errors import InputError
from ..visualization.legend import add_legend, legend_entries
from ..visualization.overlay import blend, class_shares
from ..visualization.palette import class_palette

_FORMATS = {'.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG', '.webp': 'WEBP', '.tif': 'TIFF', '.tiff': 'TIFF'}
_OPTIONS = {'PNG': dict(compress_level=3), 'JPEG': dict(quality=95, subsampling=0), 'WEBP': dict(lossless=True)}


@dataclass(frozen=True)
class SegResult:
    """The classes of a picture's pixels.

    Args:
        image: uint8 RGB (H, W, 3), the picture as it was predicted on: its own size, EXIF rotation applied.
        mask: (H, W), 0..K-1, the index of each pixel's class; uint8 for K up to 255, else int64.
        classes: K names.
        palette: uint8 RGB (K, 3).
        path: The picture's file, if it came from one.
        reduce_zero_label: Whether the data set's annotations store class k as k + 1, and 0 for "unlabelled".
        logits: float32 (K, H, W), before softmax, where they were asked for ((1, H, W) of a model with one output).

    Example:
        >>> from mmseg_beit.apis import Inferencer
        >>> result = Inferencer('config.py', 'checkpoint.pth', device='cpu')('photo.jpg')
        >>> result.mask.shape, result.mask.dtype
        ((48, 64), dtype('uint8'))
        >>> sum(share for name, share in result.shares)
        1.0
        >>> result.overlay(opacity=0.4).shape
        (48, 64, 3)
        >>> result.save('overlay.png', legend=True)
        >>> result.save_mask('mask.png')
    """

    image: np.ndarray = field(repr=False)
    mask: np.ndarray = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    palette: np.ndarray = field(repr=False)
    path: Path | None = None
    reduce_zero_label: bool = False
    logits: np.ndarray | None = field(default=None, repr=False)

    @property
    def shares(self) -> list[tuple[str, float]]:
        """Names and shares (0..1 of the picture) of the classes present, the largest first."""
        shares = class_shares(self.mask, len(self.classes))[:-1]
        order = np.argsort(-shares, kind='stable')
        return [(self.classes[k], float(shares[k])) for k in order if shares[k] > 0]

    def overlay(self, opacity: float = 0.5, legend: bool = False, borders: bool = False) -> np.ndarray:
        """The picture with its classes' colours over it.

        Args:
            opacity: Of the colours, 0..1.
            legend: Whether a legend is added below or beside; the picture stays the top left corner.
            borders: Whether regions get an outline.

        Returns:
            uint8 RGB (H, W, 3), with a legend larger.

        Raises:
            InputError: `opacity` is outside 0..1.
        """
        drawn = blend(self.image, self.mask, self.palette, opacity, borders)
        return add_legend(drawn, legend_entries([self.mask], self.classes, self.palette)) if legend else drawn

    def annotation(self) -> np.ndarray:
        """The mask in the convention of the data set's annotation files, so that it can be used as one.

        Returns:
            (H, W): class k is k, or k + 1 with ``reduce_zero_label`` (where 0 means "unlabelled" and does not occur).
            uint8 for fewer than 255 classes, else uint16, as 255 marks ignored pixels.
        """
        values = self.mask.astype(np.uint8 if len(self.classes) < 255 else np.uint16)
        return values + 1 if self.reduce_zero_label else values

    def save(
        self, path: str | os.PathLike[str], opacity: float = 0.5, legend: bool = False, borders: bool = False
    ) -> None:
        """Writes the overlay; the ending decides the format (PNG, JPEG, WebP, TIFF). See :meth:`overlay`.

        Raises:
            InputError: The file cannot be written, or is of another format.
        """
        write_picture(path, self.overlay(opacity, legend, borders))

    def save_mask(self, path: str | os.PathLike[str]) -> None:
        """Writes :meth:`annotation` as a PNG.

        Raises:
            InputError: The file cannot be written, or does not end in ``.png``.
        """
        if Path(path).suffix.lower() != '.png':
            raise InputError(f'mask {path} must be a PNG, which stores indices exactly: let its name end in .png')
        write_picture(path, self.annotation())


def make_result(
    image: np.ndarray, mask: np.ndarray, dataset_meta: dict, path: Path | None = None, logits: np.ndarray | None = None
) -> SegResult:
    """Puts a prediction and what is known about its classes together; see :class:`SegResult`."""
    classes = tuple(dataset_meta['classes'])
    return SegResult(
        image=image,
        mask=mask.astype(np.uint8 if len(classes) <= 255 else np.int64),
        classes=classes,
        palette=class_palette(dataset_meta, len(classes)),
        path=path,
        reduce_zero_label=bool(dataset_meta.get('reduce_zero_label', False)),
        logits=logits,
    )


def write_picture(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """Writes an array as a file that appears when it is whole; missing folders are made.

    Args:
        path: Its ending decides the format.
        picture: uint8 RGB (H, W, 3), or uint8 / uint16 (H, W).

    Raises:
        InputError: The ending is unknown or the file cannot be written.
    """
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f'picture {path} ends in no format that is written: use one of {", ".join(sorted(_FORMATS))}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            Image.fromarray(picture).save(temporary, kind, **_OPTIONS.get(kind, {}))
    except OSError as error:
        raise InputError(
            f'{path} cannot be written ({error.strerror or error}): choose another folder or make room'
        ) from None
