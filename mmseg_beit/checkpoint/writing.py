"""Writing checkpoints in any family's format: atomically, and never over an existing file unless told to."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import InputError
from . import tables
from .convert import from_ours, to_ours
from .formats import FAMILIES
from .hf_config import IDENTITY_LAYER, append_identity_layer, transformers_config
from .network import Network, known_network
from .reading import read_state_dict
from .report import Report
from .tables import Grid, StateDict

_PICKLES = ('.pth', '.pt', '.bin')


def convert_checkpoint(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    to: str,
    *,
    trust: bool = False,
    overwrite: bool = False,
    source_grid: Grid | None = None,
    out_indices: Sequence[int] | None = None,
    norm_eps: float | None = None,
) -> Report:
    """Converts a checkpoint of any family to another's format.

    Args:
        source: What :func:`.reading.read_state_dict` reads.
        destination: ``.pth``, ``.pt``, ``.bin`` or ``.safetensors``; for ``hf`` a folder.
        to: Name of the family to write.
        trust: Runs whatever code a pickle brings.
        overwrite: Replaces ``destination``.
        source_grid: (h, w) of the position tables when the file cannot tell.
        out_indices: 0-based blocks a segmentor reads, for ``hf``, when the file cannot tell.
        norm_eps: Epsilon of the layer norms, for ``hf``, when the file cannot tell.

    Returns:
        What the source was and what the destination could not hold.

    Raises:
        MissingFileError: There is no such source.
        InputError: The source cannot be read, the destination is taken, or the family cannot hold the network.
    """
    if to not in FAMILIES:
        raise InputError(f'--to {to} is unknown: choose one of {", ".join(FAMILIES)}')
    destination = Path(destination)
    with _sentence(destination):
        _check_destination(destination, to, overwrite)
    state_dict, meta = read_state_dict(source, trust)
    ours, report = to_ours(state_dict, meta, str(source))
    known = known_network(meta, report.format)
    grid = tables.find_grid(ours, source_grid or known.grid, source=str(source))
    report.grid = grid
    ours = {name: tensor for name, tensor in ours.items() if not tables.is_index(name)}
    network = Network(grid, norm_eps or known.norm_eps, tuple(out_indices) if out_indices else known.out_indices)
    if to == 'hf':
        base = meta['config'] if report.format == 'hf' else {}
        if base.get('out_indices') and not out_indices:
            # Back to where it came from: its own counting stays, whatever it means.
            network = replace(network, out_indices=None)
        _write_transformers(ours, destination, network, report, base)
    else:
        _write_file(ours, destination, to, network, report)
    return report


def _check_destination(destination: Path, to: str, overwrite: bool) -> None:
    if to == 'hf':
        taken = destination.exists() and (not destination.is_dir() or any(destination.iterdir()))
        if destination.is_file():
            raise InputError(f'{destination} is a file: --to hf writes a folder, name another one')
    else:
        if destination.suffix not in (*_PICKLES, '.safetensors'):
            raise InputError(f'{destination} ends in no known way: use {", ".join(_PICKLES)} or .safetensors')
        if destination.is_dir():
            raise InputError(f'{destination} is a folder: name a file')
        taken = destination.exists() or destination.is_symlink()
    if taken and not overwrite:
        raise InputError(f'{destination} exists: pass --overwrite to replace it, or name another one')


def _write_file(ours: StateDict, destination: Path, to: str, network: Network, report: Report) -> None:
    family = FAMILIES[to]
    renamed, written = from_ours(ours, family, network.grid)
    _take_over(report, written)
    about: dict[str, Any] = dict(version=__version__, grid=network.grid and list(network.grid))
    if network.norm_eps:
        about['norm_eps'] = network.norm_eps
    if network.out_indices:
        about['out_indices'] = list(network.out_indices)
    if destination.suffix == '.safetensors':
        _save_safetensors(renamed, destination, dict(mmseg_beit=json.dumps(about)))
        return
    renamed = _separate(renamed)
    content: dict[str, Any] = renamed
    if family.wrapper:
        # The official segmentation files are mmsegmentation's of its time.
        segmentation = any(name.startswith('decode_head.') for name in renamed)
        wrapper = 'state_dict' if segmentation else family.wrapper
        content = {wrapper: renamed}
        if wrapper == 'state_dict':
            content['meta'] = dict(mmseg_beit=about) if to == 'mmseg_beit' else {}
    with _atomic(destination) as temporary:
        torch.save(content, temporary)


def _write_transformers(
    ours: StateDict, destination: Path, network: Network, report: Report, base: dict[str, Any]
) -> None:
    if 'backbone.ln1.weight' in ours and 'backbone.fc_norm.weight' in ours:
        report.leave_out('transformers has only one of the two norms', ['backbone.ln1'])
        ours = {name: tensor for name, tensor in ours.items() if not name.startswith('backbone.ln1.')}
    norm_eps, out_indices = network.norm_eps, network.out_indices
    if norm_eps is None:
        norm_eps = 1e-6
        report.notes.append('the epsilon of the layer norms is not in the file: 1e-06 is written (--norm-eps)')
    if report.content == 'segmentation' and out_indices is None and not base.get('out_indices'):
        # The official recipes', or even quarters for other depths.
        quarters = tuple((i + 1) * report.depth // 4 - 1 for i in range(4))
        out_indices = {12: (3, 5, 7, 11), 24: (7, 11, 15, 23)}.get(report.depth, quarters)
        report.notes.append(f'the blocks it reads are not in the file: {out_indices} are written (--out-indices)')
    config = transformers_config(ours, report, out_indices, norm_eps, base)
    tensors = append_identity_layer(ours, report.depth) if config.get(IDENTITY_LAYER) else ours
    renamed, written = from_ours(tensors, 'hf', network.grid)
    _take_over(report, written)
    if config.get(IDENTITY_LAYER):
        report.notes.append('an identity layer is appended: transformers cannot name the last block otherwise')
    with _sentence(destination):
        destination.mkdir(parents=True, exist_ok=True)
    _save_safetensors(renamed, destination / 'model.safetensors', {})
    with _atomic(destination / 'config.json') as temporary:
        temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + '\n')


def _take_over(report: Report, written: Report) -> None:
    for reason, names in written.left_out.items():
        report.leave_out(reason, names)
    report.notes += [note for note in written.notes if note not in report.notes]


def _save_safetensors(tensors: StateDict, path: Path, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    with _atomic(path) as temporary:
        save_file(_separate(tensors), temporary, metadata=dict(format='pt', **metadata))


def _separate(tensors: StateDict) -> StateDict:
    """Gives each tensor memory of its own, without what lies around it: safetensors demands it, pickles get smaller."""
    seen: set[int] = set()
    out: StateDict = {}
    for name, tensor in tensors.items():
        alone = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        if not alone or not tensor.is_contiguous() or tensor.data_ptr() in seen:
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        seen.add(tensor.data_ptr())
        out[name] = tensor.detach()
    return out


@contextlib.contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block succeeds, and vanishes when it fails."""
    with _sentence(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f'{path} cannot be written ({error.strerror or error}): check folder and disk space') from None


def inspect_checkpoint(
    source: str | os.PathLike[str], *, trust: bool = False, source_grid: Grid | None = None
) -> Report:
    """Says what a checkpoint is without loading or writing anything.

    Args:
        source: What :func:`.reading.read_state_dict` reads.
        trust: Runs whatever code a pickle brings.
        source_grid: (h, w) of the position tables when the file cannot tell.

    Returns:
        The report; its notes give parameters, data types, norms' epsilon, output blocks, and tensors with NaN.
    """
    state_dict, meta = read_state_dict(source, trust)
    ours, report = to_ours(state_dict, meta, str(source))
    known = known_network(meta, report.format)
    report.grid = tables.find_grid(ours, source_grid or known.grid, source=str(source))
    weights = {name: tensor for name, tensor in ours.items() if tensor.is_floating_point()}
    dtypes = sorted({str(tensor.dtype).removeprefix('torch.') for tensor in weights.values()})
    count = sum(tensor.numel() for tensor in weights.values())
    report.notes.insert(0, f'{len(state_dict)} tensors, {count:,} numbers, {", ".join(dtypes)}')
    if known.norm_eps:
        report.notes.append(f'layer norm epsilon {known.norm_eps:g}')
    if known.out_indices:
        report.notes.append(f'reads the blocks {", ".join(map(str, known.out_indices))}, counted from 0')
    broken = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        report.notes.append(f'NaN or infinity in {len(broken)} tensors, first {broken[0]}: do not use it')
    return report
