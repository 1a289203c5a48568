"""Imports mmsegmentation without its chatter and without packages that the segmentation path does not use.

Importing ``mmseg.models`` and ``mmseg.datasets`` prints lines about optional products ("Could not import OneDL"), warns
about compiled operators that nothing here needs, and imports timm and mmpretrain for one class each, which doubles the
time of the import. :func:`install`, called by the package's ``__init__``, watches for the import of those modules,
wherever it comes from. It silences exactly the messages listed below, and puts the two packages off: mmseg's
``TIMMBackbone`` imports timm when it is first built, and the data set of the OneDL product is left out unless
mmpretrain was imported before.
"""

import contextlib
import functools
import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

__all__ = ['install', 'quiet_imports']

# Modules whose import is chatty, by their full names.
_CHATTY = frozenset({'mmcv.cnn.bricks.transformer', 'mmseg.datasets', 'mmpretrain.datasets'})
# Modules that import a package for one class, and do without it where it is absent.
_POSTPONED = {'mmseg.models.backbones.timm_backbone': 'timm', 'mmseg.datasets.onedl': 'mmpretrain'}
# Printed by way of mmengine's `print_log`, which ignores the level DEBUG that the callers ask for.
_PRINTED = frozenset({'Could not import OneDL'})
# Beginnings of warnings, as regular expressions.
_WARNED = (r'Fail to import ``MultiScaleDeformableAttention``',)


class _Postponed(types.ModuleType):
    """Stands for a module in another module's namespace and imports it when it is first used."""

    def __getattr__(self, name: str):
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _without_prints() -> Iterator[None]:
    logger = importlib.import_module('mmengine.logging.logger')
    before = vars(logger).get('print', print)

    def filtered(message: object) -> None:
        if message not in _PRINTED:
            before(message)

    logger.print = filtered
    try:
        yield
    finally:
        if before is print:
            del logger.print
        else:
            logger.print = before


@contextlib.contextmanager
def _absent(package: str) -> Iterator[None]:
    """Makes the import of a package fail that is not imported yet."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None
    try:
        yield
    finally:
        del sys.modules[package]


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Silences the listed import-time messages inside a ``with`` block; everything else is shown as ever."""
    with _without_prints(), warnings.catch_warnings():
        for message in _WARNED:
            warnings.filterwarnings('ignore', message=message)
        yield


def _execute_quietly(execute: Callable[[types.ModuleType], None], module: types.ModuleType) -> None:
    with quiet_imports():
        execute(module)


def _execute_postponing(execute: Callable[[types.ModuleType], None], module: types.ModuleType) -> None:
    package = _POSTPONED[module.__name__]
    with _absent(package):
        execute(module)
    if getattr(module, package, module) is None and importlib.util.find_spec(package):
        setattr(module, package, _Postponed(package))


class _Watcher(MetaPathFinder):
    """Finds nothing itself; asks the other finders and wraps the execution of the watched modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _CHATTY and fullname not in _POSTPONED:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                wrapped = _execute_postponing if fullname in _POSTPONED else _execute_quietly
                spec.loader.exec_module = functools.partial(wrapped, spec.loader.exec_module)
                return spec
        return None


def install() -> None:
    """Starts watching; a second call changes nothing."""
    if not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher())
