"""A look at every file of a data set before training: readable, the right kind, matching sizes, labels within range.

``'headers'`` reads the headers of pictures and masks and where the files end; ``'full'`` decodes the masks too and
counts their labels. The verdict on sound data is remembered by the files' names, sizes and times, so that the next
start only looks at those.
"""

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import mmcv.transforms
import numpy as np
from mmseg.datasets import transforms as mmseg_transforms
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...errors import InputError
from .files import (
    check_same_size,
    decode_image,
    decode_mask,
    image_size,
    mask_size,
    read_bytes,
)
from .labels import (
    IGNORED,
    NUM_VALUES,
    bad_values,
    explain_bad_values,
    explain_lost_labels,
    label_table,
)
from .listing import check_names, flat_transforms, is_local, needs_masks
from .report import DataReport, recall, remember

MODES = ('full', 'headers', 'off')
_VERSION = 1  # of the checks: a higher number makes every data set be looked at again


@dataclass
class _File:
    """What the scan of one pair brings: at most one of them is a problem, with its kind."""

    size: tuple[int, int] | None = None
    values: np.ndarray | None = None
    kind: str = ''
    problem: str = ''


def scan_dataset(
    dataset,
    num_classes: int | None = None,
    mode: str = 'full',
    cache_dir: str | None = None,
    ignore_index: int = IGNORED,
    num_workers: int | None = None,
    progress: bool = False,
) -> DataReport:
    """Looks at every pair of one data set.

    Args:
        dataset: A built ``BaseSegDataset`` of local files.
        num_classes: K; by default as many as the data set names.
        mode: ``'full'`` or ``'headers'``.
        cache_dir: Folder to remember the verdict in; None forgets it. Nothing is written beside the data.
        ignore_index: Label that the losses leave out.
        num_workers: Threads; by default one per core, at most 32.
        progress: Whether to show a progress bar with the time left (only on a terminal).

    Returns:
        The report; mistakes in it are not raised here.
    """
    begin = time.perf_counter()
    dataset.full_init()
    classes = list(dataset.metainfo.get('classes') or [])
    data_list = [dataset.get_data_info(i) for i in range(len(dataset))]
    report = DataReport(
        name=f'{type(dataset).__name__} {dataset.data_prefix.get("img_path")}',
        mode=mode,
        num_classes=num_classes or len(classes) or None,
        classes=classes,
        num_images=len(data_list),
        table=label_table(dataset.reduce_zero_label, dataset.label_map).tolist(),
    )
    if not is_local(dataset):
        report.doubts.append(f'{report.name} lies on a remote file backend, so its files are checked only when loaded')
        return report
    try:
        report.doubts += _check_listing(dataset)
    except InputError as error:
        report.problems.append(str(error))
        return report
    look = _Look(dataset, mode)
    paths = [(item['img_path'], item['seg_map_path'] if look.masks else None) for item in data_list]
    key = _fingerprint(paths, report, ignore_index, look)
    if remembered := recall(cache_dir, key):
        remembered.seconds = time.perf_counter() - begin
        return remembered
    workers = num_workers or min(os.cpu_count() or 1, 32)
    files = []
    with (
        _progress_bar(f'checking {report.name}', len(paths), progress) as step,
        _one_thread_opencv(),
        ThreadPoolExecutor(workers) as pool,
    ):
        for found in pool.map(look, paths):
            files.append(found)
            step()
    _summarise(report, paths, files, dataset, ignore_index)
    report.seconds = time.perf_counter() - begin
    if not report.problems:
        remember(cache_dir, key, report)
    return report


class _Look:
    """Reads one pair, the way the data set's own loading transforms will."""

    def __init__(self, dataset, mode: str) -> None:
        transforms = list(flat_transforms(dataset.pipeline))
        image_loader = _first(transforms, mmcv.transforms.LoadImageFromFile)
        mask_loader = _first(transforms, mmseg_transforms.LoadAnnotations)
        self.color_type = getattr(image_loader, 'color_type', 'color')
        self.image_backend = getattr(image_loader, 'imdecode_backend', 'cv2')
        self.mask_backend = getattr(mask_loader, 'imdecode_backend', 'pillow')
        # Files of other loaders (depth maps, GDAL rasters) are not for us to judge.
        self.images = type(image_loader).__name__ == 'LoadImageFromFile' or not transforms
        self.masks = needs_masks(dataset) and (mask_loader is not None or not transforms)
        self.masks = self.masks and dataset.data_prefix.get('seg_map_path') is not None
        self.pixels = self.masks and mode == 'full'
        self.rotated = self.color_type in ('color', 'grayscale') and self.image_backend in (None, 'cv2', 'pillow')

    def __call__(self, paths: tuple[str, str | None]) -> _File:
        image_path, mask_path = paths
        found = _File()
        try:
            if self.images:
                found.kind = 'image'
                found.size = image_size(image_path, self.rotated)
            if mask_path is not None:
                found.kind = 'mask'
                size = self._mask(mask_path, found)
                found.kind = 'size'
                if found.size is not None and size != found.size:
                    self._settle_size(image_path, mask_path, size, found)
            found.kind = ''
        except InputError as error:
            found.problem = str(error)
        except OSError as error:
            found.problem = f'{error.filename or image_path} cannot be read ({error.strerror or error}): check the file'
        return found

    def _mask(self, path: str, found: _File) -> tuple[int, int]:
        if not self.pixels:
            return mask_size(path)
        mask = decode_mask(read_bytes(path, 'mask'), path, self.mask_backend)
        found.values = count_values(mask)
        return mask.shape

    def _settle_size(self, image_path: str, mask_path: str, size: tuple[int, int], found: _File) -> None:
        """Headers and decoders may disagree about rotation: the loader's own decoder has the last word."""
        image = decode_image(read_bytes(image_path, 'image'), image_path, self.color_type, self.image_backend)
        found.size = image.shape[:2]
        check_same_size(size, image.shape, mask_path, image_path)


def count_values(mask: np.ndarray) -> np.ndarray:
    """Pixels of each value of a uint8 mask: int64 (256,). A NumPy count would hold the interpreter's lock."""
    counts = cv2.calcHist([mask], [0], None, [NUM_VALUES], [0, NUM_VALUES]).ravel()
    # calcHist counts in float32, exact up to 2^24 pixels of one value.
    return counts.astype(np.int64) if mask.size < 1 << 24 else np.bincount(mask.ravel(), minlength=NUM_VALUES)


def _first(transforms: Sequence, kind: type):
    return next((transform for transform in transforms if isinstance(transform, kind)), None)


def _check_listing(dataset) -> list[str]:
    """Names, for data sets that did not check them while listing and use what they list."""
    if getattr(dataset, 'listing_checked', False) or dataset._indices is not None:
        return []
    return check_names(dataset, [dataset.get_data_info(i) for i in range(len(dataset))])


def _summarise(report: DataReport, paths: Sequence, files: Sequence[_File], dataset, ignore_index: int) -> None:
    """Fills counts, problems and doubts of a report from what the threads found."""
    sizes: dict[str, int] = defaultdict(int)
    for found in files:
        if found.size is not None:
            sizes[f'{found.size[1]}x{found.size[0]}'] += 1
    report.sizes = dict(sorted(sizes.items(), key=lambda item: -item[1]))
    report.num_masks = sum(mask is not None for _, mask in paths)
    problems: dict[str, list[int]] = defaultdict(list)
    for i, found in enumerate(files):
        if found.problem:
            problems[found.kind].append(i)
    for kind, where in problems.items():
        column = 0 if kind == 'image' else 1
        report.problems.append(files[where[0]].problem + _others([paths[i][column] for i in where]))
    if any(found.values is not None for found in files):
        _summarise_labels(report, paths, files, dataset, ignore_index)


def _others(names: Sequence[str], limit: int = 3) -> str:
    if len(names) == 1:
        return ''
    more = ', '.join(os.path.basename(name) for name in names[1 : limit + 1])
    return f' ({len(names) - 1:,} more like it: {more}{", ..." if len(names) > limit + 1 else ""})'


def _summarise_labels(report: DataReport, paths: Sequence, files: Sequence[_File], dataset, ignore_index: int) -> None:
    counted = [(mask, found.values) for (_, mask), found in zip(paths, files, strict=True) if found.values is not None]
    pixels = np.zeros(NUM_VALUES, np.int64)
    images = np.zeros(NUM_VALUES, np.int64)
    for _, values in counted:
        pixels += values
        images += values > 0
    report.value_pixels, report.value_images = pixels.tolist(), images.tolist()
    if report.num_classes is None:
        report.doubts.append(f'{report.name} names no classes, so label values are not checked: set metainfo.classes')
        return
    table, present, num_classes = np.array(report.table, np.uint8), pixels > 0, report.num_classes
    zero, where = dataset.reduce_zero_label, f'the masks in {os.path.dirname(counted[0][0])}'
    if lost := explain_lost_labels(present, table, num_classes, zero, where):
        # Exactly 0..K-1 may be chance in a small validation set whose last class never occurs.
        certain = not dataset.test_mode or 'shifts the others' not in lost
        (report.problems if certain else report.doubts).append(lost)
    elif (bad := bad_values(present, table, num_classes, ignore_index)).size:
        names = [mask for mask, values in counted if values[bad].any()]
        where = f'{len(names):,} of {len(counted):,} masks (first {names[0]})'
        report.problems.append(explain_bad_values(present, table, num_classes, zero, ignore_index, where))


@contextmanager
def _progress_bar(title: str, total: int, show: bool) -> Iterator[Callable[[], None]]:
    console = Console(stderr=True)
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def _one_thread_opencv() -> Iterator[None]:
    """Our threads are the parallelism."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _fingerprint(paths: Sequence, report: DataReport, ignore_index: int, look: _Look) -> str:
    """Digest of everything that the verdict depends on."""
    digest = hashlib.sha1(usedforsecurity=False)
    settings = [_VERSION, report.mode, report.num_classes, report.classes, report.table, ignore_index, vars(look)]
    digest.update(json.dumps(settings).encode())
    for pair in paths:
        for path in filter(None, pair):
            try:
                stat = os.stat(path)
                digest.update(f'{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n'.encode())
            except OSError:
                digest.update(f'{path}\0missing\n'.encode())
    return digest.hexdigest()
