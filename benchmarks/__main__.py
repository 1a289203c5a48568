"""``python -m benchmarks [ROW ...]``: ours and the peers in turns, the same weights, one table of ratios."""

import argparse
import shlex
import sys
from pathlib import Path

import torch
from rich.console import Console

from mmseg_beit.errors import InputError, run_tool

from .gpu import chosen
from .measure import matmul_gflops
from .report import Row, print_rows, save
from .rows import ON_A_GPU_ONLY, ROWS, Bench


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
    parser.add_argument('rows', nargs='*', metavar='ROW', help=f'some of: {", ".join(ROWS)} (default: all)')
    parser.add_argument('--size', choices=('base', 'large'), default='base')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--rounds', type=int, default=3, help='most measured runs of each, fewer where slow')
    parser.add_argument('--tiny', action='store_true', help='a fraction of the widths: does it run, not how fast')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent / 'results', help='folder for .md and .json')
    parser.add_argument('--no-save', action='store_true', help='print only')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if unknown := [name for name in args.rows if name not in ROWS]:
        raise InputError(f'row {unknown[0]!r} is unknown: choose some of {", ".join(ROWS)}')
    if args.rounds < 1:
        raise InputError(f'--rounds {args.rounds}: one round at least')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise InputError('--device cuda: torch sees no GPU here, so leave the option out')
    # The table is wider than what Rich takes for a file or a pipe.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    bench = Bench(args.size, args.device, args.tiny, args.rounds)
    rate = matmul_gflops(args.device, torch.float32)
    rows: list[Row] = []
    names = args.rows or [name for name in ROWS if args.device == 'cuda' or name not in ON_A_GPU_ONLY]
    for i, name in enumerate(names, start=1):
        console.print(f'[{i}/{len(names)}] {name}: {(ROWS[name].__doc__ or "").strip()}', markup=False, highlight=False)
        rows += ROWS[name](bench)
    print_rows(rows, rate, console)
    for line in chosen():
        console.print(f'chosen by measurement: {line}', markup=False, highlight=False)
    if not args.no_save:
        command = shlex.join(['python', '-m', 'benchmarks', *(argv if argv is not None else sys.argv[1:])])
        path = save(rows, rate, args.device, command, args.out)
        console.print(f'written: {path} and {path.with_suffix(".json").name}', highlight=False)
    return 0


if __name__ == '__main__':
    run_tool(main)
