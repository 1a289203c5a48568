#!/usr/bin/env python
"""Writes a trained segmentor for other runtimes, runs what was written and compares it with PyTorch.

    python tools/export.py CONFIG CHECKPOINT --format onnx -o model.onnx [--output mask] [--uint8-input]
    python tools/export.py CONFIG CHECKPOINT --format pt2 -o model.pt2
    python tools/export.py CONFIG CHECKPOINT --format hf -o FOLDER [--metrics work_dirs/NAME/metrics.json]

An ONNX or pt2 graph takes any batch, height and width (up to --max-size) and looks at whole pictures: sliding windows
are left to the caller. tools/image_demo.py and tools/test.py take the file in the place of a checkpoint and slide by
themselves.
"""

import argparse

from mmseg_beit import launch
from mmseg_beit.errors import run_tool


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG')
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help='a file, a folder, timm://NAME, hf://ORG/NAME or https://'
    )
    parser.add_argument('--format', choices=('onnx', 'pt2', 'hf'), required=True)
    parser.add_argument('-o', '--out', metavar='FILE', required=True, help='ends in .onnx or .pt2; for hf a new folder')
    parser.add_argument('--output', choices=('logits', 'mask'), default='logits', help='what the graph gives')
    parser.add_argument(
        '--uint8-input', action='store_true', help='take uint8 RGB (B, H, W, 3) and normalise in the graph'
    )
    parser.add_argument('--max-size', type=int, default=2048, metavar='PIXELS', help='largest height and width')
    parser.add_argument('--opset', type=int, default=18, help='of ONNX, 18 or newer')
    parser.add_argument('--metrics', metavar='FILE', help="the metrics.json of tools/test.py, for hf's model card")
    parser.add_argument('--overwrite', action='store_true', help='replace an existing file')
    parser.add_argument('--trust-checkpoint', action='store_true', help='run the code that a pickled checkpoint brings')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def main() -> None:
    launch.quiet()
    args = parse_args()
    if args.format == 'hf':
        to_transformers(args)
        return
    from mmseg_beit.apis.export import export_model

    print(f'Exporting {args.checkpoint} to {args.out} (tracing takes about a minute for a base model) ...', flush=True)
    comparisons = export_model(
        args.config,
        args.checkpoint,
        args.out,
        args.format,
        output=args.output,
        uint8_input=args.uint8_input,
        max_size=args.max_size,
        opset=args.opset,
        overwrite=args.overwrite,
        cfg_options=args.cfg_options,
        trust=args.trust_checkpoint,
    )
    print('The file beside PyTorch:')
    for c in comparisons:
        batch, height, width = c.shape
        logits = (
            f'logits apart by at most {c.largest_difference:.1e} of {c.largest_logit:.3g}, ' if c.largest_logit else ''
        )
        print(f'  {batch} x {height}x{width}: {logits}{c.same_labels:.4%} of the labels equal')
    print(f'Written: {args.out}')


def to_transformers(args: argparse.Namespace) -> None:
    from mmseg_beit.apis.export_hf import export_transformers

    check = export_transformers(
        args.config,
        args.checkpoint,
        args.out,
        metrics=args.metrics,
        cfg_options=args.cfg_options,
        trust=args.trust_checkpoint,
    )
    if check is None:
        print('transformers is not installed here, so its logits were not compared')
    else:
        print(f'Logits apart from transformers by at most {check.largest_difference:.1e} of {check.largest_logit:.3g}')
    print(f'Written: {args.out} (config.json, model.safetensors, preprocessor_config.json, README.md)')


if __name__ == '__main__':
    run_tool(main)
