"""The one way from a checkpoint into a model."""

import os
from collections.abc import Mapping
from logging import INFO, Logger
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import InputError
from .convert import to_ours
from .fit import ROLES, Target, check_finite, fit
from .network import Network, known_network
from .reading import read_state_dict
from .report import Report
from .tables import Grid


def convert_state_dict(
    state_dict: Mapping[str, Tensor],
    target: Target | nn.Module,
    *,
    meta: Mapping[str, Any] | None = None,
    role: str = 'init',
    source: str = 'the checkpoint',
    source_grid: Grid | None = None,
) -> tuple[dict[str, Tensor], Report]:
    """Turns the tensors of a checkpoint of any family into what a model's ``load_state_dict`` takes.

    Args:
        state_dict: Tensors under the names of their file; not changed.
        target: The model, or its description.
        meta: What :func:`read_state_dict` says about the file.
        role: ``init`` or ``finetune``: heads may differ or be new; ``test``: they may not.
        source: Names the file in messages.
        source_grid: (h, w) the position tables were made for, when the file cannot tell (grids that are not square).

    Returns:
        The tensors under the model's names, and the report.

    Raises:
        InputError: The checkpoint belongs to no known family, does not fit the model, or holds NaN.
    """
    if role not in ROLES:
        raise InputError(f'role={role!r} is unknown: choose one of {", ".join(ROLES)}')
    target = target if isinstance(target, Target) else Target.of(target)
    ours, report = to_ours(state_dict, meta, source)
    known = known_network(meta or {}, report.format)
    own_family = report.format in ('mmseg_beit', 'mmseg', 'mmpretrain')
    fitted = fit(ours, target, report, role, source_grid or known.grid, own_family)
    _note_differences(known, target, report)
    check_finite(fitted, source)
    return fitted, report


def load_checkpoint(
    model: nn.Module,
    source: str | os.PathLike[str],
    *,
    role: str = 'init',
    trust: bool = False,
    logger: Logger | str | None = None,
    source_grid: Grid | None = None,
) -> Report:
    """Loads a checkpoint of any known family into a model and prints one summary.

    Args:
        model: A BEiT backbone, or a model that holds one.
        source: A file, a folder, ``timm://NAME``, ``hf://ORG/NAME`` or ``https://...``.
        role: ``init`` or ``finetune``: heads that do not fit are left out; ``test``: everything must fit.
        trust: Runs whatever code a pickle brings. Only for files whose author you trust.
        logger: Where the summary goes, in the main process only; ``None`` for mmengine's current logger.
        source_grid: (h, w) the position tables were made for, when the file cannot tell.

    Returns:
        The report, whose text is the summary.

    Raises:
        MissingFileError: There is no such file.
        InputError: The file cannot be read, or does not fit the model. The model is unchanged then.
    """
    state_dict, meta = read_state_dict(source, trust)
    fitted, report = convert_state_dict(
        state_dict, model, meta=meta, role=role, source=str(source), source_grid=source_grid
    )
    unexpected = model.load_state_dict(fitted, strict=False).unexpected_keys
    assert not unexpected, unexpected
    if is_main_process():
        print_log(str(report), logger or 'current', INFO)
    return report


def _note_differences(known: Network, target: Target, report: Report) -> None:
    """Notes where model and checkpoint differ in what tensors do not show."""
    if known.norm_eps and target.norm_eps and known.norm_eps != target.norm_eps:
        report.notes.append(
            f'layer norm epsilon {known.norm_eps:g} in the checkpoint, {target.norm_eps:g} in the model'
        )
    if report.content == 'segmentation' and known.out_indices and target.out_indices not in (None, known.out_indices):
        theirs, ours = (', '.join(map(str, blocks)) for blocks in (known.out_indices, target.out_indices))
        report.notes.append(f'its segmentor reads the blocks {theirs} (counted from 0), this model {ours}')
