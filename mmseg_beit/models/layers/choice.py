"""Equal ways to compute something, the fastest chosen by measurement: once for each shape, on the device at hand.

For GPUs, whose makers, generations and libraries differ too much for a rule, and for the libraries of a CPU. The
first call with a new key runs every candidate a few times on random tensors and keeps the name of the fastest. One
whose numbers are not those of the rule's is left out: some of the compilers and kernels meant here are young. Where
nothing can or may be measured a fixed rule decides instead: in graphs being traced, compiled or captured, under
counters of arithmetic, under ``torch.use_deterministic_algorithms``, and with ``MMSEG_BEIT_MEASURE=0`` in the
environment. Different runs may choose differently, so their numbers agree to rounding only.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .tracing import is_exporting, is_watched

Timer = Callable[[Callable[[], object], torch.device], float]

_LOG = logging.getLogger('mmseg_beit')
_WARM_UPS, _REPEATS = 2, 5
_MARGIN = 0.97
"""A later candidate must take at most this share of an earlier one's time: near ties go to the first."""
_APART = 0.1
"""Share of a result's norm that bfloat16 and sums in another order stay well below, and a wrong result does not."""

_CHOSEN: dict[Hashable, str] = {}
_CALLS: dict[Hashable, int] = {}
_LOCK = threading.Lock()


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Least seconds of a few runs after warm-ups: by the device's own clock on CUDA, else by the wall's."""
    for _ in range(_WARM_UPS):
        function()
    best = float('inf')
    if device.type == 'cuda':
        for _ in range(_REPEATS):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            function()
            end.record()
            end.synchronize()
            best = min(best, start.elapsed_time(end) / 1e3)
        return best
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begin)
    return best


def may_measure() -> bool:
    """Whether running something extra now is possible and allowed, see the module's text."""
    return not (
        os.environ.get('MMSEG_BEIT_MEASURE') == '0'
        or torch.are_deterministic_algorithms_enabled()
        or torch.compiler.is_compiling()
        or is_exporting()
        or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())
    )


def choose(
    key: Hashable,
    candidates: dict[str, Callable[[], Callable[[], object]]],
    device: torch.device,
    rule: str,
    patience: int = 0,
    timer: Timer = seconds_of,
) -> str:
    """The name of the fastest candidate.

    Args:
        key: What the times depend on: the operation, shapes, dtypes, whether a backward pass follows, the device.
        candidates: For each name a function that makes inputs of its own and returns the function to time. They run in
            a thread of their own, with torch's default modes (gradients on, no autocast) and without the caller's
            hooks. Put first whatever shall win a near tie. One that raises is left out, and one that returns other
            tensors than the rule's.
        device: Where they run.
        rule: The name to use where nothing is measured: while it cannot be, or before ``patience`` calls.
        patience: Calls with this key that go by the rule before the first measurement.
        timer: Seconds of a function on a device.

    Returns:
        One of the names.
    """
    # Not even the look-up: neither a graph nor a count may depend on what ran before it.
    if torch.compiler.is_compiling() or is_watched():
        return rule
    chosen = _CHOSEN.get(key)
    if chosen is not None and not torch.are_deterministic_algorithms_enabled():
        return chosen
    if not may_measure():
        return rule
    with _LOCK:
        if key in _CHOSEN:
            return _CHOSEN[key]
        _CALLS[key] = _CALLS.get(key, 0) + 1
        if _CALLS[key] <= patience:
            return rule
        seconds, failures = _measure(candidates, device, timer, rule)
        chosen = rule
        if seconds:
            chosen = next(iter(seconds))
            for name, value in seconds.items():
                if value < _MARGIN * seconds[chosen]:
                    chosen = name
        _CHOSEN[key] = chosen
        del _CALLS[key]
    told = [f'{name} {value * 1e3:.3f} ms' for name, value in seconds.items()]
    told += [f'{name} failed ({reason})' for name, reason in failures.items()]
    _LOG.info('chose %s for %s: %s', chosen, key, ', '.join(told))
    return chosen


def choices() -> dict[Hashable, str]:
    """What has been chosen in this process, by key."""
    return dict(_CHOSEN)


def forget_choices() -> None:
    """Forgets what was measured, and how often each key was met."""
    with _LOCK:
        _CHOSEN.clear()
        _CALLS.clear()


def _measure(
    candidates: dict[str, Callable[[], Callable[[], object]]], device: torch.device, timer: Timer, rule: str
) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of the candidates that run as the rule's does, in their order, and why the others do not."""
    seconds: dict[str, float] = {}
    failures: dict[str, str] = {}

    def run() -> None:
        expected = None
        with torch.cuda.device(device) if device.type == 'cuda' else nullcontext():
            for name in sorted(candidates, key=lambda name: name != rule):  # The rule's first.
                try:
                    function = candidates[name]()
                    result = function()
                    if name == rule:
                        expected = result
                    elif expected is not None and not _agree(result, expected):
                        raise ArithmeticError(f'its numbers are not those of {rule}')
                    del result
                    seconds[name] = timer(function, device)
                except Exception as error:  # Out of memory, no compiler, a shape that its kernel refuses, ...
                    failures[name] = (str(error).strip() or type(error).__name__).splitlines()[0][:160]

    # A fresh thread has none of the caller's thread-local state: activation checkpointing hooks into every tensor that
    # autograd saves, autocast and inference mode change what is run.
    thread = threading.Thread(target=run, name='mmseg_beit measurement')
    thread.start()
    thread.join()
    return {name: seconds[name] for name in candidates if name in seconds}, failures


def _agree(result: object, expected: object) -> bool:
    """Whether all tensors of two results are the same to rounding, by their norms."""
    pairs = zip(tree_leaves(result), tree_leaves(expected), strict=True)
    return all(
        bool((ours.float() - theirs.float()).norm() <= _APART * theirs.float().norm())
        for ours, theirs in pairs
        if isinstance(theirs, Tensor)
    )
