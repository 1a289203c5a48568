"""What tensors do not say about a network: the norms' epsilon, output blocks. Found beside them where possible."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .tables import Grid


@dataclass(frozen=True)
class Network:
    """What is known about a checkpoint's network beside its tensors; ``None`` where nothing is.

    Attributes:
        grid: (h, w) of the position tables.
        norm_eps: Epsilon of the layer norms.
        out_indices: 0-based blocks that its segmentor reads.
    """

    grid: Grid | None = None
    norm_eps: float | None = None
    out_indices: tuple[int, ...] | None = None


_OFFICIAL_EPS = 1e-6


def known_network(meta: Mapping[str, Any], family: str) -> Network:
    """Reads what a file's own description, the config it was trained with, or the ``config.json`` beside it say.

    Args:
        meta: From :func:`.reading.read_state_dict`; written by a stranger, so nothing in it is taken to be sound.
        family: The family's name.

    Returns:
        What is known.
    """
    own = meta.get('metadata')
    if isinstance(own, Mapping) and 'grid' in own:
        return Network(_pair(own.get('grid')), _number(own.get('norm_eps')), _indices(own.get('out_indices')))
    config = meta.get('config')
    if family == 'hf':
        return _from_transformers(config) if isinstance(config, Mapping) else Network()
    if family in ('official', 'timm'):
        return Network(norm_eps=_OFFICIAL_EPS)
    # The norms' default: mmpretrain's BEiT brings the official one, elsewhere it is PyTorch's.
    return _from_training_config(meta.get('training_config'), _OFFICIAL_EPS if family == 'mmpretrain' else 1e-5)


def _from_transformers(config: Mapping[str, Any]) -> Network:
    size, patch = config.get('image_size'), config.get('patch_size')
    sides = _pair([size, size] if isinstance(size, int) else size)
    grid = (sides[0] // patch, sides[1] // patch) if sides and isinstance(patch, int) and patch > 0 else None
    out_indices = _indices(config.get('out_indices', config.get('segmentation_indices')))
    # Its k is block k - 2; the embedding (k = 1) is no block.
    blocks = tuple(k - 2 for k in out_indices) if out_indices and min(out_indices) >= 2 else None
    return Network(grid, _number(config.get('layer_norm_eps')), blocks)


def _from_training_config(text: Any, default_eps: float) -> Network:
    """Finds ``backbone=dict(...)`` in the text of a training config, which is parsed and never run."""
    if not isinstance(text, str) or len(text) > 1 << 20:
        return Network()
    try:
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Network()
    for call in calls:
        for keyword in call.keywords:
            if keyword.arg == 'backbone' and isinstance(keyword.value, ast.Call):
                values = {k.arg: k.value for k in keyword.value.keywords}
                norm = values.get('norm_cfg')
                eps = {k.arg: k.value for k in norm.keywords}.get('eps') if isinstance(norm, ast.Call) else None
                return Network(
                    norm_eps=default_eps if eps is None else _number(_literal(eps)),
                    out_indices=_indices(_literal(values.get('out_indices'))),
                )
    return Network()


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _pair(value: Any) -> Grid | None:
    pair = _indices(value)
    return (pair[0], pair[1]) if pair and len(pair) == 2 and min(pair) > 0 else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < 1 else None


def _indices(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, list | tuple) and value and all(type(item) is int for item in value):
        return tuple(value)
    return None
