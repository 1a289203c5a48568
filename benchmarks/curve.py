"""``python -m benchmarks.curve``: the loss curves of our model and of mmseg's classes, step by step.

Both start from the same weights and see the same batches; random draws (dropout, stochastic depth) begin from the same
seed in every step. Prints both columns and the largest difference, and draws the curves.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from mmseg_beit.apis.model import scope_of
from mmseg_beit.errors import InputError, run_tool
from mmseg_beit.registry import DATASETS

from . import models


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.curve', description=__doc__)
    parser.add_argument('--config', default=str(models.CONFIGS / 'beit_tiny_upernet_msrc.py'))
    parser.add_argument('--data', type=Path, required=True, help="the data set's folder, such as data/msrc")
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--out', type=Path, help='picture of the curves to write (.png)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if not args.data.is_dir():
        raise InputError(f'--data {args.data} is no folder: name the one that holds images and annotations')
    config = Config.fromfile(args.config)
    config.train_dataloader.dataset.data_root = str(args.data)
    batches = load_batches(config, args.steps, args.batch_size)
    model_config = config.model.to_dict()
    ours = models.build_ours(model_config)
    logging.disable(logging.INFO)  # mmengine tells of every parameter.
    ours.init_weights()
    logging.disable(logging.NOTSET)
    mmseg = models.build_mmseg(model_config, ours)
    curves = {name: train(model, batches, config) for name, model in (('fast', ours.train()), ('mmseg', mmseg.train()))}
    print(f'{"step":>4} {"fast paths":>12} {"mmseg":>12} {"apart":>9}')
    for step, (fast, plain) in enumerate(zip(*curves.values(), strict=True), start=1):
        print(f'{step:4d} {fast:12.6f} {plain:12.6f} {abs(fast - plain):9.1e}')
    apart = max(abs(fast - plain) / plain for fast, plain in zip(*curves.values(), strict=True))
    print(f'largest difference: {apart:.1e} of the loss')
    if args.out:
        draw(curves, args.out)
    return 0


def load_batches(config: Config, steps: int, batch_size: int) -> list[dict]:
    """The batches of the first steps: pictures in a seeded order, augmented with seeded draws."""
    with scope_of(config):
        dataset = DATASETS.build(config.train_dataloader.dataset)
    np.random.seed(0)  # noqa: NPY002 (the transforms draw from NumPy's global generator)
    torch.manual_seed(0)
    order = torch.randperm(len(dataset)).tolist()
    picked = [order[i % len(order)] for i in range(steps * batch_size)]
    return [
        pseudo_collate([dataset[i] for i in picked[start : start + batch_size]])
        for start in range(0, len(picked), batch_size)
    ]


def train(model: nn.Module, batches: list[dict], config: Config) -> list[float]:
    """Losses of a step with each batch: the config's AdamW and warm-up."""
    settings = config.optim_wrapper.optimizer.to_dict()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings['lr'], betas=settings['betas'], weight_decay=settings['weight_decay']
    )
    warmup = config.param_scheduler[0]
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, warmup.start_factor, total_iters=warmup.end - 1)
    losses = []
    for step, batch in enumerate(batches):
        torch.manual_seed(step)
        data = model.data_preprocessor(batch, training=True)
        loss, _ = model.parse_losses(model.loss(data['inputs'], data['data_samples']))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def draw(curves: dict[str, list[float]], path: Path) -> None:
    """Both curves, and their difference below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout='constrained')
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    steps = range(1, len(curves['fast']) + 1)
    above.plot(steps, curves['mmseg'], linewidth=4, alpha=0.4, label="mmseg's classes")
    above.plot(steps, curves['fast'], linewidth=1.2, label='fast paths')
    above.set_ylabel('loss')
    above.legend()
    below.semilogy(steps, [max(abs(a - b), 1e-9) for a, b in zip(*curves.values(), strict=True)], marker='.')
    below.set_ylabel('difference')
    below.set_xlabel('step')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    run_tool(main)
