#!/usr/bin/env python
"""Draws the visual words of photographs.

    python tools/show_tokens.py CONFIG CHECKPOINT --out DIR               # four pictures of the config's data
    python tools/show_tokens.py CONFIG CHECKPOINT photos/ --out DIR

With a config of configs/pretraining: photograph, what the backbone sees of it, the tokenizer's words, those that are
predicted for the hidden patches, and how many are right. With one of configs/tokenizer: photograph, words, the
teacher's features and what the decoder makes of the words. Like words have like colours. DIR gets one picture for each.
"""

import argparse
import logging
import sys
from pathlib import Path

from mmseg_beit import launch
from mmseg_beit.errors import InputError, run_tool, sentence


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file of configs/pretraining or configs/tokenizer')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='what its run wrote')
    parser.add_argument('images', metavar='IMAGE|FOLDER|GLOB', nargs='*', help='pictures, folders of them, or patterns')
    parser.add_argument('--out', metavar='DIR', type=Path, required=True, help='where the pictures go')
    parser.add_argument('--num', type=int, default=4, help="pictures of the config's data (default: 4)")
    parser.add_argument('--seed', type=int, default=0, help='of the masks (default: 0)')
    parser.add_argument('--recursive', action='store_true', help='search folders inside folders too')
    parser.add_argument('--device', metavar='cpu|cuda[:N]', help='default: a GPU if there is one')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='change the config')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='run the code that a pickled checkpoint brings; only for files whose author you trust',
    )
    return parser.parse_args()


def main() -> int:
    launch.quiet()
    args = parse_args()
    launch.choose_device(args.device)
    # Late: mmengine looks for GPUs when it is imported.
    from mmengine.logging import MMLogger

    from mmseg_beit.apis.outputs import check_outputs, plan_outputs
    from mmseg_beit.apis.pictures import find_pictures
    from mmseg_beit.apis.tokens import TokenShower

    if args.num < 1:
        raise InputError(f'--num {args.num}: give a number from 1')
    pictures = find_pictures(args.images, args.recursive, skip=args.out) if args.images else None
    for handler in MMLogger.get_instance('show_tokens', log_level='INFO').handlers:  # tells what was loaded
        handler.setFormatter(logging.Formatter('%(message)s'))
    shower = TokenShower(
        args.config, args.checkpoint, args.device or 'auto', args.cfg_options, args.seed, args.trust_checkpoint
    )
    outputs = plan_outputs(pictures or find_pictures(shower.default_images(args.num)), args.out)
    check_outputs(args.out, outputs)
    figures, num_failed = [], 0
    for number, (path, files) in enumerate(outputs.items()):
        try:
            shown = shower.show(path, number)
        except InputError as error:
            num_failed += 1
            print(f'failed: {sentence(error)}', file=sys.stderr)
            continue
        shown.save(files.overlay)
        figures.append(shown.figures)
        print(f'{files.overlay}: {_tell(shown.figures)}')
    if len(figures) > 1:
        print(f'all {len(figures)}: {_tell(_joined(figures))}')
    if num_failed:
        print(f'{num_failed} of {len(outputs)} pictures could not be used, see above', file=sys.stderr)
    return 1 if num_failed else 0


def _joined(figures: list[dict[str, float]]) -> dict[str, float]:
    sums = {name: sum(found[name] for found in figures) for name in figures[0]}
    return {name: value / len(figures) if name == 'cosine' else value for name, value in sums.items()}


def _tell(figures: dict[str, float]) -> str:
    if 'hidden' in figures:
        right, hidden = figures['right'], figures['hidden']
        return f'{right} of {hidden} hidden patches right ({right / hidden:.1%})'
    return f'cosine with the teacher {figures["cosine"]:.3f}' if figures else 'words drawn'


if __name__ == '__main__':
    run_tool(main)
