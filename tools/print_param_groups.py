#!/usr/bin/env python
"""Prints the optimizer's parameter groups for a config: learning rate, decay and parameters of each.

    python tools/print_param_groups.py CONFIG [--names] [--cfg-options K=V ...]

With layer-wise decay this shows what every depth gets; --names lists the parameters themselves.
"""

import argparse

from mmseg_beit import launch
from mmseg_beit.errors import InputError, run_tool


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file, such as configs/beit_upernet_ade20k.py')
    parser.add_argument('--names', action='store_true', help='list the names of the parameters of each group')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='change the config')
    return parser.parse_args()


def main() -> None:
    launch.quiet()
    args = parse_args()
    # Late: importing mmseg takes seconds, and --help needs none of it.
    import torch
    from mmengine.logging import MMLogger
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope
    from rich.console import Console
    from rich.table import Table

    from mmseg_beit.apis.config import builder_sentences, check_config, load_config
    from mmseg_beit.registry import MODELS

    config = load_config(args.config, args.cfg_options)
    check_config(config)
    if config.get('optim_wrapper') is None:
        raise InputError(f'config {args.config} has no field optim_wrapper: name a config for training')
    MMLogger.get_instance('print_param_groups', log_level='WARNING')  # what is built reports to it
    # On the meta device nothing is allocated: names and shapes are all that is asked for.
    with DefaultScope.overwrite_default_scope(config.default_scope), builder_sentences(), torch.device('meta'):
        model = MODELS.build(config.model)
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
    names = {id(param): name for name, param in model.named_parameters()}
    table = Table('group', 'lr', 'lr scale', 'weight decay', 'tensors', 'parameters', box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
        column.justify = 'left' if column.header == 'group' else 'right'
    base = config.optim_wrapper.optimizer.lr
    groups = wrapper.optimizer.param_groups
    for index, group in enumerate(groups):
        table.add_row(
            group.get('group_name', str(index)),
            f'{group["lr"]:.4g}',
            f'{group["lr"] / base:.4f}',
            f'{group["weight_decay"]:g}',
            str(len(group['params'])),
            f'{sum(param.numel() for param in group["params"]):,}',
        )
    console = Console()
    console.print(table)
    if args.names:
        for index, group in enumerate(groups):
            console.print(f'\n{group.get("group_name", index)}', highlight=False)
            for param in group['params']:
                print(f'  {names[id(param)]}  {tuple(param.shape)}')
    total = sum(param.numel() for group in groups for param in group['params'])
    frozen = sum(param.numel() for param in model.parameters()) - total
    console.print(f'{len(groups)} groups, {total:,} parameters' + (f', {frozen:,} frozen' if frozen else ''))


if __name__ == '__main__':
    run_tool(main)
