"""Renders the embedded data set: street and landscape scenes with exact masks, in ADE20K's layout.

    python tools/make_scenes.py                                   # data/scenes: 240 + 60 images of 320x240, seed 0
    python tools/make_scenes.py --out data/more --train 2000 --val 200 --size 512x384 --seed 7

What is there already is kept, so the command may be repeated, also after it was interrupted.
"""

import argparse
import re

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmseg_beit.errors import InputError, run_tool
from mmseg_beit.scenes import Request, write_scenes


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'(\d+)x(\d+)', text)
    if match is None:
        raise argparse.ArgumentTypeError(f'{text!r} is not WIDTHxHEIGHT in pixels, for example 320x240')
    return int(match[1]), int(match[2])


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description='Render street and landscape scenes with exact masks, in the layout of ADE20K.'
    )
    parser.add_argument('--out', default='data/scenes', help='folder to fill (default: %(default)s)')
    parser.add_argument('--train', type=int, default=240, help='training images (default: %(default)s)')
    parser.add_argument('--val', type=int, default=60, help='validation images (default: %(default)s)')
    parser.add_argument('--size', type=_size, default=(320, 240), help='WIDTHxHEIGHT in pixels (default: 320x240)')
    parser.add_argument('--seed', type=int, default=0, help='same seed, same files (default: %(default)s)')
    parser.add_argument('--jobs', type=int, help='processes (default: one per processor)')
    parser.add_argument('--overwrite', action='store_true', help='replace scenes made with other settings')
    return parser.parse_args()


def main() -> None:
    """Renders what is missing, with a progress bar."""
    args = parse_args()
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f'--jobs must be at least 1, not {args.jobs}')
    request = Request(args.train, args.val, args.size, args.seed)
    columns = (TextColumn('rendering scenes'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task('', total=None, visible=False)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        rendered = write_scenes(args.out, request, args.jobs, args.overwrite, progress)
    total = args.train + args.val
    made = f'{rendered} rendered, {total - rendered} kept' if rendered else 'all there already'
    print(f'{args.out}: {args.train} training and {args.val} validation scenes ({made})')


if __name__ == '__main__':
    run_tool(main)
