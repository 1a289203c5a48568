"""``torch.compile`` of a model's networks by mmengine's config field ``compile``.

mmengine compiles the whole ``train_step``: data samples, logging and optimizer, which torch cannot trace. What there is
to gain lies in the networks, which it takes without a graph break.
"""

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from ..errors import InputError

PARTS = ('backbone', 'neck', 'decode_head', 'auxiliary_head')


def compile_networks(model: nn.Module, options: Mapping[str, Any]) -> list[str]:
    """Lets a model's networks run compiled while they train.

    Predictions run as they are, since each picture may have a size of its own. Parameters and their names stay.

    Args:
        model: With some of :data:`PARTS`, without wrapper.
        options: Arguments of ``torch.compile``.

    Returns:
        Names of the parts.

    Raises:
        InputError: There is no such part, or ``torch.compile`` does not take the options.
    """
    parts = {name: getattr(model, name) for name in PARTS if isinstance(getattr(model, name, None), nn.Module)}
    if not parts:
        raise InputError(f'compile has nothing to do: {type(model).__name__} has no {", ".join(PARTS)}; leave it out')
    for name, part in parts.items():
        for module in part if isinstance(part, nn.ModuleList) else (part,):
            # A method, so that a copy of the module computes with the copy's weights.
            forward = _compiled_in_training(module.forward.__func__, name, options)
            module.forward = types.MethodType(forward, module)
    return list(parts)


def _compiled_in_training(eager: Callable[..., Any], name: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    try:
        compiled = torch.compile(eager, **options)
    except (TypeError, RuntimeError) as error:
        raise InputError(f'compile={dict(options)} is not what torch.compile takes: {_reason(error)}') from error

    @functools.wraps(eager)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return eager(self, *args, **kwargs)
        try:
            return compiled(self, *args, **kwargs)
        except TorchDynamoException as error:
            raise InputError(
                f'torch cannot compile model.{name} here ({_reason(error)}): leave compile out of the config'
            ) from error

    return forward


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # Of a backend's failure the first line names the backend only.
    return ' '.join(line.strip() for line in lines[: 2 if lines[0].endswith(':') else 1]).rstrip('.')[:300]
