"""Timing of rival functions in turns, with the peak memory of each."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import mmseg_beit.models.layers  # noqa: F401  (tells the counter the arithmetic of our operators)
from mmseg_beit.models.layers.kept import held_bytes

__all__ = ['Measurement', 'count_gflop', 'held_bytes', 'interleave', 'matmul_gflops', 'weight_bytes']


_SECONDS_OF_ROUNDS = 60.0


@dataclass
class Measurement:
    """What one contestant of a row took: seconds of each round, and the most memory above its start, in MB.

    To the memory of a whole model's row comes what the model holds beside its weights.
    """

    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    gflop: float | None = None

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Slowest minus fastest round, over the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def interleave(
    contestants: dict[str, Callable[[], object]], rounds: int, device: str, gflop: float | None = None
) -> dict[str, Measurement]:
    """Runs each contestant once unmeasured, then all in turns, the order reversed every other round.

    Where a round takes long there are fewer of them, one at least: those that begin within a minute.

    Args:
        contestants: Functions by name.
        rounds: Most measured runs of each.
        device: ``cpu`` or ``cuda``.
        gflop: Arithmetic of each, where it cannot be counted; ``None`` to count it.

    Returns:
        A measurement for each contestant.
    """
    results = {name: Measurement() for name in contestants}
    for name, function in contestants.items():
        if gflop is None:
            results[name].gflop = count_gflop(function)
        else:
            function()
            results[name].gflop = gflop
    begin = time.perf_counter()
    for i in range(rounds):
        if i and time.perf_counter() - begin > _SECONDS_OF_ROUNDS:
            break
        for name in list(contestants)[:: -1 if i % 2 else 1]:
            seconds, peak_mb = _run(contestants[name], device)
            results[name].seconds.append(seconds)
            results[name].peak_mb = max(results[name].peak_mb, peak_mb)
    return results


def _run(function: Callable[[], object], device: str) -> tuple[float, float]:
    gc.collect()
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        return time.perf_counter() - start, (torch.cuda.max_memory_allocated() - before) / 1e6
    before = _reset_peak_memory()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start, (_status_mb('VmHWM') - before)


def _reset_peak_memory() -> float:
    """Gives freed memory back, sets the process's peak to what it holds now, and returns that in MB (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')
    return _status_mb('VmRSS')


def _status_mb(key: str) -> float:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(key + ':'):
            return int(line.split()[1]) / 1e3
    raise RuntimeError(f'/proc/self/status has no {key}')


def count_gflop(function: Callable[[], object]) -> float | None:
    """Multiply-adds counted twice, in units of 1e9, of one run; ``None`` if there are none."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 1e9 or None


def weight_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters."""
    return sum(parameter.nbytes for parameter in model.parameters())


def matmul_gflops(device: str, dtype: torch.dtype, side: int = 2048) -> float:
    """This machine's rate for a square matrix product, in GFLOP/s: the best of five."""
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    best = float('inf')
    for _ in range(5):
        best = min(best, _run(lambda: a @ b, device)[0])
    return 2 * side**3 / best / 1e9
