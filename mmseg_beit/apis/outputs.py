"""Names of the files that a tool writes for pictures: never an input, never twice the same."""

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .pictures import Picture


@dataclass(frozen=True)
class Outputs:
    """The files that are written for a picture.

    Args:
        overlay: The picture with its classes' colours.
        mask: The classes' indices; None if they are not wanted.
    """

    overlay: Path
    mask: Path | None = None


def plan_outputs(
    pictures: Sequence[Picture], folder: str | os.PathLike[str], with_masks: bool = False
) -> dict[Path, Outputs]:
    """Names the results of each picture.

    ``FOLDER/NAME.png`` and ``FOLDER/masks/NAME.png``, NAME being the picture's relative name without its ending. Where
    two would be the same (``a.jpg`` beside ``a.png``, or names that differ in the case of letters only) both keep
    their ending: ``a.jpg.png`` and ``a.png.png``; what is still the same gets a number.

    Args:
        pictures: What was found.
        folder: Where results go.
        with_masks: Whether masks are wanted.

    Returns:
        The files to write by the picture's path, in the pictures' order, all different.
    """
    names = _unique_names([picture.name for picture in pictures])
    masks = 'masks'
    # A searched folder may itself hold one of this name, whose overlays would meet the masks of others.
    while any(len(name.parts) > 1 and name.parts[0].casefold() == masks for name in names):
        masks += '_'
    folder = Path(folder)
    return {
        picture.path: Outputs(folder / name, folder / masks / name if with_masks else None)
        for picture, name in zip(pictures, names, strict=True)
    }


def _unique_names(names: Sequence[Path]) -> list[Path]:
    stems = Counter(_key(name.with_suffix('')) for name in names)
    taken: set[str] = set()
    unique = []
    for name in names:
        stem = name if stems[_key(name.with_suffix(''))] > 1 else name.with_suffix('')
        candidate, number = stem.with_name(f'{stem.name}.png'), 2
        while _key(candidate) in taken:
            candidate, number = stem.with_name(f'{stem.name}_{number}.png'), number + 1
        taken.add(_key(candidate))
        unique.append(candidate)
    return unique


def check_outputs(folder: str | os.PathLike[str], outputs: Mapping[Path, Outputs]) -> None:
    """Makes the output folder and makes sure that results can be written there without touching an input.

    Args:
        folder: Where results go.
        outputs: What :func:`plan_outputs` returns.

    Raises:
        InputError: The folder cannot be written, or a result would replace an input (also through links).
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f'output folder {folder} cannot be written ({error.strerror or error}): choose another with --out-dir'
        ) from None
    inputs = {_identity(path): path for path in outputs if path.exists()}
    for output in (file for files in outputs.values() for file in (files.overlay, files.mask) if file is not None):
        if output.exists() and _identity(output) in inputs:
            raise InputError(
                f'the result {output} would replace the picture {inputs[_identity(output)]}: '
                f'choose another folder with --out-dir'
            )


def _key(name: Path) -> str:
    return str(name).casefold()


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
