#!/usr/bin/env python
"""Converts a BEiT checkpoint of any family to another format, or says what it is.

    python tools/convert_checkpoint.py SRC --inspect
    python tools/convert_checkpoint.py SRC DST --to {mmseg_beit,mmseg,mmpretrain,timm,hf,official}

SRC is a file, a folder, timm://NAME, hf://ORG/NAME or https://...; DST a .pth or .safetensors file, for hf a folder.
See docs/checkpoints.md for what each format can hold.
"""

import argparse

from mmseg_beit.errors import InputError, run_tool

FORMATS = ('mmseg_beit', 'mmseg', 'mmpretrain', 'timm', 'hf', 'official')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', metavar='SRC', help='file, folder, timm://NAME, hf://ORG/NAME or https://...')
    parser.add_argument('dst', metavar='DST', nargs='?', help='file to write; for --to hf a folder')
    parser.add_argument('--to', choices=FORMATS, help='format of DST')
    parser.add_argument('--inspect', action='store_true', help='say what SRC is and write nothing')
    parser.add_argument('--overwrite', action='store_true', help='replace DST if it exists')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='run the code that a pickle brings; only for files whose author you trust',
    )
    parser.add_argument(
        '--grid', type=int, nargs=2, metavar=('H', 'W'), help='patches SRC is made for, when the file cannot tell'
    )
    parser.add_argument(
        '--out-indices', type=int, nargs='+', metavar='I', help='0-based blocks a segmentor reads, for --to hf'
    )
    parser.add_argument('--norm-eps', type=float, metavar='EPS', help='epsilon of the layer norms, for --to hf')
    args = parser.parse_args()
    if args.inspect == bool(args.to or args.dst):
        parser.error('give either --inspect, or DST and --to')
    if bool(args.to) != bool(args.dst):
        parser.error('DST and --to belong together')
    return args


def main() -> int:
    args = parse_args()
    # Late: importing PyTorch takes seconds, and --help needs none of it.
    from mmseg_beit.checkpoint import convert_checkpoint, inspect_checkpoint

    grid = tuple(args.grid) if args.grid else None
    if grid and min(grid) < 1:
        raise InputError(f'--grid {grid[0]} {grid[1]} is no number of patches: give two positive numbers')
    if args.inspect:
        print(inspect_checkpoint(args.src, trust=args.trust_checkpoint, source_grid=grid))
        return 0
    report = convert_checkpoint(
        args.src,
        args.dst,
        args.to,
        trust=args.trust_checkpoint,
        overwrite=args.overwrite,
        source_grid=grid,
        out_indices=args.out_indices,
        norm_eps=args.norm_eps,
    )
    print(report)
    print(f'written   {args.dst} ({args.to})')
    return 0


if __name__ == '__main__':
    run_tool(main)
