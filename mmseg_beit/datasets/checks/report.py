"""What a scan of a data set found, and the memory of sound data in a small file."""

import json
import os
from dataclasses import asdict, dataclass, field

import numpy as np

from ...errors import InputError
from .labels import NUM_VALUES

_CACHE_FILE = 'data_check.json'
_CACHE_ENTRIES = 8  # training, validation and test data of a few settings


@dataclass
class DataReport:
    """What a scan found.

    Attributes:
        name: Class and image folder of the data set.
        mode: ``'full'`` or ``'headers'``.
        num_classes: K, None where the data set names no classes.
        classes: Their names.
        num_images: Images listed.
        num_masks: Masks read; 0 where the pipeline loads none.
        sizes: Picture sizes "WxH" and how many pictures have them.
        value_pixels: Pixels of each value stored in the masks, 256 counts; empty without pixels.
        value_images: Masks in which each stored value occurs, 256 counts; empty without pixels.
        table: Label of each stored value, 256 entries.
        problems: One sentence per kind of mistake.
        doubts: One sentence per thing that looks wrong and need not be.
        seconds: Time the scan took.
        remembered: Whether the files were not read because nothing changed since an earlier scan.
    """

    name: str
    mode: str
    num_classes: int | None
    classes: list[str]
    num_images: int = 0
    num_masks: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    value_pixels: list[int] = field(default_factory=list)
    value_images: list[int] = field(default_factory=list)
    table: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    seconds: float = 0.0
    remembered: bool = False

    def class_pixels(self) -> np.ndarray:
        """Pixels per label: int64 (256,), 0..K-1 and 255 = ignored."""
        pixels = np.zeros(NUM_VALUES, np.int64)
        if self.value_pixels:
            np.add.at(pixels, self.table, self.value_pixels)
        return pixels

    def class_images(self) -> np.ndarray:
        """Masks in which each label occurs, at most one stored value for each: int64 (256,)."""
        images = np.zeros(NUM_VALUES, np.int64)
        if self.value_images:
            np.maximum.at(images, self.table, self.value_images)
        return images

    def raise_problems(self) -> None:
        """Raises the first problem.

        Raises:
            InputError: There is one; its sentence says how many other kinds there are.
        """
        if not self.problems:
            return
        more = len(self.problems) - 1
        tail = f' (and {more} more kind{"s" if more > 1 else ""} of problem, which tools/check_data.py lists)'
        raise InputError(self.problems[0] + (tail if more else ''))


def recall(cache_dir: str | None, key: str) -> DataReport | None:
    """The report that :func:`remember` kept under `key`; None where there is none."""
    entry = _read_cache(cache_dir).get(key) if cache_dir else None
    return DataReport(**entry, remembered=True) if entry else None


def remember(cache_dir: str | None, key: str, report: DataReport) -> None:
    """Keeps a report in `cache_dir`; an unwritable folder only costs the next start its time."""
    if not cache_dir:
        return
    entry = asdict(report)
    del entry['remembered']
    entries = {**_read_cache(cache_dir), key: entry}
    path = os.path.join(cache_dir, _CACHE_FILE)
    try:
        os.makedirs(cache_dir, exist_ok=True)
        with open(path + '.part', 'w', encoding='utf-8') as file:
            json.dump(dict(list(entries.items())[-_CACHE_ENTRIES:]), file)
        os.replace(path + '.part', path)
    except OSError:
        return


def _read_cache(cache_dir: str) -> dict:
    try:
        with open(os.path.join(cache_dir, _CACHE_FILE), encoding='utf-8') as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}
