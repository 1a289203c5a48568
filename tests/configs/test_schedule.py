"""The learning rate of every ADE20K config, against the official rule restated.

The official recipes ran on mmcv 1.x. Its hook sets, before iteration i, the decay to zero of power 1 and, while i is
below the warm-up, multiplies that same iteration's decayed value by the warm-up factor.
"""

import json
from functools import cache
from pathlib import Path

import mmengine.optim  # noqa: F401  registers the schedulers
import pytest
import torch
from mmengine import Config

from mmseg_beit.registry import PARAM_SCHEDULERS

CONFIGS = sorted((Path(__file__).parents[2] / 'configs').glob('*ade20k*.py'))
BASE_LRS = (1.0, 0.65**13)  # two groups, as layer decay makes them: the head's and the embedding's


def official_factor(i: int, max_iters: int, warmup: int) -> float:
    decay = 1 - i / max_iters
    return decay * (1 - (1 - i / warmup) * (1 - 1e-6)) if i < warmup else decay


@cache
def factors(schedulers: str, max_iters: int) -> torch.Tensor:
    """Learning rates (max_iters, 2) that mmengine's schedulers give before each iteration; cached: it takes seconds."""
    groups = [{'params': [torch.nn.Parameter(torch.zeros(1))], 'lr': lr} for lr in BASE_LRS]
    optimizer = torch.optim.AdamW(groups)
    built = [PARAM_SCHEDULERS.build(dict(cfg, optimizer=optimizer)) for cfg in json.loads(schedulers)]
    # The schedulers check that the optimizer was stepped before them; an update of nothing is enough.
    optimizer.step()
    rates = torch.empty(max_iters, len(groups), dtype=torch.float64)
    for i in range(max_iters):
        rates[i] = torch.tensor([group['lr'] for group in optimizer.param_groups], dtype=torch.float64)
        for scheduler in built:
            scheduler.step()
    return rates


def rates_of(path: Path) -> tuple[torch.Tensor, int]:
    cfg = Config.fromfile(path)
    max_iters = cfg.train_cfg.max_iters
    return factors(json.dumps(cfg.param_scheduler), max_iters), max_iters


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_learning_rate_is_the_official_product_at_every_iteration(path):
    rates, max_iters = rates_of(path)
    warmup = 1500 * max_iters // 160000
    expected = torch.tensor([official_factor(i, max_iters, warmup) for i in range(max_iters)], dtype=torch.float64)
    for group, base in enumerate(BASE_LRS):
        torch.testing.assert_close(rates[:, group], base * expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize(
    ('iteration', 'factor'),
    [
        (0, 1e-6),
        (1, 0.0006676618270875),
        (10, 0.00666724327125),
        (750, 0.49765674765625),
        (1499, 0.9899708298270875),
        (1500, 0.990625),
        (80000, 0.5),
        (159999, 6.25e-6),
    ],
)
def test_learning_rate_at_marked_iterations(iteration, factor):
    """Hand-computed: (1 - i / 160000) (1 - (1 - i / 1500) (1 - 1e-6)) below 1500, else 1 - i / 160000."""
    rates, _ = rates_of(CONFIGS[0].with_name('beit_upernet_ade20k.py'))
    assert rates[iteration, 0].item() == pytest.approx(factor, rel=1e-8)
    assert official_factor(iteration, 160000, 1500) == pytest.approx(factor, rel=1e-8)
