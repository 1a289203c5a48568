"""A checkpoint for inference: weights that must all fit, and what it says about its data."""

import os
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from ..checkpoint import convert_state_dict, read_state_dict
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
    state_dict, meta = read_state_dict(source, trust)
    if all(hasattr(model.backbone, part) for part in ('patch_embed', 'layers', 'cls_token')):
        fitted, report = convert_state_dict(state_dict, model, meta=meta, role='test', source=str(source))
        model.load_state_dict(fitted, strict=False)
        print_log(str(report), 'current')
    else:  # mmseg's other backbones
        _load_by_name(model, state_dict, source)
    return meta['dataset_meta']


def _load_by_name(model: nn.Module, state_dict: dict[str, Tensor], source: str | os.PathLike[str]) -> None:
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
