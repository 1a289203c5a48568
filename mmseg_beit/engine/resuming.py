"""What a killed run leaves behind: whole files written in one step, and the checkpoints to go on from, newest first."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

LAST = 'last_checkpoint'
_KEPT_HISTORY = 1000
_HISTORY = 'mmseg_beit.history'


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary name beside ``path`` to write to; the finished file takes the place of ``path`` in one step.

    A process killed while writing leaves the former file as it was.

    Args:
        path: The file to write or replace.

    Yields:
        The temporary file's path, in the same folder.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', suffix='.tmp', dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open('rb') as file:
            os.fsync(file.fileno())
        # mkstemp makes a file for its owner alone; a checkpoint is as readable as any other file of the user's.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # Not every file system lets a folder be synced; the rename itself has happened.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Deletes the temporary files that killed runs left in a folder."""
    for path in Path(folder).glob('.*.pth.*.tmp'):
        path.unlink(missing_ok=True)


def checkpoints_newest_first(work_dir: str | os.PathLike[str]) -> list[Path]:
    """Checkpoints that a run can go on from.

    Args:
        work_dir: The run's work directory.

    Returns:
        The one that ``last_checkpoint`` names, then the others beside it by time of writing; files that exist only.
    """
    work_dir = Path(work_dir)
    folders, found = [work_dir], []
    with contextlib.suppress(OSError):
        named = Path((work_dir / LAST).read_text().strip())
        # A work directory that was moved names a path that is gone; the file moved with it.
        named = named if named.is_file() else work_dir / named.name
        found.append(named)
        folders.append(named.parent)
    others = {path for folder in folders for kind in ('iter_*.pth', 'epoch_*.pth') for path in folder.glob(kind)}
    found += sorted(others - set(found), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path for path in found if path.is_file()]


def newest_checkpoint(work_dir: str | os.PathLike[str]) -> Path | None:
    """The first of :func:`checkpoints_newest_first`, ``None`` where there is none."""
    return next(iter(checkpoints_newest_first(work_dir)), None)


def to_plain(value: Any) -> Any:
    """Turns a training state into what ``torch.load(weights_only=True)`` reads without an allow-list.

    NumPy scalars become Python numbers, arrays tensors, log histories dictionaries of tensors (their last 1000 values:
    the log averages over tens); what has no plain form (functions, objects) becomes ``None``.

    Args:
        value: Nested dictionaries, lists and tuples of anything; not changed.

    Returns:
        The same structure of plain values.
    """
    if isinstance(value, HistoryBuffer):
        history, counts = (torch.as_tensor(part[-_KEPT_HISTORY:]) for part in value.data)
        return {_HISTORY: history, 'counts': counts, 'max_length': value.max_length}
    if isinstance(value, dict):
        plain = {key: to_plain(item) for key, item in value.items()}
        # A module's state keeps its versions there.
        if hasattr(value, '_metadata'):
            plain = type(value)(plain)
            plain._metadata = value._metadata
        return plain
    if isinstance(value, tuple | list):
        # Named tuples and other subclasses too: their own type would need an allow-list.
        return (tuple if isinstance(value, tuple) else list)(to_plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in 'biuf' else to_plain(value.tolist())
    if isinstance(value, torch.Tensor | str | bytes | int | float | bool | type(None) | torch.dtype | torch.device):
        return value
    return str(value) if isinstance(value, os.PathLike) else None


def restore_histories(value: Any) -> Any:
    """The inverse of :func:`to_plain` for log histories; the rest stays plain."""
    if isinstance(value, dict):
        if _HISTORY in value:
            return HistoryBuffer(value[_HISTORY].tolist(), value['counts'].tolist(), value['max_length'])
        return {key: restore_histories(item) for key, item in value.items()}
    return value
