#!/usr/bin/env python
"""Looks at every file of a config's data: images, masks, sizes, labels.

    python tools/check_data.py CONFIG [--split train val test] [--headers] [--sheet FILE.png] [--cfg-options K=V ...]

Prints what is there and how often each class occurs, then everything that is wrong, one sentence each, and ends with
status 2 if anything is. --sheet draws some of the pictures with their masks, to be looked at.
"""

import argparse
import sys

from mmseg_beit import launch
from mmseg_beit.errors import InputError, run_tool, sentence

SPLITS = ('train', 'val', 'test')
SHEET_CELL = (320, 240)  # width and height that each picture on the sheet is fitted into


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file, such as configs/beit_upernet_ade20k.py')
    parser.add_argument('--split', nargs='+', choices=SPLITS, help='which data (default: all that differ)')
    parser.add_argument('--headers', action='store_true', help='only open the files; quicker, and blind to labels')
    parser.add_argument('--sheet', metavar='FILE', help='draw pictures with their masks into this picture')
    parser.add_argument('--sheet-count', type=int, default=12, metavar='N', help='how many (default: 12)')
    parser.add_argument('--workers', type=int, metavar='N', help='threads (default: one per core, at most 32)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change fields of the config, as in train_dataloader.dataset.data_root=data/mine',
    )
    return parser.parse_args()


def dataset_configs(config, splits: list[str] | None) -> dict[str, dict]:
    """The data of the splits asked for; by default without those that another split has already."""
    found: dict[str, dict] = {}
    for split in splits or SPLITS:
        dataset = (config.get(f'{split}_dataloader') or {}).get('dataset')
        if dataset is None:
            if splits:
                raise InputError(f'the config has no {split}_dataloader: leave {split} out of --split')
        elif splits or dataset not in found.values():
            found[split] = dataset
    if not found:
        raise InputError('the config has no train_dataloader, val_dataloader or test_dataloader: name another config')
    return found


def summary_table(reports: dict):
    from rich.table import Table

    table = Table('data', 'folder', 'images', 'masks', 'sizes', 'time', title='Data')
    for split, report in reports.items():
        sizes = [f'{size} ({count:,})' for size, count in list(report.sizes.items())[:3]]
        more = len(report.sizes) - len(sizes)
        table.add_row(
            split,
            report.name,
            f'{report.num_images:,}',
            f'{report.num_masks:,}',
            ', '.join(sizes) + (f' and {more:,} more' if more > 0 else ''),
            f'{report.seconds:.1f} s',
        )
    return table


def class_table(reports: dict):
    """Share of the labelled pixels and number of masks for each class, and how much is ignored."""
    import numpy as np
    from rich.table import Table

    counted = {split: report for split, report in reports.items() if report.value_pixels and report.num_classes}
    if not counted:
        return None
    num_classes = max(report.num_classes for report in counted.values())
    names = max((report.classes for report in counted.values()), key=len)
    table = Table('label', 'class', title='Classes (share of the labelled pixels, masks)')
    for split in counted:
        table.add_column(split, justify='right')
    pixels = {split: report.class_pixels() for split, report in counted.items()}
    images = {split: report.class_images() for split, report in counted.items()}
    for label in range(num_classes):
        if not any(pixels[split][label] for split in counted):
            continue
        cells = []
        for split in counted:
            labelled = max(int(pixels[split][:num_classes].sum()), 1)
            cells.append(f'{100 * pixels[split][label] / labelled:.2f} %, {images[split][label]:,}')
        table.add_row(str(label), names[label] if label < len(names) else '', *cells)
    absent = [sum(not pixels[split][label] for label in range(num_classes)) for split in counted]
    ignored = [100 * pixels[split][255] / max(int(np.sum(pixels[split])), 1) for split in counted]
    table.add_section()
    table.add_row('255', 'ignored, share of all pixels', *(f'{share:.2f} %' for share in ignored))
    table.add_row('', 'classes that do not occur', *(f'{count:,}' for count in absent))
    return table


def draw_sheet(datasets: dict, count: int, path: str) -> None:
    """Pictures in pairs, as they are and with their masks in the classes' colours, spread evenly over each data set."""
    import cv2
    import numpy as np

    from mmseg_beit.apis.result import write_picture
    from mmseg_beit.datasets.transforms import LoadAnnotations, LoadImageFromFile
    from mmseg_beit.visualization import blend, class_palette

    width, height = SHEET_CELL
    cells = []
    for dataset in datasets.values():
        share = max(count // len(datasets), 1)
        for i in np.linspace(0, len(dataset) - 1, min(share, len(dataset))).round().astype(int):
            item = LoadAnnotations()(LoadImageFromFile()(dataset.get_data_info(int(i))))
            picture = np.ascontiguousarray(item['img'][:, :, ::-1])
            palette = class_palette(dataset.metainfo, len(dataset.metainfo['classes']))
            overlay = blend(picture, item['gt_seg_map'], palette, 0.6)
            scale = min(width / picture.shape[1], height / picture.shape[0])
            size = [max(round(scale * side), 1) for side in picture.shape[1::-1]]
            cell = np.full((height, 2 * width, 3), 255, np.uint8)
            for left, drawn in ((0, picture), (width, overlay)):
                cell[: size[1], left : left + size[0]] = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
            cells.append(cell)
    cells += [np.zeros_like(cells[0])] * (len(cells) % 2)
    write_picture(path, np.concatenate([np.concatenate(cells[i : i + 2], axis=1) for i in range(0, len(cells), 2)]))


def main() -> int:
    launch.quiet()
    args = parse_args()
    from rich.console import Console

    from mmseg_beit.apis.config import load_config
    from mmseg_beit.datasets.checks import build_dataset, leaf_datasets, scan_dataset

    config = load_config(args.config, args.cfg_options)
    console = Console()
    reports, sound, problems, doubts = {}, {}, [], []
    for split, dataset_config in dataset_configs(config, args.split).items():
        try:
            leaves = list(leaf_datasets(build_dataset(dataset_config)))
        except InputError as error:
            problems.append(f'{split}: {sentence(error)}')
            continue
        for i, dataset in enumerate(leaves):
            name = split if len(leaves) == 1 else f'{split} {i}'
            mode = 'headers' if args.headers else 'full'
            report = scan_dataset(dataset, mode=mode, num_workers=args.workers, progress=True)
            reports[name] = report
            problems += [f'{name}: {problem}' for problem in report.problems]
            doubts += [f'{name}: {doubt}' for doubt in report.doubts]
            if not report.problems and report.num_masks:
                sound[name] = dataset
    for table in filter(None, (reports and summary_table(reports), class_table(reports))):
        console.print(table)
    for doubt in doubts:
        print(f'doubt: {doubt}')
    for problem in problems:
        print(f'problem: {problem}', file=sys.stderr)
    if args.sheet and sound:
        draw_sheet(sound, args.sheet_count, args.sheet)
        print(f'pictures with their masks: {args.sheet}')
    if not problems:
        print('no problem found')
    return 2 if problems else 0


if __name__ == '__main__':
    run_tool(main)
