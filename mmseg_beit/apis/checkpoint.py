"""A checkpoint for inference: weights that must all fit, and what it says about its data."""

import os
from typing import Any

from torch import nn

from ..checkpoint import load_checkpoint, read_state_dict
from ..checkpoint.reading import _read_pickle
from ..checkpoint.safety import ZIP_MAGIC
from ..checkpoint.sources import resolve
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
    if all(hasattr(model.backbone, part) for part in ('patch_embed', 'layers', 'cls_token')):
        load_checkpoint(model, source, role='test', trust=trust)
    else:  # mmseg's other backbones
        _load_by_name(model, source, trust)
    return _dataset_meta(source, trust)


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


def _dataset_meta(source: str | os.PathLike[str], trust: bool) -> dict[str, Any]:
    """The data set's description in an OpenMMLab checkpoint; the file was read and checked before."""
    path = resolve(source)[0]
    with path.open('rb') as file:
        if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
            return {}
    content = _read_pickle(path, trust)
    meta = content.get('meta') if isinstance(content, dict) else None
    if not isinstance(meta, dict):
        return {}
    if isinstance(meta.get('dataset_meta'), dict):
        return dict(meta['dataset_meta'])
    # Versions of mmsegmentation before 1.0 wrote these.
    return {key.lower(): meta[key] for key in ('CLASSES', 'PALETTE') if meta.get(key)}
