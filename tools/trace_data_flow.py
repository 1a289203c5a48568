#!/usr/bin/env python
"""Shows what becomes of a picture, hop by hop, from its file to the loss and to the overlay.

    python tools/trace_data_flow.py CONFIG IMAGE [--mask MASK] [--checkpoint FILE] [--seed 0] [--update FILE.md]

Every line was seen while the config's own pipeline and model ran: which function (file:line), and which keys it added
or changed, with shape, dtype and range. docs/data_flow.md explains them.
"""

import argparse
from pathlib import Path

from mmseg_beit import launch
from mmseg_beit.errors import InputError, MissingFileError, run_tool


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file, such as configs/beit_tiny_upernet_scenes.py')
    parser.add_argument('image', metavar='IMAGE', help='a picture')
    parser.add_argument('--mask', metavar='MASK', help="its mask (default: the one in the config's training data)")
    parser.add_argument('--checkpoint', metavar='FILE', help='weights (default: random, which changes ranges only)')
    parser.add_argument('--seed', type=int, default=0, help='of the random augmentation (default: 0)')
    parser.add_argument('--update', metavar='FILE', help='write the tables into a page such as docs/data_flow.md')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='change the config')
    return parser.parse_args()


def print_hops(hops: list, stage: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table('file:line', 'function', 'key', 'shape', 'dtype', 'range', title=stage.capitalize())
    for column in table.columns[:4]:
        column.overflow = 'fold'
    for hop in hops:
        if hop.stage != stage:
            continue
        cells = [f'{hop.file}:{hop.line}', hop.function + (f'\nof {hop.heir}' if hop.heir else '')]
        for value in hop.values:
            table.add_row(*cells, value.key, value.shape, value.dtype, value.range)
            cells = ['', '']
        if not hop.values:
            table.add_row(*cells, '', '', '', 'nothing new')
        table.add_section()
    Console().print(table)


def replace_table(page: Path, stage: str, table: str) -> None:
    """Puts a table between the page's marks for its stage."""
    if not page.is_file():
        raise MissingFileError(f'page {page} does not exist: give the file that holds the tables')
    begin, end = f'<!-- {stage} begins -->\n', f'<!-- {stage} ends -->\n'
    text = page.read_text(encoding='utf-8')
    if begin not in text or end not in text:
        raise InputError(f'page {page} has no place for the table: write the lines {begin.strip()} and {end.strip()}')
    head, _, rest = text.partition(begin)
    page.write_text(f'{head}{begin}{table}\n{end}{rest.partition(end)[2]}', encoding='utf-8')
    print(f'{page}: {stage} is up to date')


def main() -> None:
    launch.quiet()
    args = parse_args()
    launch.choose_device('cpu')
    from mmseg_beit.apis.data_flow import PREDICTION, TRAINING, markdown_table, needs_mask, trace_data_flow

    hops = trace_data_flow(args.config, args.image, args.mask, args.checkpoint, args.cfg_options, args.seed)
    for stage in (TRAINING, PREDICTION):
        if stage == TRAINING and needs_mask(hops):
            print('training is left out: give --mask MASK, as the picture is none of the training data of the config')
        elif args.update:
            replace_table(Path(args.update), stage, markdown_table(hops, stage))
        else:
            print_hops(hops, stage)


if __name__ == '__main__':
    run_tool(main)
