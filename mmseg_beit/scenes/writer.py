"""Writes the rendered scenes in ADE20K's folder layout, in parallel, so that a killed run can be taken up again."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from mmseg_beit.errors import InputError

from .render import render_scene

#: Counts up whenever the same seed gives other pictures.
RENDERER_VERSION = 1
MANIFEST = 'scenes.json'
#: Folder of each split, with the prefix of its file names.
SPLITS = {'training': 'scene_train', 'validation': 'scene_val'}
#: Smallest side in pixels; below it nothing can be told apart.
_SMALLEST = 32


@dataclass(frozen=True)
class Request:
    """What a data set of scenes is made of.

    Attributes:
        train: Number of training images.
        val: Number of validation images.
        size: (width, height) in pixels.
        seed: The same seed gives the same files, byte for byte, with the same versions of NumPy and OpenCV.
    """

    train: int = 240
    val: int = 60
    size: tuple[int, int] = (320, 240)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.train < 1 or self.val < 1:
            raise InputError(f'train and val must be at least 1, not {self.train} and {self.val}; ask for more images')
        if min(self.size) < _SMALLEST:
            raise InputError(
                f'size {self.size[0]}x{self.size[1]} is too small; give at least {_SMALLEST} pixels per side'
            )
        if self.seed < 0:
            raise InputError(f'seed must not be negative, not {self.seed}; give 0 or more')

    def manifest(self) -> dict[str, object]:
        """Returns what tells one data set from another, as JSON holds it."""
        return {'renderer': RENDERER_VERSION, **asdict(self), 'size': list(self.size)}


@dataclass(frozen=True)
class _Job:
    split: int
    index: int
    image: Path
    mask: Path


def write_scenes(
    out: str | Path,
    request: Request,
    jobs: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Makes a folder hold the requested scenes; what is there already is kept.

    Each image depends on the seed, its split and its index alone, so neither the number of images nor of processes
    changes it. A mask is written before its image and both are moved into place whole, so that a kill at any time
    leaves nothing that the next call does not complete.

    Args:
        out: The folder; made with its parents.
        request: What to render.
        jobs: Number of processes; as many as there are processors by default.
        overwrite: Whether scenes of another request may be replaced. Files that are not scenes are never touched.
        progress: Called with the number of images done and to do.

    Returns:
        The number of images rendered; 0 when all were there.

    Raises:
        InputError: If the folder holds something else, or cannot be written.
    """
    out = Path(out)
    try:
        _claim(out, request, overwrite)
        todo = [job for job in _jobs(out, request) if not (job.image.exists() and job.mask.exists())]
        _render_all(todo, request, jobs or os.cpu_count() or 1, progress)
    except OSError as error:
        raise InputError(f'{out} cannot be written ({error}); free space or name another folder') from error
    return len(todo)


def _jobs(out: Path, request: Request) -> list[_Job]:
    jobs = []
    for split, (folder, prefix) in enumerate(SPLITS.items()):
        for index in range((request.train, request.val)[split]):
            name = f'{prefix}_{index:05d}'
            image = out / 'images' / folder / f'{name}.jpg'
            jobs.append(_Job(split, index, image, out / 'annotations' / folder / f'{name}.png'))
    return jobs


def _claim(out: Path, request: Request, overwrite: bool) -> None:
    """Makes the folder ready for this request, or says why it will not."""
    manifest = out / MANIFEST
    if manifest.is_file():
        try:
            found = json.loads(manifest.read_text())
        except ValueError:
            found = None
        if found == request.manifest():
            for part in out.glob('*/*/*.part'):
                part.unlink(missing_ok=True)
            return
        if not overwrite:
            raise InputError(
                f'{out} holds scenes made with other settings ({manifest}); give --overwrite or another --out'
            )
        _remove_scenes(out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f'{out} holds something else than scenes (it has no {MANIFEST}); name another folder with --out'
        )
    for folder in SPLITS:
        (out / 'images' / folder).mkdir(parents=True, exist_ok=True)
        (out / 'annotations' / folder).mkdir(parents=True, exist_ok=True)
    _write(manifest, (json.dumps(request.manifest(), indent=2) + '\n').encode())


def _remove_scenes(out: Path) -> None:
    for folder, prefix in SPLITS.items():
        for path in (
            *(out / 'images' / folder).glob(f'{prefix}_*'),
            *(out / 'annotations' / folder).glob(f'{prefix}_*'),
        ):
            path.unlink()


def _write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _render_one(request: Request, job: _Job) -> None:
    image, mask = render_scene(request.seed, job.split, job.index, request.size[::-1])
    quality = int(np.random.default_rng([request.seed, job.split, job.index, 1]).integers(72, 96))
    _write(job.mask, cv2.imencode('.png', mask)[1].tobytes())
    _write(job.image, cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


def _start_worker() -> None:
    # The parent process alone answers Ctrl-C, and each process renders on one thread.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _render_all(
    todo: list[_Job], request: Request, processes: int, progress: Callable[[int, int], None] | None
) -> None:
    render = partial(_render_one, request)
    processes = min(processes, len(todo))
    if processes <= 1:
        for done, job in enumerate(todo, 1):
            render(job)
            if progress is not None:
                progress(done, len(todo))
        return
    # Not forked: a process that has used OpenCV's threads hangs in its forks.
    with multiprocessing.get_context('spawn').Pool(processes, _start_worker) as pool:
        for done, _ in enumerate(pool.imap_unordered(render, todo), 1):
            if progress is not None:
                progress(done, len(todo))
