"""Exported files where a checkpoint can be named."""

import os
from typing import Any

from ..errors import InputError

FORMATS = {'onnx': '.onnx', 'pt2': '.pt2'}
"""Suffix of each format."""


def use_exported(config: Any, path: str | os.PathLike[str]) -> None:
    """Puts an exported file in the place of a config's model, in the config.

    Args:
        config: A segmentor's config; its preprocessor and ``test_cfg`` stay in force.
        path: A file of :func:`~mmseg_beit.apis.export.export_model`.
    """
    model = config.model
    config.model = dict(
        type='ExportedSegmentor',
        path=str(path),
        data_preprocessor=model.get('data_preprocessor') or config.get('data_preprocessor'),
        test_cfg=model.get('test_cfg'),
    )


def is_exported(path: str | os.PathLike[str] | None) -> bool:
    """Whether a name of a checkpoint is that of an exported file, by its suffix."""
    return str(path).endswith(tuple(FORMATS.values()))


def check_amp_of(path: str | os.PathLike[str] | None) -> None:
    """Refuses mixed precision for exported files.

    Raises:
        InputError: The file is an exported one.
    """
    if is_exported(path):
        raise InputError(f'{path} computes in the precision it was exported in: leave --amp out')
