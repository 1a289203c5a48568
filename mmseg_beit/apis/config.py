"""Reading a config, changing it from the command line, and checking it before anything is built."""

import contextlib
import difflib
import inspect
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .. import registry
from ..errors import InputError, MissingFileError

# Fields that mmengine's runner reads from the config itself, beside its own arguments.
_RUNNER_FIELDS = {
    'work_dir', 'sync_bn', 'find_unused_parameters', 'compile', 'activation_checkpointing', 'efficient_conv_bn_eval',
    'model_wrapper_cfg', 'tta_model', 'tta_pipeline', 'custom_imports',
}  # fmt: skip
# Dictionaries without a `type`: what may stand in them. None: anything (another class checks, or there is nothing to).
_FREE: set[str] | None = None
_UNTYPED: dict[str, set[str] | None] = {
    'randomness': {'seed', 'diff_rank_seed', 'deterministic'},
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'dist_cfg': {'backend', 'timeout', 'init_backend', 'port'},
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'paramwise_cfg': _FREE,
    'clip_grad': {'type', 'max_norm', 'norm_type', 'error_if_nonfinite', 'clip_value', 'foreach'},
    'compile': _FREE,
    'metainfo': _FREE,
    'data_prefix': _FREE,
    'model_wrapper_cfg': _FREE,
    'test_cfg': {'mode', 'crop_size', 'stride', 'window_batch_size', 'keep_logits', 'threshold'},
}
_DATALOADER = set(inspect.signature(DataLoader).parameters) | {
    'dataset', 'sampler', 'batch_sampler', 'collate_fn', 'worker_init_fn', 'num_batch_per_epoch',
    'disable_subprocess_warning',
}  # fmt: skip


def load_config(path: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Config:
    """Reads a config file and applies the changes that a user asked for.

    Args:
        path: A config file in mmengine's Python form.
        options: Dotted names of existing fields and their new values, as ``--cfg-options`` gives them.

    Returns:
        The config, in our scope if it names none.

    Raises:
        MissingFileError: There is no such file, or it names a base that is not there.
        InputError: It cannot be parsed, holds no model, or an option names no field.
    """
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob('*.py')], n=1, cutoff=0.5)
        example = 'name a file such as configs/beit_upernet_ade20k.py'
        hint = f'did you mean {path.parent / near[0]}?' if near else example
        raise MissingFileError(f'config {path} does not exist: {hint}')
    try:
        config = Config.fromfile(path)
    except FileNotFoundError as error:
        raise MissingFileError(f'config {path} cannot be read ({_line(error)}): correct its _base_') from None
    except SyntaxError as error:
        raise InputError(f'config {path} is no valid Python (line {error.lineno}: {error.msg}): correct it') from None
    # A config is a program and can fail in any way.
    except Exception as error:
        raise InputError(f'config {path} cannot be read ({type(error).__name__}: {_line(error)}): correct it') from None
    if not isinstance(config.get('model'), dict):
        raise InputError(f'config {path} has no field model: name a config of a model, not one of its _base_ files')
    config.setdefault('default_scope', 'mmseg_beit')
    if options:
        apply_options(config, options)
    return config


def apply_options(config: Config, options: Mapping[str, Any]) -> None:
    """Changes fields of a config, which is changed in place.

    Args:
        config: The config.
        options: Dotted names and values; a number indexes a list, as in ``train_dataloader.dataset.pipeline.2.prob``.

    Raises:
        InputError: A name is neither a field of the config nor an argument of the class that would get it, or it is a
            variable that the config has already used up.
    """
    with _scope(config):
        for name in options:
            _check_option(config, name, options)
    try:
        config.merge_from_dict(dict(options))
    except (KeyError, TypeError, AssertionError) as error:
        raise InputError(f'--cfg-options {", ".join(options)} cannot be applied ({_line(error)})') from None


def check_config(config: Config) -> None:
    """Finds what cannot work before anything is built.

    Raises:
        InputError: A crop is not a multiple of the patch size, or the width not of the number of heads.
    """
    backbone = config.model.get('backbone') or {}
    patch = backbone.get('patch_size')
    if isinstance(patch, int):
        for name, crop in _crops(config):
            sides = (crop, crop) if isinstance(crop, int) else tuple(crop)
            if any(side % patch for side in sides):
                good = tuple(max(patch, round(side / patch) * patch) for side in sides)
                raise InputError(f'{name}={sides} is not a multiple of the patch size {patch}: use {good}')
    dims, heads = backbone.get('embed_dims'), backbone.get('num_heads')
    if isinstance(dims, int) and isinstance(heads, int) and dims % heads:
        raise InputError(
            f'model.backbone.embed_dims={dims} cannot be divided among model.backbone.num_heads={heads}: '
            f'choose num_heads among the divisors of {dims}'
        )


def check_work_dir(work_dir: str | os.PathLike[str]) -> None:
    """Makes the work directory and makes sure that files can be written there; nothing in it is changed.

    Raises:
        InputError: They cannot.
    """
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir):
            pass
    except OSError as error:
        raise InputError(
            f'work directory {work_dir} cannot be written ({error.strerror}): choose another with --work-dir'
        ) from None


@contextlib.contextmanager
def builder_sentences() -> Iterator[None]:
    """Turns the two mistakes in a config that a registry finds while it builds into sentences.

    Raises:
        InputError: A ``type`` is unknown, or a class has no argument of a given name.
    """
    try:
        yield
    except FileNotFoundError as error:
        if isinstance(error, InputError) or not error.filename:
            raise
        raise MissingFileError(f'{error.filename} does not exist: correct the path in the config') from error
    except KeyError as error:
        if match := re.search(r'(\w+) is not in the ([\w:\-. ]+?)(?: registry)?\.', str(error)):
            kind = match[2].split('::')[-1]
            known = [reg for reg in vars(registry).values() if getattr(reg, 'name', None) == kind]
            near = _nearest(match[1], {name for reg in known for name in _names(reg)})
            raise InputError(f'type={match[1]!r} in the config is no known {kind}{near}') from error
        raise
    except TypeError as error:
        if match := re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error)):
            raise InputError(
                f'{match[1]} takes no argument {match[2]!r}: correct or remove it in the config'
            ) from error
        if match := re.search(r'(\w+)\.__init__\(\) missing \d+ required .*?: (.+)', str(error)):
            raise InputError(f'{match[1]} needs {match[2]}: set it in the config') from error
        raise


def _check_option(config: Config, name: str, options: Mapping[str, Any]) -> None:
    keys = name.split('.')
    node: Any = config._cfg_dict
    for depth, key in enumerate(keys):
        here = '.'.join(keys[:depth])
        if isinstance(node, list | tuple):
            if not key.isdigit() or int(key) >= len(node):
                raise InputError(f'--cfg-options {name}: {here} is a list of {len(node)}, give an index from 0')
            node = node[int(key)]
        elif isinstance(node, Mapping):
            if key in node:
                if depth == 0:
                    _check_variable(config, name, key)
                node = node[key]
                continue
            allowed = _allowed(node, keys[depth - 1] if depth else '')
            if allowed is not None and key not in allowed and not _is_new_hook(name, options):
                where = f'{here} has no field' if here else 'the config has no field'
                deeper = [] if here else list(_paths_to(node, key))[:2]
                hint = f', did you mean {" or ".join(deeper)}?' if deeper else _nearest(key, set(node) | allowed)
                raise InputError(f'--cfg-options {name}: {where} {key!r}{hint}')
            return
        else:
            raise InputError(f'--cfg-options {name}: {here} is {node!r} and has no fields, so no {key!r}')


def _check_variable(config: Config, name: str, key: str) -> None:
    """Refuses to set what is only a variable of the config file: its value was copied when the file was read."""
    if key in _top_fields():
        return
    rest = name.partition('.')[2]
    uses = list(_paths_of(config._cfg_dict, key, config._cfg_dict[key]))[:3]
    advice = ', '.join(f'{path}.{rest}' if rest else path for path in uses) or 'the field that uses it'
    raise InputError(
        f'--cfg-options {name}: {key} is a variable of the config file and was used while it was read, set {advice}'
    )


def _paths_of(node: Any, key: str, value: Any, here: str = '') -> Iterator[str]:
    """Dotted names below the top whose name or value is that of a variable."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for name, item in items:
        path = f'{here}.{name}' if here else str(name)
        same_name = name == key or (key == 'dataset_type' and name == 'type') or key.endswith(f'_{name}')
        if here and item == value and (same_name or isinstance(value, dict | list)):
            yield path
        elif here or name in _top_fields():
            yield from _paths_of(item, key, value, path)


def _paths_to(node: Any, key: str, here: str = '') -> Iterator[str]:
    """Dotted names of the fields of a name, at any depth."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for name, item in items:
        path = f'{here}.{name}' if here else str(name)
        if name == key:
            yield path
        elif here or name in _top_fields():
            yield from _paths_to(item, key, path)


def _top_fields() -> set[str]:
    return (set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'}) | _RUNNER_FIELDS


def _allowed(node: Mapping, name: str) -> set[str] | None:
    """Names that may be added to a dictionary of the config, ``None`` for any."""
    if not name:
        return _top_fields()
    if 'type' in node:
        return _arguments(node['type'])
    if name.endswith('dataloader'):
        return _DATALOADER
    return _UNTYPED.get(name, set())


def _arguments(kind: Any) -> set[str] | None:
    """Names of the arguments of a registered class, those it passes on to its bases included; ``None`` if unknown."""
    found = kind
    if isinstance(kind, str):
        children = [reg for reg in vars(registry).values() if isinstance(reg, Registry)]
        found = next((cls for cls in (reg.get(kind) for reg in children) if cls is not None), None)
    if not inspect.isclass(found):
        return None
    names: set[str] = {'type', '_scope_'} | ({'constructor'} if 'optimizer' in _signature(found) else set())
    for cls in found.__mro__:
        if '__init__' not in vars(cls):
            continue
        parameters = inspect.signature(cls.__init__).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {'self', 'params'}


def _signature(cls: type) -> set[str]:
    return set(inspect.signature(cls.__init__).parameters)


def _is_new_hook(name: str, options: Mapping[str, Any]) -> bool:
    """Whether an option belongs to a default hook that the options themselves add by its ``type``."""
    first, _, rest = name.partition('.')
    hook = f'{first}.{rest.partition(".")[0]}'
    return first == 'default_hooks' and (f'{hook}.type' in options or options.get(hook, ...) is None)


def _crops(config: Config) -> Iterator[tuple[str, Any]]:
    """Names and values of every crop size in a config that the model sees."""
    preprocessor = config.model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    if preprocessor.get('size') is not None:
        yield 'model.data_preprocessor.size', preprocessor['size']
    test = config.model.get('test_cfg') or {}
    if test.get('mode') == 'slide' and test.get('crop_size') is not None:
        yield 'model.test_cfg.crop_size', test['crop_size']
    pipeline = ((config.get('train_dataloader') or {}).get('dataset') or {}).get('pipeline') or []
    for index, transform in enumerate(pipeline):
        if isinstance(transform, Mapping) and transform.get('crop_size') is not None:
            yield f'train_dataloader.dataset.pipeline.{index}.crop_size', transform['crop_size']


def _nearest(word: str, words: set[str]) -> str:
    words = {str(candidate) for candidate in words if not str(candidate).startswith('_')}
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f', did you mean {near[0]!r}?' if near else f', it may have {", ".join(sorted(words)[:12]) or "none"}'


def _names(reg: Any) -> set[str]:
    names: set[str] = set()
    while reg is not None:
        names |= set(reg.module_dict)
        reg = reg.parent
    return names


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip().rstrip('.')


@contextlib.contextmanager
def _scope(config: Config) -> Iterator[None]:
    with DefaultScope.overwrite_default_scope(config.get('default_scope')):
        yield
