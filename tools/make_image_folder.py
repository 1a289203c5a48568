#!/usr/bin/env python
r"""Sorts the pictures of a data set into class folders, as links: OUT/{train,val}/CLASS/NAME.

    python tools/make_image_folder.py data/msrc/images --out data/msrc_folders --from-names '([0-9]+)_'
    python tools/make_image_folder.py data/scenes/images --out data/scenes_folders \
        --from-masks data/scenes/annotations 2=building 5=tree 7=road 10=grass

A picture's class is either a part of its file name, or the one of the given mask values that covers most of it.
Pictures without a class are left out and counted. SOURCE holds training/ and validation/.
"""

import argparse
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mmseg_beit.errors import InputError, MissingFileError, run_tool

SPLITS = {'training': 'train', 'validation': 'val'}
PICTURES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='SOURCE', type=Path, help='folder with training/ and validation/ pictures')
    parser.add_argument('--out', metavar='DIR', type=Path, required=True, help='folder to make; must not exist')
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument('--from-names', metavar='PATTERN', help='regular expression whose first group is the class')
    how.add_argument(
        '--from-masks', nargs='+', metavar=('MASKS', 'VALUE=CLASS'), help='masks, and the values that count'
    )
    parser.add_argument('--copy', action='store_true', help='copy the pictures instead of linking them')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.out.exists():
        raise InputError(f'{args.out} exists already: remove it, or name another folder with --out')
    label = _by_name(args.from_names) if args.from_names else _by_mask(args.from_masks)
    plan, unlabelled = [], 0
    for source, target in SPLITS.items():
        folder = args.source / source
        if not folder.is_dir():
            raise MissingFileError(f'folder {folder} does not exist: SOURCE must hold {" and ".join(SPLITS)}')
        for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES):
            name = label(path, source)
            unlabelled += name is None
            if name is not None:
                plan.append((path, args.out / target / name / path.name))
    if not plan:
        raise InputError(f'no picture in {args.source} has a class: correct the pattern or the mask values')
    for path, place in plan:
        place.parent.mkdir(parents=True, exist_ok=True)
        if args.copy:
            shutil.copyfile(path, place)
        else:
            place.symlink_to(os.path.relpath(path.resolve(), place.parent.resolve()))
    for split in SPLITS.values():
        counts = Counter(place.parent.name for _, place in plan if place.parent.parent.name == split)
        classes = ', '.join(f'{name} {counts[name]}' for name in sorted(counts))
        print(f'{args.out / split}: {sum(counts.values())} pictures ({classes})')
    if unlabelled:
        print(f'{unlabelled} pictures have no class and were left out')


def _by_name(pattern: str) -> Callable[[Path, str], str | None]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f'--from-names {pattern!r} is no regular expression ({error}): correct it') from None
    if not compiled.groups:
        raise InputError(f"--from-names {pattern!r} has no group: put the class in brackets, as in '([0-9]+)_'")

    def label(path: Path, split: str) -> str | None:
        match = compiled.search(path.name)
        return match and match[1]

    return label


def _by_mask(words: list[str]) -> Callable[[Path, str], str | None]:
    import numpy as np
    from PIL import Image

    masks, *pairs = words
    if not Path(masks).is_dir():
        raise MissingFileError(f'folder {masks} does not exist: --from-masks takes the folder of the masks first')
    wrong = [pair for pair in pairs if not re.fullmatch(r'\d+=[^/\\=]+', pair)]
    if wrong or not pairs:
        raise InputError(f'--from-masks {wrong[0] if wrong else masks}: give mask values and classes as in 7=road')
    classes = {int(pair.split('=')[0]): pair.split('=')[1] for pair in pairs}
    values = list(classes)

    def label(path: Path, split: str) -> str | None:
        mask = Path(masks) / split / f'{path.stem}.png'
        if not mask.is_file():
            raise MissingFileError(f'mask {mask} of {path} does not exist: correct the folder of the masks')
        counts = np.bincount(np.asarray(Image.open(mask)).ravel(), minlength=max(values) + 1)[values]
        return classes[values[int(counts.argmax())]] if counts.any() else None

    return label


if __name__ == '__main__':
    run_tool(main)
