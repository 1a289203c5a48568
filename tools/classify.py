#!/usr/bin/env python
"""Names the class of pictures.

    python tools/classify.py photo.jpg CONFIG CHECKPOINT
    python tools/classify.py photos/ CONFIG CHECKPOINT --out predictions.json
    python tools/classify.py 'photos/**/*.jpg' CONFIG CHECKPOINT --out predictions.json --batch-size 32

Prints a line for each picture; the file holds {path: {"class index": ..., "class name": ..., "score": ...}}, the score
being the class's probability. The exit status is 1 when a picture could not be used.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

from mmseg_beit import launch
from mmseg_beit.errors import InputError, run_tool, sentence


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', metavar='IMAGE|FOLDER|GLOB', nargs='+', help='pictures, folders of them, or patterns')
    parser.add_argument('config', metavar='CONFIG', help='config file of a classifier, see configs/classification')
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help='a file, a folder, timm://NAME, hf://ORG/NAME or https://'
    )
    parser.add_argument('--out', metavar='FILE', type=Path, help='JSON file to write')
    parser.add_argument('--recursive', action='store_true', help='search folders inside folders too')
    parser.add_argument('--batch-size', type=int, default=1, help='pictures that are predicted at once (default: 1)')
    parser.add_argument('--device', metavar='cpu|cuda[:N]', help='default: a GPU if there is one')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change fields of the config, as in model.backbone.attn_impl=sdpa',
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

    from mmseg_beit.apis.classification import ImageClassifierInferencer
    from mmseg_beit.apis.config import check_work_dir
    from mmseg_beit.apis.pictures import find_pictures
    from mmseg_beit.engine.resuming import replacing

    # What can be known wrong is found before the model is built.
    paths = [picture.path for picture in find_pictures(args.images, args.recursive)]
    if args.out:
        if args.out.is_dir():
            raise InputError(f'--out {args.out} is a folder: name a file such as {args.out / "predictions.json"}')
        check_work_dir(args.out.parent)
    for handler in MMLogger.get_instance('classify', log_level='INFO').handlers:  # tells what was loaded
        handler.setFormatter(logging.Formatter('%(message)s'))
    infer = ImageClassifierInferencer(
        args.config,
        args.checkpoint,
        args.device or 'auto',
        args.batch_size,
        cfg_options=args.cfg_options,
        trust=args.trust_checkpoint,
    )
    predictions, num_failed = _run(infer, paths)
    if args.out:
        with replacing(args.out) as temporary:
            temporary.write_text(json.dumps(predictions, indent=2, ensure_ascii=False) + '\n')
        print(f'{len(predictions)} of {len(paths)} predictions are in {args.out}')
    if num_failed:
        print(f'{num_failed} of {len(paths)} pictures could not be used, see above', file=sys.stderr)
    return 1 if num_failed else 0


def _run(infer, paths: list[Path]) -> tuple[dict[str, dict], int]:
    """Predicts and prints; returns the predictions by path, and the number of pictures that failed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    predictions: dict[str, dict] = {}
    num_failed = 0
    width = max(len(str(path)) for path in paths)
    console = Console(stderr=True, soft_wrap=True)
    columns = ['{task.description}', BarColumn(), MofNCompleteColumn(), 'elapsed', TimeElapsedColumn(), 'left']
    # The lines are the result: rich would send them where the bar goes.
    shared = sys.stdout.isatty()
    with Progress(*columns, TimeRemainingColumn(), console=console, redirect_stdout=shared) as progress:
        task = progress.add_task(f'classifying on {infer.device}', total=len(paths))

        def tell(path: Path, error: InputError) -> None:
            nonlocal num_failed
            num_failed += 1
            console.print(f'failed: {sentence(error)}', markup=False, highlight=False)
            progress.advance(task)

        for result in infer.stream(paths, on_error=tell):
            predictions[str(result.path)] = result.as_dict()
            print(f'{result.path!s:{width}}  {result.score:6.1%}  {result.class_index:>4}  {result.class_name}')
            progress.advance(task)
    return predictions, num_failed


if __name__ == '__main__':
    run_tool(main)
