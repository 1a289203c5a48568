"""What becomes of a picture on its way to the loss and to the overlay: every hop, seen while it really happens.

A spy on each function along the way notes what it returns, while the config's own pipeline, model and
:class:`~mmseg_beit.apis.Inferencer` run. Nothing here says what a hop should do; ``docs/data_flow.md`` does.
"""

import inspect
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from torch import nn

from ..datasets.checks.files import check_same_size, image_size, mask_size
from ..datasets.transforms.resizing import ResizedOnDemand
from ..errors import MissingFileError
from ..models.layers.logit_map import LogitMap
from ..registry import DATASETS
from . import inference
from .config import builder_sentences, load_config
from .inference import Inferencer
from .model import init_model, scope_of
from .result import SegResult

TRAINING, PREDICTION = 'training', 'prediction'
_BATCH = 2  # batch norm cannot train on one picture


@dataclass
class Value:
    """One array, tensor or setting: its key, and its shape, dtype and range as text."""

    key: str
    shape: str
    dtype: str
    range: str


@dataclass
class Hop:
    """One function that the data went through.

    Attributes:
        stage: ``'training'`` or ``'prediction'``.
        function: Class and method, or the function.
        file: Source file, from the package on.
        line: Where the function begins in it.
        values: What it added or changed, or what it returned.
        heir: Source file of the object's class, where the function is inherited from another file; else empty.
    """

    stage: str
    function: str
    file: str
    line: int
    values: list[Value] = field(default_factory=list)
    heir: str = ''


def trace_data_flow(
    config: str | os.PathLike[str] | Config,
    image: str | os.PathLike[str],
    mask: str | os.PathLike[str] | None = None,
    checkpoint: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> list[Hop]:
    """Runs a picture through training (without a step) and prediction, on the CPU, and notes every hop.

    The training batch is the picture twice, drawn twice. The caller's random state stays what it was.

    Args:
        config: A config file or a config.
        image: The picture.
        mask: Its mask; by default the one that the config's training data have for it. Without any, only prediction is
            traced.
        checkpoint: Weights; random ones by default, which changes ranges only.
        cfg_options: Dotted names of fields of the config and their new values.
        seed: Of the random augmentation.

    Returns:
        The hops, training first, in the order in which they were done.

    Raises:
        MissingFileError: Config, picture, mask or checkpoint is missing.
        InputError: One of them cannot be used.
    """
    image = os.fspath(image)
    for what, path in (('image', image), ('mask', mask)):
        if path is not None and not os.path.isfile(path):
            raise MissingFileError(f'{what} {path} does not exist: correct the path')
    config = config if isinstance(config, Config) else load_config(config)
    with seeded(seed):
        model = init_model(config, checkpoint, 'cpu', cfg_options)
        dataset = _training_dataset(model.cfg)
        mask = os.fspath(mask) if mask is not None else _mask_of(dataset, image)
        training = _trace_training(model.train(), dataset, image, mask) if dataset is not None and mask else []
        return training + _trace_prediction(model.eval(), image)


def _trace_training(model: nn.Module, dataset, image: str, mask: str) -> list[Hop]:
    hops: list[Hop] = []
    check_same_size(mask_size(mask), image_size(image), mask, image)
    start = dict(
        img_path=image,
        seg_map_path=mask,
        reduce_zero_label=dataset.reduce_zero_label,
        label_map=dataset.label_map,
        num_classes=len(dataset.metainfo.get('classes') or ()) or None,
        seg_fields=[],
    )
    hops.append(_hop(TRAINING, type(dataset).load_data_list, _describe_results({}, start), type(dataset)))
    with ExitStack() as spies:
        for transform in dataset.pipeline.transforms:
            spies.enter_context(_spy_on_transform(hops, TRAINING, transform))
        first = dataset.pipeline(dict(start, seg_fields=[]))
    samples = [first] + [dataset.pipeline(dict(start, seg_fields=[])) for _ in range(_BATCH - 1)]
    batch = pseudo_collate(samples)
    hops.append(_hop(TRAINING, pseudo_collate, describe(batch)))
    heads = [('decode_head', ''), ('auxiliary_head', '')]
    with ExitStack() as spies, torch.no_grad():
        _spy_on_network(spies, hops, TRAINING, model, [name for name, _ in heads])
        for name, _ in heads:
            for i, head in enumerate(_modules(getattr(model, name, None))):
                spies.enter_context(_spy(hops, TRAINING, head, 'loss_by_feat', f'{name}{_index(i)}'))
        spies.enter_context(_spy(hops, TRAINING, model, 'loss', 'losses'))
        spies.enter_context(_spy(hops, TRAINING, model, 'parse_losses', 'loss', part=0))
        data = model.data_preprocessor(batch, True)
        model.parse_losses(model(**data, mode='loss'))
    return hops


def _trace_prediction(model: nn.Module, image: str) -> list[Hop]:
    hops: list[Hop] = []
    infer = Inferencer(model)
    with ExitStack() as spies:
        spies.enter_context(_spy(hops, PREDICTION, inference, 'read_picture', 'picture'))
        for transform in infer.pipeline.transforms:
            spies.enter_context(_spy_on_transform(hops, PREDICTION, transform))
        _spy_on_network(spies, hops, PREDICTION, model, ['decode_head'])
        spies.enter_context(_spy(hops, PREDICTION, LogitMap, 'resize', 'logits at the picture'))
        spies.enter_context(_spy(hops, PREDICTION, LogitMap, 'labels', 'labels'))
        spies.enter_context(_spy(hops, PREDICTION, model, 'predict', 'data_samples'))
        spies.enter_context(_spy(hops, PREDICTION, inference, 'make_result', 'result'))
        spies.enter_context(_spy(hops, PREDICTION, SegResult, 'overlay', 'overlay'))
        infer(image).overlay()
    return hops


def _spy_on_network(spies: ExitStack, hops: list[Hop], stage: str, model: nn.Module, heads: Sequence[str]) -> None:
    """Spies on what all stages share: preprocessor, patch embedding, backbone, neck and heads."""
    spies.enter_context(_spy(hops, stage, model.data_preprocessor, 'forward', ''))
    parts = [(getattr(model.backbone, 'patch_embed', None), 'tokens'), (model.backbone, 'features')]
    parts += [(getattr(model, 'neck', None), 'pyramid')]
    parts += [
        (head, f'{name}{_index(i)}.logits')
        for name in heads
        for i, head in enumerate(_modules(getattr(model, name, None)))
    ]
    for part, key in parts:
        if part is not None:
            spies.enter_context(_spy(hops, stage, part, 'forward', key))


def _modules(part: nn.Module | None) -> list[nn.Module]:
    """One head, or those of a list (cascades, several auxiliary heads)."""
    if part is None:
        return []
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def _index(i: int) -> str:
    return f'[{i}]' if i else ''


@contextmanager
def _spy(hops: list[Hop], stage: str, owner: Any, name: str, key: str, part: int | None = None) -> Iterator[None]:
    """Notes what ``owner.name`` returns, or a part of it: a method of an object or class, or a module's function."""
    original = getattr(owner, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        cls = None if inspect.ismodule(owner) else owner if inspect.isclass(owner) else type(owner)
        hops.append(_hop(stage, original, describe(result if part is None else result[part], key), cls))
        return result

    with _replaced(owner, name, watched):
        yield


@contextmanager
def _spy_on_transform(hops: list[Hop], stage: str, transform: Any) -> Iterator[None]:
    """Notes which keys a transform adds or changes."""
    original = transform.transform

    def watched(results: dict) -> Any:
        before = {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in results.items()}
        # Lists grow in place.
        before = {key: list(value) if isinstance(value, list) else value for key, value in before.items()}
        after = original(results)
        values = _describe_results(before, after) if isinstance(after, dict) else describe(after)
        hops.append(_hop(stage, original, values, type(transform)))
        return after

    with _replaced(transform, 'transform', watched):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Callable) -> Iterator[None]:
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def _hop(stage: str, function: Callable, values: list[Value], cls: type | None = None) -> Hop:
    function = inspect.unwrap(getattr(function, '__func__', function))
    name = f'{cls.__name__}.{function.__name__}' if cls is not None else function.__name__
    file = _file(function)
    heir = '' if cls is None or _file(cls) == file else _file(cls)
    return Hop(stage, name, file, function.__code__.co_firstlineno, values, heir)


def _file(thing: Any) -> str:
    """Source file of a function or class, from its package on."""
    package = thing.__module__.partition('.')[0]
    parts = os.path.abspath(inspect.getsourcefile(thing)).split(os.sep)
    return '/'.join(parts[len(parts) - 1 - parts[::-1].index(package) :]) if package in parts else parts[-1]


def _describe_results(before: Mapping, after: Mapping) -> list[Value]:
    """Values of the keys that are new or changed."""
    return [value for key, item in after.items() if not _same(before.get(key, _same), item) for value in
            describe(item, key)]  # fmt: skip


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b)
    return a is b or (type(a) is type(b) and not isinstance(a, torch.Tensor) and a == b)


def describe(value: Any, key: str = '') -> list[Value]:
    """Describes arrays and settings, one row each; containers give a row per item.

    Args:
        value: Anything that the data flow holds.
        key: Its name.

    Returns:
        Rows; the shape is empty for what has none.
    """
    if isinstance(value, (np.ndarray, torch.Tensor)):
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        dtype = str(value.dtype).removeprefix('torch.') + (' tensor' if isinstance(value, torch.Tensor) else '')
        return [Value(key, _shape(array.shape), dtype, _range(array))]
    if isinstance(value, LogitMap):
        return [Value(key, _shape(value.shape), 'float32 factors', f'{len(value.pieces)} window(s), made by tiles')]
    if isinstance(value, ResizedOnDemand):
        return [Value(key, _shape(value.shape), str(value.dtype), 'made where it is cropped')]
    if isinstance(value, SegResult):
        return [row for name in ('image', 'mask', 'palette') for row in describe(getattr(value, name), f'{key}.{name}')]
    if isinstance(value, BaseDataElement):
        rows = [row for name, item in value.items() for row in describe(item, f'{key}.{name}')]
        meta = ', '.join(sorted(value.metainfo_keys()))
        return rows + ([Value(f'{key}.metainfo', '', 'keys', meta)] if meta else [])
    if isinstance(value, Mapping) and any(_has_parts(item) for item in value.values()):
        return [row for name, item in value.items() for row in describe(item, f'{key}.{name}' if key else str(name))]
    if isinstance(value, (list, tuple)) and any(_has_parts(item) for item in value):
        return [row for i, item in enumerate(value) for row in describe(item, f'{key}[{i}]')]
    text = os.path.basename(value) if isinstance(value, str) and os.sep in value else str(value)
    if isinstance(value, (Mapping, list, tuple)) and len(value) > 8:
        text = f'{len(value)} entries'
    return [Value(key, '', type(value).__name__, text)]


def _has_parts(value: Any) -> bool:
    """Whether a value has rows of its own: arrays, and what contains them."""
    return isinstance(value, (np.ndarray, torch.Tensor, BaseDataElement, Mapping, list, tuple))


def _shape(shape: Sequence[int]) -> str:
    return f'({", ".join(map(str, shape))})'


def _range(array: np.ndarray) -> str:
    if not array.size:
        return 'empty'
    labels = np.unique(array) if array.dtype.kind in 'iu' else array
    # Labels with ignored pixels; a picture has nearly all values.
    if array.dtype.kind in 'iu' and labels[-1] == 255 and 1 < labels.size < 200:
        return f'{labels[0]}..{labels[-2]}, 255'
    if array.size == 1:
        return f'{array.item():.4g}'
    return f'{array.min():.4g}..{array.max():.4g}'


def _training_dataset(config: Config):
    """The training data set of a config, not listed: its files need not be there. None without one."""
    described = (config.get('train_dataloader') or {}).get('dataset')
    while described and (described.get('dataset') or described.get('datasets')):
        described = described.get('dataset') or described['datasets'][0]
    if not described:
        return None
    with scope_of(config), builder_sentences():
        return DATASETS.build({**described, 'lazy_init': True})


def _mask_of(dataset, image: str) -> str | None:
    """The mask that a data set has for one of its pictures; None for another picture."""
    if dataset is None:
        return None
    folder, masks = dataset.data_prefix.get('img_path'), dataset.data_prefix.get('seg_map_path')
    if not folder or not masks or not image.endswith(dataset.img_suffix):
        return None
    name = os.path.relpath(os.path.abspath(image), os.path.abspath(folder))
    path = os.path.join(masks, name[: -len(dataset.img_suffix)] + dataset.seg_map_suffix)
    return path if not name.startswith('..') and os.path.isfile(path) else None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, everything that transforms draw from begins at a seed; afterwards it goes on as before."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - mmcv draws from the global generator
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def needs_mask(hops: Sequence[Hop]) -> bool:
    """Whether training could not be traced for want of a mask."""
    return all(hop.stage != TRAINING for hop in hops)


def markdown_table(hops: Sequence[Hop], stage: str) -> str:
    """The hops of a stage as a Markdown table without line numbers, as ``docs/data_flow.md`` holds it."""
    lines = ['| file | function | key | shape | dtype | range |', '| --- | --- | --- | --- | --- | --- |']
    for hop in hops:
        if hop.stage == stage:
            file, function = f'`{hop.file}`', f'`{hop.function}`' + (f' of `{hop.heir}`' if hop.heir else '')
            for value in hop.values or [Value('', '', '', 'nothing new')]:
                cells = (file, function, f'`{value.key}`' if value.key else '', value.shape, value.dtype, value.range)
                lines.append(f'| {" | ".join(cells)} |')
                file = function = ''
    return '\n'.join(lines)
