#!/usr/bin/env python
"""Scores a checkpoint on a config's test data.

A segmentor gets mIoU, mAcc, aAcc and a table by class; a classifier top-1 and top-5; a tokenizer its codebook's usage.

    python tools/test.py CONFIG CHECKPOINT [--tta] [--amp] [--out DIR] [--show-dir DIR] [--cfg-options K=V ...]
    bash tools/dist_test.sh CONFIG CHECKPOINT 8            # several GPUs, or processes on a CPU

The figures are also written to metrics.json in the work directory (work_dirs/NAME_OF_CONFIG by default).
"""

import argparse
import os

from mmseg_beit import launch
from mmseg_beit.errors import run_tool


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file, such as configs/beit_upernet_ade20k.py')
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help='a file, a folder, timm://NAME, hf://ORG/NAME or https://'
    )
    parser.add_argument('--tta', action='store_true', help="average over the config's scales and flips (tta_pipeline)")
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=('auto', 'bf16', 'fp16'),
        help='mixed precision; without a value bf16 where the device computes in it, else fp16',
    )
    parser.add_argument('--out', metavar='DIR', help='write index masks (PNG, the values of the annotations) to DIR')
    parser.add_argument('--show-dir', metavar='DIR', help='write pictures of ground truth and prediction to DIR')
    parser.add_argument('--work-dir', metavar='DIR', help='for log and figures (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument('--device', metavar='cpu|cuda[:N]', help='default: a GPU if there is one')
    parser.add_argument('--launcher', choices=launch.LAUNCHERS, default='none', help='set by the scripts')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change fields of the config, as in test_dataloader.batch_size=2',
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='run the code that a pickled checkpoint brings; only for files whose author you trust',
    )
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    launch.quiet()
    args = parse_args()
    launch.choose_device(args.device)
    # Late: mmengine looks for GPUs when it is imported.
    from mmseg_beit.apis.config import builder_sentences
    from mmseg_beit.apis.runner import BEiTRunner
    from mmseg_beit.apis.tool_config import metrics_file, testing_config, write_metrics

    config = testing_config(
        args.config,
        args.checkpoint,
        options=args.cfg_options,
        work_dir=args.work_dir,
        tta=args.tta,
        out=args.out,
        show_dir=args.show_dir,
        launcher=args.launcher,
        amp=args.amp,
    )
    launch.start_processes(args.launcher, (config.get('env_cfg') or {}).get('dist_cfg', {}).get('timeout'))
    with builder_sentences():
        runner = BEiTRunner.from_cfg(config)
        runner.trust_checkpoint = args.trust_checkpoint
        figures = runner.test()
    about = dict(config=args.config, checkpoint=args.checkpoint, tta=args.tta)
    about['images'] = len(runner.test_dataloader.dataset)
    if runner.rank == 0 and write_metrics(config, figures, about):
        runner.logger.info(f'Figures written to {metrics_file(config)}')


if __name__ == '__main__':
    run_tool(lambda: launch.one_voice(main))
