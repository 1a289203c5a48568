"""What the command lines of ``tools/train.py`` and ``tools/test.py`` make of a config."""

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from ..engine.amp import amp_dtype, default_amp_dtype
from ..errors import InputError, MissingFileError
from .config import check_config, check_work_dir, load_config
from .exported import check_amp_of, is_exported, use_exported

_AMP = {'bf16': 'bfloat16', 'fp16': 'float16'}


def training_config(
    path: str,
    options: Mapping[str, Any] | None = None,
    work_dir: str | None = None,
    resume: str | None = None,
    amp: str | None = None,
    tensorboard: bool = False,
    launcher: str = 'none',
) -> Config:
    """Reads a config for training; everything that can be known wrong without building the model is found here.

    Args:
        path: The config file.
        options: Dotted names and values to change.
        work_dir: Where the run's files go; ``work_dirs/NAME_OF_CONFIG`` if neither this nor the config says.
        resume: ``'auto'``, a checkpoint, or ``None`` to begin.
        amp: ``'auto'``, ``'bf16'``, ``'fp16'`` or ``None``.
        tensorboard: Whether to write curves for TensorBoard too.
        launcher: What started the processes.

    Returns:
        What :class:`~mmseg_beit.apis.runner.BEiTRunner` is built from.

    Raises:
        InputError: The config, the options or the work directory cannot be used, or a checkpoint is missing.
    """
    config = _prepared(path, options, work_dir, launcher)
    for field in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        if config.get(field) is None:
            raise InputError(f'config {path} has no field {field}, which training needs: add it or name another config')
    if amp:
        wrapper = config.optim_wrapper
        if wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise InputError(f'--amp cannot be combined with optim_wrapper.type={wrapper.type}: leave one of them out')
        wrapper.type = 'AmpOptimWrapper'
        wrapper.dtype = _AMP.get(amp) or default_amp_dtype()
    if tensorboard:
        _add_tensorboard(config)
    if resume:
        config.resume = 'auto' if resume == 'auto' else True
        config.load_from = config.get('load_from') if resume == 'auto' else resume
    if config.get('load_from'):
        _check_local(config.load_from)
    check_work_dir(config.work_dir)
    return config


def testing_config(
    path: str,
    checkpoint: str,
    options: Mapping[str, Any] | None = None,
    work_dir: str | None = None,
    tta: bool = False,
    out: str | None = None,
    show_dir: str | None = None,
    launcher: str = 'none',
    amp: str | None = None,
) -> Config:
    """Reads a config for a test, as :func:`training_config` does for training.

    Args:
        path: The config file.
        checkpoint: A file, folder or address, or an exported ``.onnx`` or ``.pt2`` file.
        options: Dotted names and values to change.
        work_dir: Where log and figures go; ``work_dirs/NAME_OF_CONFIG`` if neither this nor the config says.
        tta: Whether to average over scales and flips.
        out: Folder for index masks.
        show_dir: Folder for pictures of ground truth and prediction.
        launcher: What started the processes.
        amp: ``'auto'``, ``'bf16'``, ``'fp16'`` or ``None``. The type is set for this process.

    Returns:
        What :class:`~mmseg_beit.apis.runner.BEiTRunner` is built from.

    Raises:
        InputError: The config, the options or a folder cannot be used, or the checkpoint is missing.
    """
    config = _prepared(path, options, work_dir, launcher)
    for field in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        if config.get(field) is None:
            raise InputError(f'config {path} has no field {field}, which a test needs: add it or name another config')
    _check_local(checkpoint)
    config.load_from, config.resume = str(checkpoint), False
    if amp:
        check_amp_of(checkpoint)
        # mmengine's loop takes a switch; which type it means is torch's setting.
        config.test_cfg.fp16 = True
        torch.set_autocast_dtype(get_device(), amp_dtype(amp, get_device()))
    if is_exported(checkpoint):
        use_exported(config, checkpoint)
        config.load_from = None
    # The model's weights come from the checkpoint: those it would start training from need not be there.
    _drop_pretrained(config.model)
    if show_dir:
        _show(config, show_dir)
    if tta:
        for field in ('tta_model', 'tta_pipeline'):
            if config.get(field) is None:
                raise InputError(f'config {path} has no field {field}: add it, or test without --tta')
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
        config.model = ConfigDict(**config.tta_model, module=config.model)
    for folder in filter(None, (config.work_dir, out, show_dir)):
        check_work_dir(folder)
    _set_metric(config, out, dict(config=str(path), checkpoint=str(checkpoint), tta=tta))
    return config


def metrics_file(config: Config) -> Path:
    """Where a test writes its figures."""
    return Path(config.work_dir) / 'metrics.json'


def write_metrics(config: Config, figures: Mapping[str, float], about: Mapping[str, Any]) -> bool:
    """Writes the figures of a test as JSON, unless an IoUMetric does so itself, class by class.

    Args:
        config: What :func:`testing_config` gave.
        figures: By name, as the evaluator gives them; what is not finite is written as null.
        about: What else the file says.

    Returns:
        Whether it was written.
    """
    evaluators = config.test_evaluator if isinstance(config.test_evaluator, list | tuple) else [config.test_evaluator]
    if any(evaluator.get('json_file') for evaluator in evaluators):
        return False
    values = {name: float(value) for name, value in figures.items()}
    content = dict(about) | {name: value if math.isfinite(value) else None for name, value in values.items()}
    metrics_file(config).write_text(json.dumps(content, indent=2) + '\n')
    return True


def _prepared(path: str, options: Mapping[str, Any] | None, work_dir: str | None, launcher: str) -> Config:
    config = load_config(path, options)
    check_config(config)
    config.work_dir = work_dir or config.get('work_dir') or str(Path('work_dirs') / Path(path).stem)
    config.launcher = launcher
    return config


def _check_local(checkpoint: str) -> None:
    if '://' not in str(checkpoint) and not Path(checkpoint).expanduser().exists():
        raise MissingFileError(f'checkpoint {checkpoint} does not exist: correct the path')


def _drop_pretrained(node: Any) -> None:
    if isinstance(node, Mapping):
        init = node.get('init_cfg')
        if isinstance(init, Mapping) and init.get('type') == 'Pretrained':
            node['init_cfg'] = None
        for value in node.values():
            _drop_pretrained(value)
    elif isinstance(node, list | tuple):
        for value in node:
            _drop_pretrained(value)


def _add_tensorboard(config: Config) -> None:
    if importlib.util.find_spec('tensorboard') is None:
        raise InputError('--tensorboard needs the package tensorboard: pip install tensorboard')
    visualizer = config.get('visualizer') or dict(type='SegLocalVisualizer', name='visualizer')
    backends = list(visualizer.get('vis_backends') or [dict(type='LocalVisBackend')])
    visualizer['vis_backends'] = backends + [dict(type='TensorboardVisBackend')]
    config.visualizer = visualizer


def _show(config: Config, show_dir: str) -> None:
    hook = dict(type='ShowResultsHook', out_dir=show_dir, image_root=_image_root(config))
    config.custom_hooks = list(config.get('custom_hooks') or []) + [hook]
    visualizer = config.get('visualizer') or {}
    if visualizer.get('type', 'SegLocalVisualizer') != 'SegLocalVisualizer':
        raise InputError(f'--show-dir draws with SegLocalVisualizer, not with visualizer.type={visualizer.type}')
    config.visualizer = dict(type='SegLocalVisualizer', name='visualizer') | visualizer


def _image_root(config: Config) -> str | None:
    dataset = config.test_dataloader.dataset
    folder = (dataset.get('data_prefix') or {}).get('img_path')
    return str(Path(dataset.get('data_root') or '') / folder) if folder else None


def _set_metric(config: Config, out: str | None, about: dict[str, Any]) -> None:
    evaluators = config.test_evaluator if isinstance(config.test_evaluator, list | tuple) else [config.test_evaluator]
    metric = next((evaluator for evaluator in evaluators if evaluator.get('type') == 'IoUMetric'), None)
    if metric is None:
        if out:
            raise InputError(
                '--out writes the masks that an IoUMetric in test_evaluator sees, and there is none: add one, or leave '
                'the option out (tools/classify.py --out writes the classes of pictures)'
            )
        return
    metric.update(json_file=str(metrics_file(config)), about=about)
    if out:
        metric['output_dir'] = out
        metric['image_root'] = _image_root(config)
