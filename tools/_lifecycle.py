"""Parts of tools/lifecycle_demo.sh that a shell is not made for.

    python tools/_lifecycle.py labels DATA       prints arguments of make_image_folder.py for DATA, one a line
    python tools/_lifecycle.py configs DATA RUN [--labelled N]       writes RUN/configs/*.py, the configs for DATA
    python tools/_lifecycle.py report RUN        prints the table of mIoU by start; writes curves.png, report.json

DATA is in ADE20K's layout: images/{training,validation}/*, annotations/{training,validation}/*.png (0 = unlabelled).
"""

import argparse
import json
import os
import re
from collections import Counter
from pathlib import Path

from mmseg_beit.errors import InputError, MissingFileError, run_tool

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
SHARE_OF_A_CLASS = 0.02  # of the training pictures; what fewer are mostly made of is no class of pictures
CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'lifecycle'
STARTS = {'scratch': 'from scratch', 'mim': 'MIM', 'classes': 'MIM, then classes'}


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted by name."""
    if not folder.is_dir():
        raise MissingFileError(
            f'folder {folder} does not exist: --data takes a folder with images/training, images/validation, '
            f'annotations/training and annotations/validation'
        )
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not found:
        raise MissingFileError(f'folder {folder} holds no picture ({", ".join(PICTURES)}): put the pictures there')
    return found


def check_layout(data: Path) -> None:
    """Says which of the four folders is missing or empty."""
    for kind in ('images', 'annotations'):
        for split in ('training', 'validation'):
            pictures(data / kind / split)


def class_names(data: Path) -> dict[int, str]:
    """Names by mask value: from classes.txt, else the scenes' own, else from the values that occur."""
    listed = data / 'classes.txt'
    if listed.is_file():
        lines = [line.split('\t') for line in listed.read_text(encoding='utf-8').splitlines() if line.strip()]
        wrong = [line for line in lines if len(line) < 2 or not line[0].strip().isdigit()]
        if wrong or not lines:
            text = '\t'.join(wrong[0]) if wrong else ''
            raise InputError(f'{listed} has the line {text!r}: write index, tab and name of one class in each')
        return {int(index): name.strip() for index, name, *_ in lines}
    if (data / 'scenes.json').is_file():
        from mmseg_beit.scenes.labels import LABELS

        return {index: name for name, index in LABELS.items()}
    values = sorted({value for path in pictures(data / 'annotations' / 'training') for value in counts(path)} - {0})
    return {value: f'class {value}' for value in range(1, max(values, default=1) + 1)}


def counts(mask: Path) -> dict[int, int]:
    """Pixels by value; 0 and 255, which stand for no class, are not counted."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(mask) as opened:
            numbers = np.bincount(np.asarray(opened).ravel(), minlength=256)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f'mask {mask} cannot be read as an index mask ({error}): replace it') from None
    return {value: int(numbers[value]) for value in np.flatnonzero(numbers) if value not in (0, 255)}


def label_arguments(data: Path) -> list[str]:
    """How pictures get classes: by the number that their names begin with, else by what covers most of each.

    Returns:
        Arguments of tools/make_image_folder.py.
    """
    check_layout(data)
    names = [path.name for path in pictures(data / 'images' / 'training')]
    groups = Counter(match and match[1] for match in (re.match(r'(\d+)_', name) for name in names))
    if None not in groups and 2 <= len(groups) <= len(names) / 5:
        return ['--from-names', r'^([0-9]+)_']
    most = Counter()
    masks = pictures(data / 'annotations' / 'training')
    for path in masks:
        covered = counts(path)
        if covered:
            most[max(covered, key=covered.get)] += 1
    kept = sorted(value for value, count in most.items() if count >= SHARE_OF_A_CLASS * len(masks))
    if len(kept) < 2:
        raise InputError(
            f'{data} gives no two classes of pictures: begin the file names with the number of a class and "_", as in '
            f'7_12_s.jpg'
        )
    known = class_names(data)
    pairs = [f'{value}={re.sub(r"[/=]+", "-", known.get(value, f"class {value}"))}' for value in kept]
    return ['--from-masks', str(data / 'annotations'), *pairs]


def write_configs(data: Path, run: Path, labelled: int | None) -> None:
    """Writes RUN/configs/*.py: configs/lifecycle with the folders, classes and labelled pictures of a data set.

    Args:
        data: Folder in ADE20K's layout.
        run: The demo's folder; ``run/folders`` holds the class folders already.
        labelled: How many training pictures segmentation sees, evenly spread over the sorted names; all by default.
    """
    check_layout(data)
    images = pictures(data / 'images' / 'training')
    if labelled is not None and not 1 <= labelled <= len(images):
        raise InputError(f'--labelled {labelled}: {data} has {len(images)} training pictures, give 1 to {len(images)}')
    labelled = labelled or len(images)
    folders = sum(path.is_dir() for path in (run / 'folders' / 'train').iterdir())
    if (data / 'scenes.json').is_file():
        names, dataset = class_names(data), dict(type='ScenesDataset')
    else:
        known = class_names(data)
        names = {value: known.get(value, f'class {value}') for value in range(1, max(known) + 1)}
        dataset = dict(
            type='BaseSegDataset',
            metainfo=dict(classes=list(names.values())),
            img_suffix=images[0].suffix,
            seg_map_suffix=pictures(data / 'annotations' / 'training')[0].suffix,
            reduce_zero_label=True,
        )
    dataset |= dict(data_root=str(data))
    picked = [i * len(images) // labelled for i in range(labelled)]
    settings = {
        'tokenizer': _loaders(data_root=str(data)),
        'pretraining': {'train_dataloader': dict(dataset=dict(data_root=str(data)))},
        'classification': _loaders(data_root=str(run / 'folders'))
        | {'model': dict(data_preprocessor=dict(num_classes=folders), head=dict(num_classes=folders))},
        'segmentation': _loaders(**dataset)
        | {
            'train_dataloader': dict(dataset=dataset | dict(indices=picked)),
            'model': dict(decode_head=dict(num_classes=len(names))),
        },
    }
    folder = run / 'configs'
    folder.mkdir(parents=True, exist_ok=True)
    for stage, fields in settings.items():
        base = os.path.relpath(CONFIGS / f'{stage}.py', folder)
        lines = [f'# Written by tools/lifecycle_demo.sh for {data}.', f'_base_ = {base!r}']
        text = '\n'.join(lines + [f'{name} = {value!r}' for name, value in fields.items()]) + '\n'
        path = folder / f'{stage}.py'
        if not path.is_file() or path.read_text(encoding='utf-8') != text:
            path.write_text(text, encoding='utf-8')
    print(
        f'{data}: {len(images)} training pictures, {labelled} of them with masks for segmentation; '
        f'{len(names)} classes of pixels, {folders} of pictures'
    )


def _loaders(**dataset: object) -> dict[str, dict]:
    return {name: dict(dataset=dataset) for name in ('train_dataloader', 'val_dataloader', 'test_dataloader')}


def curve(run: Path) -> dict[int, float]:
    """Scores (mIoU) by step of a segmentation run, over all parts of a run that was interrupted."""
    scores = {}
    for path in sorted(run.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # The last line of a run that was killed
                continue
            if 'mIoU' in entry:
                scores[entry['step']] = entry['mIoU']
    return scores


def collect(run: Path) -> dict[str, dict[int, dict[int, float]]]:
    """Scores (mIoU) by start, seed and step, of the runs RUN/START_SEED."""
    found: dict[str, dict[int, dict[int, float]]] = {}
    for start in STARTS:
        for folder in sorted(run.glob(f'{start}_[0-9]*')):
            scores = curve(folder)
            if scores and (folder / 'trained').is_file():
                found.setdefault(start, {})[int(folder.name.rpartition('_')[2])] = scores
    if not found:
        raise MissingFileError(f'{run} holds no finished segmentation run: type bash tools/lifecycle_demo.sh first')
    return found


def table(found: dict[str, dict[int, dict[int, float]]]) -> str:
    """The last mIoU of each run, by start and seed, and each start's margin over the first."""
    seeds = sorted({seed for runs in found.values() for seed in runs})
    last = {start: {seed: scores[max(scores)] for seed, scores in runs.items()} for start, runs in found.items()}
    width = max(map(len, STARTS.values()))
    lines = [f'{"start":<{width}}' + ''.join(f'{f"seed {seed}":>9}' for seed in seeds) + f'{"mean":>9}{"gain":>9}']
    for start, values in last.items():
        cells = ''.join(f'{values[seed]:9.2f}' if seed in values else f'{"-":>9}' for seed in seeds)
        both = [seed for seed in values if seed in last.get('scratch', {})]
        gains = [values[seed] - last['scratch'][seed] for seed in both]
        gain = f'{sum(gains) / len(gains):+9.2f}' if gains and start != 'scratch' else ''
        lines.append(f'{STARTS[start]:<{width}}{cells}{sum(values.values()) / len(values):9.2f}{gain}')
    return '\n'.join(lines)


def plot(found: dict[str, dict[int, dict[int, float]]], path: Path) -> None:
    """Draws mIoU over steps: one thin line for each run, a thick one for the mean of each start."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), dpi=120, layout='constrained')
    for colour, (start, runs) in zip(('#777777', '#1b6ca8', '#d1495b'), found.items(), strict=False):
        steps = sorted(set.intersection(*(set(scores) for scores in runs.values())))
        for scores in runs.values():
            axes.plot(steps, [scores[step] for step in steps], color=colour, alpha=0.35, linewidth=1)
        means = [sum(scores[step] for scores in runs.values()) / len(runs) for step in steps]
        axes.plot(steps, means, color=colour, linewidth=2.2, marker='o', markersize=4, label=STARTS[start])
    num_seeds = max(map(len, found.values()))
    axes.set(xlabel='steps of segmentation', ylabel='mIoU on the validation pictures, %', ylim=(0, None))
    axes.set_title(f'Start of the backbone; thin: single seeds ({num_seeds}), thick: their mean', fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc='lower right')
    figure.savefig(path)
    pyplot.close(figure)


def report(run: Path) -> None:
    """Prints the table; writes RUN/curves.png and RUN/report.json."""
    found = collect(run)
    print('mIoU on the validation pictures, in percent, after the last step\n\n' + table(found) + '\n')
    (run / 'report.json').write_text(json.dumps(found, indent=1), encoding='utf-8')
    plot(found, run / 'curves.png')
    print(f'{run / "curves.png"}: the curves; {run / "report.json"}: their figures')


def main() -> None:
    """Runs one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('labels').add_argument('data', type=Path)
    configs = commands.add_parser('configs')
    configs.add_argument('data', type=Path)
    configs.add_argument('run', type=Path)
    configs.add_argument('--labelled', type=int)
    commands.add_parser('report').add_argument('run', type=Path)
    args = parser.parse_args()
    if args.command == 'labels':
        print('\n'.join(label_arguments(args.data)))
    elif args.command == 'configs':
        write_configs(args.data, args.run, args.labelled)
    else:
        report(args.run)


if __name__ == '__main__':
    run_tool(main)
