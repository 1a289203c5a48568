"""Safe reading of a checkpoint: from what a user names to a dictionary of tensors.

Safetensors are read by the safetensors library, pickles by PyTorch with ``weights_only=True`` after :mod:`.safety` has
checked them. Large files are mapped, so optimizer states and heads that nobody asks for are never read. Whatever is
wrong with a file is one sentence.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .formats import strip_prefixes
from .safety import STAND_INS, ZIP_MAGIC, check_pickle
from .sources import resolve
from .tables import is_index

_WRAPPERS = ('state_dict', 'model', 'module', 'model_state_dict', 'teacher', 'model_ema', 'state_dict_ema')
_MAX_HEADER = 25 << 20


def read_state_dict(source: str | os.PathLike[str], trust: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads the tensors of a checkpoint of any kind, under the names the file gives them.

    Args:
        source: A file, a folder with ``model.safetensors`` or ``pytorch_model.bin``, ``timm://NAME``, ``hf://ORG/NAME``
        or
            ``https://...``.
        trust: Runs whatever code a pickle brings. Only for files whose author you trust.

    Returns:
        The tensors by name, and what else is known: ``path``, ``wrapper`` (the key that held the tensors), ``config``
        (content of a ``config.json`` beside them), ``metadata`` (what our own files say about themselves) and
        ``training_config`` (the text that mmengine leaves in a checkpoint) and ``dataset_meta`` (some or none of
        ``classes``, ``palette`` and what else the data set said; a stranger's, so check before use).

    Raises:
        MissingFileError: There is no such file.
        InputError: The file cannot be read, is not a checkpoint, or wants to run code.
    """
    paths = resolve(source)
    meta: dict[str, Any] = dict(path=str(paths[0]), wrapper=None, metadata={}, config={})
    meta.update(training_config=None, dataset_meta={})
    tensors: dict[str, Any] = {}
    for path in paths:
        if _kind(path) == 'safetensors':
            part, metadata = _read_safetensors(path)
        else:
            content = _read_pickle(path, trust)
            part, meta['wrapper'] = _unwrap(path, content)
            metadata = _read_meta(content, meta)
        meta['metadata'].update(metadata)
        tensors.update(part)
    names = strip_prefixes(tensors)
    state_dict = {name: tensors[original] for name, original in names.items()}
    for name, tensor in state_dict.items():
        check_tensor(str(paths[0]), name, tensor)
    meta['config'] = _read_config(paths[0].parent / 'config.json')
    return state_dict, meta


def check_tensor(path: str, name: str, tensor: Any) -> None:
    """Refuses what is not a plain tensor of floating point numbers (or a counter, or an index buffer).

    Raises:
        InputError: The entry is something else.
    """
    if not isinstance(tensor, Tensor):
        raise InputError(
            f'{path}: entry {name!r} is a {type(tensor).__name__}, not a tensor: this is no checkpoint of weights'
        )
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == 'meta':
        raise InputError(f'{path}: tensor {name!r} is sparse, quantized or without data: save plain dense tensors')
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(
            f'{path}: tensor {name!r} claims {tensor.numel()} numbers but the file holds fewer: it is damaged'
        )
    counter = is_index(name) or name.endswith('num_batches_tracked')
    if not tensor.dtype.is_floating_point and not counter:
        kind = str(tensor.dtype).removeprefix('torch.')
        raise InputError(
            f'{path}: tensor {name!r} holds {kind} numbers where weights are floating point: it is no checkpoint'
        )


def _kind(path: Path) -> str:
    """``safetensors`` or ``pickle``, by the first bytes; anything else is a sentence about what the file is instead."""
    try:
        size = path.stat().st_size
        with path.open('rb') as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f'checkpoint {path} cannot be read ({error.strerror}): check its permissions') from None
    if not head:
        raise InputError(f'checkpoint {path} is empty: download or copy it again')
    text = head.lstrip().lower()
    if head.startswith(ZIP_MAGIC):
        return 'pickle'
    if len(head) > 8 and head[8:9] == b'{':
        length = int.from_bytes(head[:8], 'little')
        if length > min(size - 8, _MAX_HEADER):
            raise InputError(
                f'{path} begins like safetensors but its header claims {length} bytes of {size}: it was cut short or '
                f'damaged, download it again'
            )
        return 'safetensors'
    if text.startswith((b'<!doctype', b'<html', b'<?xml', b'<')):
        raise InputError(f'{path} is a web page, not a checkpoint: delete it and download the file itself')
    if head.startswith(b'version https://git-lfs'):
        raise InputError(f'{path} is a Git LFS pointer, not the checkpoint: fetch the file with git lfs pull')
    if text.startswith((b'{', b'[')):
        raise InputError(f'{path} is JSON, not a checkpoint: name the file that holds the weights')
    # Pickles of protocol 2 and newer; then of the oldest, which torch.save never wrote, so that they are refused by
    # name.
    if head[0] == 0x80 or head[:1] in (b'c', b'(', b'}', b']'):
        return 'pickle'
    raise InputError(
        f'{path} is neither a PyTorch checkpoint nor safetensors: name the checkpoint, or download it again'
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with path.open('rb') as file:
            length = int.from_bytes(file.read(8), 'little')
            json.loads(file.read(length), object_pairs_hook=_refuse_repeated)
        with safe_open(path, framework='pt', device='cpu') as file:
            own = json.loads((file.metadata() or {}).get('mmseg_beit', '{}'))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, own if isinstance(own, dict) else {}
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError, RuntimeError) as error:
        reason = str(error).split('\n')[0].rstrip('.')
        raise InputError(f'{path} is damaged safetensors ({reason}): download or copy it again') from None


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError('its header names a tensor twice')
    return content


def _read_pickle(path: Path, trust: bool) -> Any:
    if trust:
        with _sentence(path):
            return torch.load(path, map_location='cpu', weights_only=False)
    check_pickle(path)
    with path.open('rb') as file:
        is_archive = file.read(4) == ZIP_MAGIC
    with _sentence(path), torch.serialization.safe_globals(list(STAND_INS.values())):
        return torch.load(path, map_location='cpu', weights_only=True, mmap=is_archive)


@contextlib.contextmanager
def _sentence(path: Path) -> Any:
    try:
        yield
    # A damaged file can fail in PyTorch in any way; the first line says how.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
        raise InputError(f'{path} cannot be read ({reason[:200]}): download or copy it again') from None


def _unwrap(path: Path, content: Any) -> tuple[dict[str, Any], str | None]:
    """The dictionary of tensors inside what a file holds, and the key that held it."""
    wrapper: str | None = None
    for _ in range(5):
        if not isinstance(content, dict):
            break
        inner = next((key for key in _WRAPPERS if isinstance(content.get(key), dict) and content[key]), None)
        if inner is not None:
            wrapper = wrapper or inner
            content = content[inner]
        elif any(isinstance(value, Tensor) for value in content.values()):
            if not all(isinstance(name, str) for name in content):
                raise InputError(f'{path} holds tensors under names that are not text: it is no checkpoint of weights')
            return content, wrapper
        else:
            break
    kind = f'a {type(content).__name__}'
    if isinstance(content, dict):
        kind = f'a dictionary of {", ".join(repr(key)[:40] for key in list(content)[:4]) or "nothing"}'
    raise InputError(f'{path} holds {kind} where a dictionary of tensors is expected: name a checkpoint of weights')


def _read_meta(content: Any, meta: dict[str, Any]) -> dict[str, Any]:
    """What our own files say about themselves; puts what mmengine and mmcv leave beside the tensors into ``meta``."""
    beside = content.get('meta') if isinstance(content, dict) else None
    if not isinstance(beside, dict):
        return {}
    meta['training_config'] = beside.get('cfg')
    if isinstance(beside.get('dataset_meta'), dict):
        meta['dataset_meta'] = dict(beside['dataset_meta'])
    else:  # mmsegmentation before 1.0
        meta['dataset_meta'] = {key.lower(): beside[key] for key in ('CLASSES', 'PALETTE') if beside.get(key)}
    own = beside.get('mmseg_beit')
    return own if isinstance(own, dict) else {}


def _read_config(path: Path) -> dict[str, Any]:
    """A ``config.json`` beside the weights; an unreadable one is as good as none."""
    try:
        if path.stat().st_size > 1 << 20:
            return {}
        config = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}
