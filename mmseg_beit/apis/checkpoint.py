"""A checkpoint for inference: weights that must all fit, and what it says about its data."""

import os
from typing import Any

import torch
from torch import nn

from ..checkpoint import load_checkpoint, read_state_dict
from ..checkpoint.safety import ZIP_MAGIC, torch_allow_list
from ..errors import InputError


def load_for_inference(model: nn.Module, source: str | os.PathLike[str], trust: bool = False) -> dict[str, Any]:
    """Loads a checkpoint of any known family into a segmentor; every tensor of the model must be in it.

    Args:
        model: The segmentor, changed in place.
        source: A file, a folder, ``timm://NAME``, ``hf://ORG/NAME`` or ``https://...``.
        trust: Runs whatever code a pickle brings. Only for files whose author you trust.

    Returns:
        What it says about its data set: some or none of ``classes``, ``palette``, ``reduce_zero_label``.

    Raises:
        MissingFileError: There is no such file.
        InputError: The file cannot be read, or is of another model.
    """
    if any(hasattr(module, 'fit_state_dict') for module in model.modules()):
        load_checkpoint(model, source, role='test', trust=trust)
    else:  # mmseg's other backbones
        _load_by_name(model, source, trust)
    return _dataset_meta(read_state_dict(source, trust)[1]['path'], trust)


def _load_by_name(model: nn.Module, source: str | os.PathLike[str], trust: bool) -> None:
    state_dict, _ = read_state_dict(source, trust)
    own = model.state_dict()
    missing = [name for name in own if name not in state_dict and not name.endswith('num_batches_tracked')]
    shaped = [name for name in own if name in state_dict and state_dict[name].shape != own[name].shape]
    for names, what in ((missing, 'is missing'), (shaped, 'has another shape')):
        if names:
            raise InputError(
                f'checkpoint {source} is of another model (tensor {names[0]} {what}, one of {len(names)}): '
                f'use the config it was trained with'
            )
    model.load_state_dict(state_dict, strict=False)


def _dataset_meta(path: str, trust: bool) -> dict[str, Any]:
    """The data set's description in an OpenMMLab checkpoint; the file was read and checked before."""
    with open(path, 'rb') as file:
        is_archive = file.read(4) == ZIP_MAGIC
    if not is_archive:
        return {}
    with torch.serialization.safe_globals(torch_allow_list()):
        content = torch.load(path, map_location='cpu', weights_only=not trust, mmap=True)
    meta = content.get('meta') if isinstance(content, dict) else None
    if not isinstance(meta, dict):
        return {}
    if isinstance(meta.get('dataset_meta'), dict):
        return dict(meta['dataset_meta'])
    # Versions of mmsegmentation before 1.0 wrote these.
    return {key.lower(): meta[key] for key in ('CLASSES', 'PALETTE') if meta.get(key)}
