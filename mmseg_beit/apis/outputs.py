"""Names of the files that a tool writes for pictures: never an input, never twice the same."""

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .pictures import Picture


def plan_names(pictures: Sequence[Picture]) -> list[Path]:
    """A relative name without ending for each picture's results.

    The picture's relative name without its ending; with it where two would be the same (``a.jpg`` and ``a.png`` give
    ``a.jpg`` and ``a.png``), also where only the case of letters differs; numbered where that is still the same.

    Args:
        pictures: What was found.

    Returns:
        One name per picture, in their order, all different.
    """
    stems = Counter(_key(picture.name.with_suffix('')) for picture in pictures)
    names = [p.name if stems[_key(p.name.with_suffix(''))] > 1 else p.name.with_suffix('') for p in pictures]
    taken: set[str] = set()
    unique = []
    for name in names:
        candidate, number = name, 2
        while _key(candidate) in taken:
            candidate, number = name.with_name(f'{name.name}_{number}'), number + 1
        taken.add(_key(candidate))
        unique.append(candidate)
    return unique


def check_outputs(folder: str | os.PathLike[str], outputs: Sequence[Path], pictures: Sequence[Picture]) -> None:
    """Makes the output folder and makes sure that results can be written there without touching an input.

    Args:
        folder: Where results go.
        outputs: All files that will be written.
        pictures: The inputs.

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
    inputs = {_identity(picture.path): picture.path for picture in pictures}
    for output in outputs:
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
