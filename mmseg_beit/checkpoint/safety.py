"""What a pickled checkpoint may contain, and a check of the whole file before anything of it is built.

A pickle is a program. Weights need very little of what it can do: this module holds the allow-list of names (the only
one in the project) and walks a file's program with inert stand-ins in place of everything it asks for. A name outside
the list is refused by name. Claims are checked as they are made: a tensor may not claim more bytes than its file holds,
so a small file cannot ask for a large allocation. Afterwards PyTorch reads the file, with ``weights_only=True`` and the
same list.
"""

import io
import math
import pickle
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError

STORAGE_BYTES = {
    'DoubleStorage': 8,
    'FloatStorage': 4,
    'HalfStorage': 2,
    'BFloat16Storage': 2,
    'LongStorage': 8,
    'IntStorage': 4,
    'ShortStorage': 2,
    'CharStorage': 1,
    'ByteStorage': 1,
    'BoolStorage': 1,
}
"""Kinds of storage a checkpoint may hold, and their bytes per element."""

TENSOR_BUILDERS = ('_rebuild_tensor', '_rebuild_tensor_v2', '_rebuild_parameter')
"""What rebuilds a plain tensor in ``torch._utils``."""


class Inert:
    """Stands for an object that training left in a checkpoint and weights do not need; holds nothing, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _history_method(owner: Any, name: str) -> None:
    # mmengine's HistoryBuffer pickles its methods by getattr: the only use of getattr that is let through.
    if not (isinstance(owner, type) and issubclass(owner, Inert)):
        raise pickle.UnpicklingError('getattr is allowed for mmengine.logging.history_buffer.HistoryBuffer only')


def _latin1(text: str, encoding: str) -> Inert:
    if encoding != 'latin1':
        raise pickle.UnpicklingError('_codecs.encode is allowed for latin1 only')
    return Inert()


def _set(items: Any = ()) -> Inert:
    _check_keys(list(items))
    return Inert()


_ALLOWED: dict[str, Callable[..., Any]] = {
    # Left by training scripts: options, logs, random states and metrics. None of them is needed, none is built.
    'argparse.Namespace': Inert,
    'pathlib.PosixPath': Inert,
    'mmengine.logging.history_buffer.HistoryBuffer': Inert,
    'builtins.set': _set,
    'builtins.frozenset': _set,
    '__builtin__.getattr': _history_method,
    'builtins.getattr': _history_method,
    'numpy.ndarray': Inert,
    'numpy.dtype': Inert,
    'numpy.core.multiarray._reconstruct': Inert,
    'numpy._core.multiarray._reconstruct': Inert,
    'numpy.core.multiarray.scalar': Inert,
    'numpy._core.multiarray.scalar': Inert,
    '_codecs.encode': _latin1,
}


def _stand_in(full_name: str, thing: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a stand-in that bears the name it stands for: by that name PyTorch's allow-list knows it."""
    module, _, name = full_name.rpartition('.')
    if thing is Inert:
        return type(name, (Inert,), dict(__module__=module))

    def call(*args: Any) -> Any:
        return thing(*args)

    call.__module__, call.__name__, call.__qualname__ = module, name, name
    return call


STAND_INS = {name: _stand_in(name, thing) for name, thing in _ALLOWED.items()}
"""The allow-list, with what torch needs: names that are let through, and the harmless thing that takes their place."""

_TORCH_VALUES = {f'torch.{name}' for name in ('float64', 'float32', 'float16', 'bfloat16', 'int64', 'Size', 'device')}

# Instructions that weights never use and that could cost memory or reach outside the file.
_FORBIDDEN = (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)

ZIP_MAGIC = b'PK\x03\x04'
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_PICKLE = 256 << 20


class _Tensor:
    """Stand-in for a tensor; refuses the old way of giving it another storage."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError('a tensor is given another storage')


class _Storage:
    """Stand-in for a storage of some number of elements."""

    def __init__(self, numel: int) -> None:
        self.numel = numel


class _Walker(pickle._Unpickler):
    """Runs a pickle's program on stand-ins. Python's own unpickler in Python, whose memory follows the file's size.

    Args:
        file: The program.
        check_storage: Called with (key, bytes) of each storage that is asked for; raises if the file has no such bytes.
    """

    dispatch = {code: run for code, run in pickle._Unpickler.dispatch.items() if bytes([code]) not in _FORBIDDEN}

    def __init__(self, file: BinaryIO, check_storage: Callable[[str, int], None]) -> None:
        super().__init__(file, encoding='latin1')
        self._check_storage = check_storage

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:
            # Old protocols write Python 2's names; the refusal should give today's.
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f'{module}.{name}'
        if full in STAND_INS:
            return STAND_INS[full]
        if full == 'collections.OrderedDict':
            return OrderedDict
        if full in _TORCH_VALUES:
            return Inert
        if module == 'torch._utils' and name in TENSOR_BUILDERS:
            return _rebuild_parameter if name == '_rebuild_parameter' else _rebuild_tensor
        if module == 'torch' and name in STORAGE_BYTES:
            return name
        raise ForbiddenNameError(full)

    def persistent_load(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == 'storage'):
            raise pickle.UnpicklingError('an object outside the file is asked for')
        _, kind, key, _, numel = pid[:5]
        if kind not in STORAGE_BYTES or not isinstance(numel, int) or numel < 0 or not isinstance(key, str):
            raise pickle.UnpicklingError('a storage is described wrongly')
        if len(pid) > 5 and pid[5] is not None:
            raise pickle.UnpicklingError('a storage is a view of another')
        self._check_storage(key, numel * STORAGE_BYTES[kind])
        return _Storage(numel)

    # A dictionary's key of nested tuples takes exponential time to hash; weights have names, optimizers numbers.
    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_additems(self) -> None:
        _check_keys(self.stack)
        super().load_additems()

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_frozenset(self) -> None:
        _check_keys(self.stack)
        super().load_frozenset()

    def load_reduce(self) -> None:
        # OrderedDict(pairs) hashes its keys too; torch writes it empty and fills it item by item.
        if self.stack[-2] is OrderedDict and self.stack[-1] not in ((), ([],)):
            raise pickle.UnpicklingError('an ordered dictionary is built in an unusual way')
        super().load_reduce()

    for _code, _run in (
        (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems),
        (pickle.ADDITEMS, load_additems),
        (pickle.DICT, load_dict),
        (pickle.FROZENSET, load_frozenset),
        (pickle.REDUCE, load_reduce),
    ):
        dispatch[_code[0]] = _run
    del _code, _run


class ForbiddenNameError(Exception):
    """A pickle asks for a name outside the allow-list."""


def _check_keys(keys: list[Any]) -> None:
    if not all(isinstance(key, str | int | float | bytes | type(None)) for key in keys):
        raise pickle.UnpicklingError('a dictionary has keys that are neither text nor numbers')


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Tensor:
    numbers = (offset, *size, *stride)
    if not (isinstance(storage, _Storage) and all(isinstance(n, int) and n >= 0 for n in numbers)):
        raise pickle.UnpicklingError('a tensor is described wrongly')
    # Equal strides of zero let one number pose as a trillion.
    if math.prod(size) + offset > storage.numel:
        raise pickle.UnpicklingError('a tensor claims more elements than the file holds for it')
    return _Tensor()


def _rebuild_parameter(data: Any, *rest: Any) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise pickle.UnpicklingError('a parameter is described wrongly')
    return _Tensor()


def check_pickle(path: Path) -> None:
    """Checks a file of ``torch.save``, in the zip form or in the older one, without building anything of it.

    Args:
        path: The file; it is a zip archive or a pickle.

    Raises:
        InputError: The file asks for a name outside the allow-list, claims more than it holds, or is damaged.
    """
    try:
        with path.open('rb') as file:
            # What torch.load goes by: another test here could be led to check what torch does not read.
            is_archive = file.read(4) == ZIP_MAGIC
        if is_archive:
            _check_archive(path)
        else:
            _check_legacy(path)
    except InputError:
        raise
    except ForbiddenNameError as error:
        raise InputError(
            f'{path} wants to use {error} while it is read, which weights do not need, so it was not run: get the file '
            f'as safetensors, or pass --trust-checkpoint (trust=True) if you trust its author'
        ) from None
    except zipfile.BadZipFile:
        raise InputError(f'{path} is damaged or was cut short: download or copy it again') from None
    except RecursionError:
        raise InputError(f'{path} is nested too deeply for a checkpoint: get the file again') from None
    # A program for an unpickler can fail in any way that Python can.
    except Exception as error:
        reason = str(error).rstrip('.') or type(error).__name__
        raise InputError(f'{path} is no readable checkpoint ({reason}): download or copy it again') from None


def _check_archive(path: Path) -> None:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if any('/code/' in name or name.endswith('constants.pkl') for name in names):
            raise InputError(f'{path} is a TorchScript program, not a checkpoint: save its state_dict with torch.save')
        if len(set(names)) != len(names):
            raise InputError(f'{path} holds two entries of one name, which torch.save never writes: get the file again')
        if sum(entry.file_size for entry in entries) > size or any(
            entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries
        ):
            raise InputError(f'{path} claims more bytes than it holds, or is compressed: it is not from torch.save')
        roots = {name.partition('/')[0] for name in names}
        root = next(iter(roots), '')
        by_name = {entry.filename: entry for entry in entries}
        program = by_name.get(f'{root}/data.pkl')
        if len(roots) != 1 or program is None:
            raise InputError(f'{path} is a zip archive but no checkpoint (no data.pkl in it): name the checkpoint file')

        def check_storage(key: str, num_bytes: int) -> None:
            entry = by_name.get(f'{root}/data/{key}')
            if entry is None or entry.file_size < num_bytes:
                held = 0 if entry is None else entry.file_size
                raise pickle.UnpicklingError(f'a tensor claims {num_bytes} bytes where the file holds {held}')

        if program.file_size > _MAX_PICKLE:
            raise InputError(f'{path} has a description of {program.file_size} bytes, far too long for a checkpoint')
        _Walker(io.BytesIO(archive.read(program)), check_storage).load()


def _check_legacy(path: Path) -> None:
    size = path.stat().st_size
    claimed: dict[str, int] = {}

    def check_storage(key: str, num_bytes: int) -> None:
        if num_bytes > size:
            raise pickle.UnpicklingError(f'a tensor claims {num_bytes} bytes where the file has {size}')
        claimed[key] = max(num_bytes, claimed.get(key, 0))

    def walk(file: BinaryIO) -> Any:
        return _Walker(file, check_storage).load()

    with path.open('rb') as file:
        if walk(file) != _LEGACY_MAGIC:
            raise InputError(f'{path} is a pickle but not one that torch.save wrote: name the checkpoint file')
        for _ in ('protocol version', 'system', 'object'):
            walk(file)
        keys = walk(file)
        if not isinstance(keys, list) or sorted(keys) != sorted(claimed):
            raise pickle.UnpicklingError('its list of storages does not match its tensors')
        # Each storage follows as 8 bytes of length and its content.
        if size - file.tell() < sum(claimed.values()) + 8 * len(keys):
            raise pickle.UnpicklingError('its tensors claim more bytes than are left in the file')
