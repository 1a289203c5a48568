#!/usr/bin/env python
"""Trains the model of a config.

    python tools/train.py CONFIG [--work-dir DIR] [--resume [CHECKPOINT]] [--amp [bf16|fp16]] [--cfg-options K=V ...]
    bash tools/dist_train.sh CONFIG 8                      # several GPUs, or processes on a CPU

Checkpoints, logs and the config as it was used go to the work directory (work_dirs/NAME_OF_CONFIG by default). After an
interruption the same command with --resume goes on from the newest whole checkpoint there.
"""

import argparse
import os

from mmseg_beit import launch
from mmseg_beit.errors import run_tool


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file, such as configs/beit_upernet_ade20k.py')
    parser.add_argument('--work-dir', metavar='DIR', help='where everything goes (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from CHECKPOINT, or from the newest whole one in the work directory',
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=('auto', 'bf16', 'fp16'),
        help='mixed precision; without a value bf16 where the device computes in it, else fp16',
    )
    parser.add_argument('--tensorboard', action='store_true', help='also write curves for TensorBoard')
    parser.add_argument('--device', metavar='cpu|cuda[:N]', help='default: a GPU if there is one')
    parser.add_argument('--launcher', choices=launch.LAUNCHERS, default='none', help='set by the scripts')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change fields of the config, as in optim_wrapper.optimizer.lr=1e-4',
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
    from mmseg_beit.apis.tool_config import training_config

    config = training_config(
        args.config,
        options=args.cfg_options,
        work_dir=args.work_dir,
        resume=args.resume,
        amp=args.amp,
        tensorboard=args.tensorboard,
        launcher=args.launcher,
    )
    launch.start_processes(args.launcher, (config.get('env_cfg') or {}).get('dist_cfg', {}).get('timeout'))
    with builder_sentences():
        runner = BEiTRunner.from_cfg(config)
        runner.trust_checkpoint = args.trust_checkpoint
        runner.train()


if __name__ == '__main__':
    run_tool(lambda: launch.one_voice(main))
