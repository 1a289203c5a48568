"""From a config and a checkpoint to a model that is ready to predict."""

import inspect
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import nn

from ..errors import InputError
from ..registry import DATASETS, MODELS
from .checkpoint import load_for_inference
from .config import apply_options, builder_sentences, check_config, load_config
from .exported import is_exported, use_exported


def init_model(
    config: str | os.PathLike[str] | Config,
    checkpoint: str | os.PathLike[str] | None = None,
    device: str | torch.device = 'auto',
    cfg_options: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> nn.Module:
    """Builds a segmentor, loads its weights and makes it ready to predict.

    It is in evaluation mode, its batch norms folded into the convolutions before them; ``train()`` takes that back.

    The caller's default scope stays what it was.

    Args:
        config: A config file, or a config (not changed).
        checkpoint: A file, a folder, ``timm://NAME``, ``hf://ORG/NAME`` or ``https://...``, or an exported ``.onnx`` or
            ``.pt2`` file; ``None``: random weights.
        device: ``'auto'`` (a GPU if there is one), ``'cpu'``, ``'cuda'`` or ``'cuda:N'``.
        cfg_options: Dotted names of fields of the config and their new values.
        trust: Runs whatever code a pickled checkpoint brings. Only for files whose author you trust.

    Returns:
        The model, with ``cfg`` (its config) and ``dataset_meta``: ``classes`` (K names), ``palette`` (K RGB colours or
        ``None``) and ``reduce_zero_label``, from the checkpoint, else from the config's data set.

    Raises:
        MissingFileError: The config or the checkpoint does not exist.
        InputError: The config, an option, the checkpoint or the device cannot be used.

    Example:
        >>> from mmseg_beit.apis import init_model
        >>> model = init_model('config.py', 'checkpoint.pth', device='cpu')
        >>> model.dataset_meta['classes']
        ('sky', 'road', 'tree')
        >>> model.training
        False
    """
    target = resolve_device(device)
    if isinstance(config, Config):
        config = config.copy()
        if cfg_options:
            apply_options(config, cfg_options)
    elif isinstance(config, str | os.PathLike):
        config = load_config(config, cfg_options)
    else:
        raise InputError(f'a {type(config).__name__} is no config: give a file or an mmengine Config')
    check_config(config)
    exported = is_exported(checkpoint)
    if exported:
        use_exported(config, checkpoint)
    with scope_of(config), builder_sentences():
        model = MODELS.build(config.model)
        if not hasattr(model, 'predict') or not hasattr(model, 'out_channels'):
            raise InputError(f'model.type={config.model.type} is no segmentor: name a config of one')
        described = load_for_inference(model, checkpoint, trust) if checkpoint is not None and not exported else {}
        model.dataset_meta = _dataset_meta(model, [described, _meta_of_config(config)])
    model.cfg = config
    model = model.to(target).eval()
    return model.fuse() if hasattr(model, 'fuse') else model


def resolve_device(device: str | torch.device) -> torch.device:
    """The device for a name, checked to be there.

    Raises:
        InputError: It is unknown or not there.
    """
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError):
        target = None
    if target is None or target.type not in ('cpu', 'cuda'):
        raise InputError(f'device {device} is unknown: use auto, cpu, cuda or cuda:N')
    if target.type == 'cuda':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise InputError(f'device {device}: there is no GPU that PyTorch can use here, use cpu')
        if (target.index or 0) >= count:
            raise InputError(f'device {device}: this machine has {count} GPUs, use cuda:0 to cuda:{count - 1}')
    return target


@contextmanager
def scope_of(config: Config) -> Iterator[None]:
    """Inside, plain type names mean what the config means by them; ours where it does not say."""
    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmseg_beit'):
        yield


def test_dataset(config: Config) -> Mapping[str, Any]:
    """The config's description of its test data (the first, where several are joined); empty if there is none."""
    loader = config.get('test_dataloader') or config.get('val_dataloader') or {}
    dataset = loader.get('dataset') or {}
    while 'pipeline' not in dataset and (dataset.get('dataset') or dataset.get('datasets')):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return dataset


def _meta_of_config(config: Config) -> dict[str, Any]:
    dataset = test_dataset(config)
    kind = dataset.get('type')
    cls = DATASETS.get(kind) if isinstance(kind, str) else kind
    # METAINFO is all that the class knows; a class that takes a part of it by default has DEFAULT_METAINFO.
    known = getattr(cls, 'METAINFO', None) or {}
    chosen = {**(getattr(cls, 'DEFAULT_METAINFO', None) or {}), **(dataset.get('metainfo') or {})}
    meta = {**known, **chosen}
    classes, palette = list(known.get('classes') or ()), known.get('palette')
    if palette and 'palette' not in chosen and set(meta['classes']) <= set(classes):
        meta['palette'] = [palette[classes.index(name)] for name in meta['classes']]
    default = inspect.signature(cls).parameters.get('reduce_zero_label') if cls is not None else None
    fallback = default.default if default is not None and isinstance(default.default, bool) else False
    meta['reduce_zero_label'] = dataset.get('reduce_zero_label', fallback)
    return meta


def _dataset_meta(model: nn.Module, candidates: list[dict[str, Any]]) -> dict[str, Any]:
    """The first description whose number of classes is the model's; numbered names if there is none."""
    num_classes = model.num_classes
    reduce_zero_label = next((meta['reduce_zero_label'] for meta in candidates if 'reduce_zero_label' in meta), False)
    for meta in candidates:
        classes = meta.get('classes')
        if isinstance(classes, list | tuple) and len(classes) == num_classes:
            return {**meta, 'classes': tuple(map(str, classes)), 'palette': meta.get('palette'),
                    'reduce_zero_label': bool(reduce_zero_label)}  # fmt: skip
    print_log(
        f"neither checkpoint nor config names the model's {num_classes} classes: they are numbered",
        'current',
        logging.WARNING,
    )
    names = tuple(f'class {k}' for k in range(num_classes))
    return dict(classes=names, palette=None, reduce_zero_label=bool(reduce_zero_label))
