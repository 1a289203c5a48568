#!/usr/bin/env python
"""Scores the frozen features of a backbone with linear classifiers, layer by layer.

    python tools/linear_probe.py CONFIG CHECKPOINT              # every layer; class token, mean of the patches, both
    python tools/linear_probe.py CONFIG CHECKPOINT --layers 8 11 --features both --out probe

CONFIG is one of a classifier (its backbone, its training and validation data, its validation pipeline); CHECKPOINT is
any: pre-training, classifier, segmentor. Features are computed once and kept in --cache; what has not changed is read
from there. What an option does not say, `linear_probe` in the config says (configs/classification/*_linear.py), else:
all layers, all features, AdamW 4e-3, weight decay 1e-4, 100 epochs in batches of 1024.

Prints a table of top-1 and writes linear_probe.json and linear_probe.png to --out.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

from mmseg_beit import launch
from mmseg_beit.errors import InputError, run_tool


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file of a classifier, see configs/classification')
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help='a file, a folder, timm://NAME, hf://ORG/NAME or https://'
    )
    parser.add_argument('--layers', type=int, nargs='+', metavar='N', help='layers, from 0')
    parser.add_argument('--features', nargs='+', metavar='cls|mean|both', help='class token, mean of the patches')
    parser.add_argument('--out', metavar='DIR', type=Path, help='default: work_dirs/NAME_OF_CONFIG/linear_probe')
    parser.add_argument(
        '--cache', metavar='DIR', type=Path, help='for features (default: features in the --out folder)'
    )
    parser.add_argument('--epochs', type=int, help='passes over the features')
    parser.add_argument('--lr', type=float, help='learning rate, falling as a cosine')
    parser.add_argument('--weight-decay', type=float, help='of AdamW')
    parser.add_argument('--batch-size', type=int, help='features per step')
    parser.add_argument(
        '--image-batch', type=int, default=64, help='pictures at once through the backbone (default: 64)'
    )
    parser.add_argument('--workers', type=int, default=2, help='processes that load pictures (default: 2)')
    parser.add_argument('--seed', type=int, help='of start weights and order (default: 0)')
    parser.add_argument('--device', metavar='cpu|cuda[:N]', help='default: a GPU if there is one')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='change the config')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='run the code that a pickled checkpoint brings; only for files whose author you trust',
    )
    return parser.parse_args()


def main() -> None:
    launch.quiet()
    args = parse_args()
    launch.choose_device(args.device)
    # Late: mmengine looks for GPUs when it is imported.
    from mmengine.logging import MMLogger

    from mmseg_beit.apis.config import check_work_dir, load_config
    from mmseg_beit.apis.linear_probe import FEATURES, FrozenBackbone, ProbeSettings, select, train_probe

    config = load_config(args.config, args.cfg_options)
    recipe = dict(config.get('linear_probe') or {})
    kinds, layers = recipe.pop('features', FEATURES), recipe.pop('layers', None)
    kinds, layers = args.features or list(kinds), args.layers or layers
    try:
        settings = ProbeSettings(**recipe | _settings(args))
    except TypeError:
        raise InputError(f'linear_probe in {args.config} has an unknown field: {", ".join(recipe)}') from None
    for kind in kinds:
        select({name: _empty() for name in ('cls', 'mean')}, kind)  # refuses an unknown one before the work begins
    out = args.out or Path('work_dirs') / Path(args.config).stem / 'linear_probe'
    check_work_dir(out)
    for handler in MMLogger.get_instance('linear_probe', log_level='INFO').handlers:  # tells what was loaded
        handler.setFormatter(logging.Formatter('%(message)s'))
    frozen = FrozenBackbone(config, args.checkpoint, layers, args.device or 'auto', args.trust_checkpoint)
    train, val, classes = _features(frozen, config, args.cache or out / 'features', args)
    rows = []
    for layer in frozen.layers:
        for kind in kinds:
            sets = [(select(found[layer], kind), labels) for found, labels in (train, val)]
            scores = train_probe(*sets, len(classes), settings, frozen.device)
            rows.append(dict(layer=layer, feature=kind, **{name: round(value, 3) for name, value in scores.items()}))
            print(f'layer {layer}, {kind}: top-1 {scores["top1"]:.2f}', file=sys.stderr)
    about = dict(
        config=str(args.config), checkpoint=str(args.checkpoint), classes=len(classes), train_images=len(train[1]),
        val_images=len(val[1]), settings=vars(settings), results=rows,
    )  # fmt: skip
    (out / 'linear_probe.json').write_text(json.dumps(about, indent=2) + '\n')
    _plot(rows, kinds, out / 'linear_probe.png', f'{Path(args.checkpoint).name}, {len(classes)} classes')
    print(_table(rows, kinds))
    best = max(rows, key=lambda row: row['top1'])
    print(f'best: layer {best["layer"]}, {best["feature"]}, top-1 {best["top1"]:.2f} (chosen on the validation data)')
    print(f'linear_probe.json and linear_probe.png are in {out}')


def _settings(args: argparse.Namespace) -> dict:
    names = ('epochs', 'lr', 'weight_decay', 'batch_size', 'seed')
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _empty():
    import torch

    return torch.empty(0, 1)


def _features(frozen, config, cache: Path, args: argparse.Namespace) -> tuple:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from mmseg_beit.apis.linear_probe import cached_features

    columns = ['{task.description}', BarColumn(), MofNCompleteColumn(), 'elapsed', TimeElapsedColumn(), 'left']
    found = {}
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        for split in ('train', 'val'):
            task = bars.add_task(f'features of {split}', total=None)

            def progress(done: int, total: int, task=task) -> None:
                bars.update(task, completed=done, total=total)

            found[split] = cached_features(frozen, config, split, cache, args.image_batch, args.workers, progress)
            count = len(found[split][1])
            bars.update(task, completed=count, total=count)
    if found['train'][2] != found['val'][2]:
        raise InputError('training and validation data have different classes: set class_folder of the validation data')
    return found['train'][:2], found['val'][:2], found['train'][2]


def _table(rows: list[dict], kinds: list[str]) -> str:
    by_place = {(row['layer'], row['feature']): row['top1'] for row in rows}
    lines = ['top-1   ' + ''.join(f'{kind:>8}' for kind in kinds)]
    for layer in dict.fromkeys(row['layer'] for row in rows):
        lines.append(f'layer {layer:<2}' + ''.join(f'{by_place[layer, kind]:8.2f}' for kind in kinds))
    return '\n'.join(lines)


def _plot(rows: list[dict], kinds: list[str], path: Path, title: str) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = dict(cls='class token', mean='mean of the patches', both='both')
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for kind in kinds:
        chosen = [row for row in rows if row['feature'] == kind]
        axes.plot([row['layer'] for row in chosen], [row['top1'] for row in chosen], marker='o', label=names[kind])
    axes.set(xlabel='layer, from 0', ylabel='top-1 (%)', title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    run_tool(main)
