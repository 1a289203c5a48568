#!/usr/bin/env python
"""Predicts the classes of pictures and writes overlays.

    python tools/image_demo.py photo.jpg CONFIG CHECKPOINT --out-dir out
    python tools/image_demo.py photos/ CONFIG CHECKPOINT --out-dir out --with-legend --save-mask
    python tools/image_demo.py 'photos/**/*.jpg' CONFIG CHECKPOINT --out-dir out --batch-size 8

DIR/NAME.png is a picture's overlay, DIR/masks/NAME.png with --save-mask its mask in the values of the data set's
annotations. Files of an earlier run are replaced, inputs never. The exit status is 1 when a picture could not be used.
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
    parser.add_argument('images', metavar='IMAGE|FOLDER|GLOB', nargs='+', help='pictures, folders of them, or patterns')
    parser.add_argument('config', metavar='CONFIG', help='config file, such as configs/beit_upernet_ade20k.py')
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help='a file, a folder, timm://NAME, hf://ORG/NAME or https://'
    )
    parser.add_argument('--out-dir', metavar='DIR', required=True, help='where the results go')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the colours, 0 to 1 (default: 0.5)')
    parser.add_argument('--with-legend', action='store_true', help='add colour, name and share of the classes')
    parser.add_argument('--borders', action='store_true', help='outline the regions')
    parser.add_argument('--save-mask', action='store_true', help='also write index masks (PNG) to DIR/masks')
    parser.add_argument('--recursive', action='store_true', help='search folders inside folders too')
    parser.add_argument('--batch-size', type=int, default=1, help='pictures that are predicted at once (default: 1)')
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=('auto', 'bf16', 'fp16'),
        help='mixed precision; without a value bf16 where the device computes in it, else fp16',
    )
    parser.add_argument('--device', metavar='cpu|cuda[:N]', help='default: a GPU if there is one')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change fields of the config, as in model.test_cfg.mode=whole',
    )
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

    from mmseg_beit.apis import Inferencer
    from mmseg_beit.apis.outputs import check_outputs, plan_outputs
    from mmseg_beit.apis.pictures import find_pictures
    from mmseg_beit.visualization.overlay import check_opacity

    # What can be known wrong is found before the model is built.
    check_opacity(args.opacity)
    pictures = find_pictures(args.images, args.recursive, skip=args.out_dir)
    outputs = plan_outputs(pictures, args.out_dir, args.save_mask)
    check_outputs(args.out_dir, outputs)
    for handler in MMLogger.get_instance('image_demo', log_level='INFO').handlers:  # tells what was loaded
        handler.setFormatter(logging.Formatter('%(message)s'))
    infer = Inferencer(
        args.config,
        args.checkpoint,
        args.device or 'auto',
        args.batch_size,
        cfg_options=args.cfg_options,
        trust=args.trust_checkpoint,
        amp=args.amp,
    )
    num_failed = _run(infer, outputs, args)
    if num_failed < len(outputs):
        print(f'{len(outputs) - num_failed} of {len(outputs)} overlays are in {args.out_dir}')
    if num_failed:
        print(f'{num_failed} of {len(outputs)} pictures could not be used, see above', file=sys.stderr)
    return 1 if num_failed else 0


def _run(infer, outputs: dict, args: argparse.Namespace) -> int:
    """Predicts and writes; returns the number of pictures that failed, each told as it fails."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    num_failed = 0
    console = Console(stderr=True, soft_wrap=True)
    columns = ['{task.description}', BarColumn(), MofNCompleteColumn(), 'elapsed', TimeElapsedColumn(), 'left']
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(f'predicting on {infer.device}', total=len(outputs))

        def tell(path: Path, error: InputError) -> None:
            nonlocal num_failed
            num_failed += 1
            console.print(f'failed: {sentence(error)}', markup=False, highlight=False)
            progress.advance(task)

        for result in infer.stream(outputs, on_error=tell):
            files = outputs[result.path]
            result.save(files.overlay, args.opacity, args.with_legend, args.borders)
            if files.mask:
                result.save_mask(files.mask)
            progress.advance(task)
    return num_failed


if __name__ == '__main__':
    run_tool(main)
