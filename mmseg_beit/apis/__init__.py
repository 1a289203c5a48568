"""What scripts and notebooks import: ``init_model``, ``inference_model``, ``Inferencer``.

Names are loaded when they are first used, so that a tool that needs only one module of this package starts fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference import Inferencer, inference_model
    from .model import init_model
    from .result import SegResult

__all__ = ['Inferencer', 'SegResult', 'inference_model', 'init_model']

_HOMES = {'Inferencer': 'inference', 'inference_model': 'inference', 'init_model': 'model', 'SegResult': 'result'}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'.{_HOMES[name]}', __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
