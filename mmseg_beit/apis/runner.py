"""mmengine's runner with whole checkpoints, safe reading, early checks and a quiet terminal."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn

from ..checkpoint import convert_state_dict, read_state_dict
from ..checkpoint.safety import STAND_INS, check_pickle
from ..engine.compiling import compile_networks
from ..engine.resuming import checkpoints_newest_first, replacing
from ..engine.sync_batch_norm import replace_sync_batch_norm
from ..errors import InputError, MissingFileError, sentence
from ..registry import RUNNERS

# What belongs into the log file but not before a person's eyes: environment, hook lists, housekeeping.
_FILE_ONLY = (
    '\n---', 'Config:', 'Hooks will be executed', 'Exp name:', 'Distributed training is not', 'Checkpoints will be',
    'Advance dataloader', 'Saving checkpoint at', 'The previous best checkpoint', 'resumed epoch',
    'The prefix is not set in metric class', '"FileClient" will be', '"HardDiskBackend" is the alias',
    'chose %s for',
)  # fmt: skip


@RUNNERS.register_module()
class BEiTRunner(Runner):
    """Trains, validates and tests as :class:`mmengine.runner.Runner` does, from the same config.

    Beyond that it

    - writes every checkpoint under a temporary name first, so that a file under its own name is whole;
    - reads checkpoints through :mod:`mmseg_beit.checkpoint`: any known family, nothing unpickled but plain data, and an
      error when a backbone tensor is missing. Testing asks that everything fits;
    - with ``resume='auto'`` goes on from the newest checkpoint in the work directory that can be read, and starts from
      the beginning where there is none;
    - compares the heads' ``num_classes`` with the data's classes, and writes the config when all checks are passed;
    - looks at a segmentor's data before the first step
      (:class:`~mmseg_beit.datasets.checks.hook.DataCheckHook`);
    - stops at a loss that is not finite (:class:`~mmseg_beit.engine.hooks.NonFiniteLossHook`);
    - runs several processes on a CPU, with synchronised batch norm;
    - compiles the networks rather than the whole step where the config says ``compile``
      (:mod:`mmseg_beit.engine.compiling`).

    Arguments are those of the base class; ``resume`` may also be ``'auto'``.
    """

    _passed_checks = False
    trust_checkpoint = False
    """Lets a checkpoint run the code it brings. Only for files whose author you trust."""

    def build_logger(self, *args: Any, **kwargs: Any) -> logging.Logger:
        """The base class's logger; its terminal lines carry the time and no more, and leave out :data:`_FILE_ONLY`."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda record: not str(record.msg).startswith(_FILE_ONLY))
                handler.setFormatter(_TerminalFormatter())
        # Layers know torch alone and log by Python's means; their lines go where the others do.
        layers = logging.getLogger('mmseg_beit')
        layers.setLevel(logging.INFO)
        layers.handlers = list(logger.handlers)
        return logger

    def build_log_processor(self, log_processor: Any) -> Any:
        """Builds ours also where the config names no ``type``."""
        if isinstance(log_processor, dict):
            log_processor = {'type': 'LogProcessor', **log_processor}
        return super().build_log_processor(log_processor)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Also wraps for several processes on a CPU, where PyTorch takes neither device numbers nor SyncBN."""
        if self.distributed and get_device() == 'cpu':
            if count := replace_sync_batch_norm(model):
                self.logger.info(f'{count} SyncBN layers run in an exact but slow form, as there is no GPU')
            model_wrapper_cfg = dict(
                type='MMDistributedDataParallel',
                broadcast_buffers=False,
                find_unused_parameters=self.cfg.get('find_unused_parameters', False),
            ) | dict(model_wrapper_cfg or {})
            model_wrapper_cfg['device_ids'] = None
        return super().wrap_model(model_wrapper_cfg, model)

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """Adds the guards against losses that are not finite and data that cannot be used.

        ``default_hooks.non_finite_loss=None`` and ``default_hooks.data_check=None`` remove them.
        """
        guards = dict(non_finite_loss=dict(type='NonFiniteLossHook'), data_check=dict(type='DataCheckHook'))
        super().register_default_hooks({**guards, **(hooks or {})})

    def build_train_loop(self, loop: Any) -> BaseLoop:
        """The base class's loop, of epochs that have at least one step.

        Raises:
            InputError: They have none.
        """
        loop = super().build_train_loop(loop)
        if isinstance(loop, EpochBasedTrainLoop) and not len(loop.dataloader):
            raise InputError(
                f'the training data holds {len(loop.dataloader.dataset)} pictures, fewer than one batch of '
                f'train_dataloader.batch_size={loop.dataloader.batch_size}, and drop_last leaves that out: '
                f'add pictures, or lower batch_size'
            )
        return loop

    def dump_config(self) -> None:
        """Writes the config into the work directory, once all checks are passed."""
        if self._passed_checks:
            super().dump_config()

    def load_or_resume(self) -> None:
        """The last step before the first iteration: checks classes, loads what is to be loaded, writes the config.

        Raises:
            InputError: Heads and data disagree about the classes, or a checkpoint cannot be used.
        """
        self._check_classes()
        if not self._has_loaded:
            self._load_or_resume()
        self._passed_checks = True
        self.dump_config()
        self._fold_for_testing()
        self._announce()

    def _load_or_resume(self) -> None:
        if self._resume == 'auto':
            if path := self._newest_readable():
                self.logger.info(f'Resuming from {path}')
                self.resume(str(path))
                return
            self.logger.info(f'--resume: there is no checkpoint in {self.work_dir}, training starts from the beginning')
            self._resume = False
        super().load_or_resume()

    def _maybe_compile(self, target: str) -> None:
        options = self.cfg.get('compile')
        if options is None or options is False:
            return
        if options is not True and not isinstance(options, dict):
            raise InputError(f'compile={options!r} must be True, False, or arguments of torch.compile as a dictionary')
        model = self.model.module if is_model_wrapper(self.model) else self.model
        names = compile_networks(model, {} if options is True else options)
        self.logger.info(f'{", ".join(names)} are compiled at the first step, which takes minutes')

    def _newest_readable(self) -> Path | None:
        """The newest whole checkpoint; the main process chooses for all."""
        chosen: list[Path | None] = [None]
        if is_main_process():
            for path in checkpoints_newest_first(self.work_dir):
                try:
                    self._read_state(path, 'cpu')
                except InputError as error:
                    self.logger.warning(f'{sentence(error)}; going back to the checkpoint before it')
                    continue
                chosen[0] = path
                break
        broadcast_object_list(chosen)
        return chosen[0]

    def load_checkpoint(self, filename: str, map_location: Any = 'cpu', **kwargs: Any) -> dict:
        """Loads weights from any source that :func:`mmseg_beit.checkpoint.load_checkpoint` knows.

        Args:
            filename: The file, folder or address.
            map_location: Where the tensors go; for resuming.
            **kwargs: For the base class's signature; not used.

        Returns:
            The file's content as it was loaded.

        Raises:
            InputError: The file is missing, cannot be read or does not fit the model.
        """
        model = self.model.module if is_model_wrapper(self.model) else self.model
        model = model.module if isinstance(model, BaseTTAModel) else model
        resuming = bool(self._resume)
        if resuming:
            checkpoint = self._read_state(Path(filename), map_location)
        else:
            role = 'finetune' if isinstance(self._train_loop, BaseLoop) else 'test'
            state_dict, meta = read_state_dict(filename, trust=self.trust_checkpoint)
            if hasattr(model, 'fit_state_dict'):  # a tokenizer reads its own families
                fitted = model.fit_state_dict(state_dict, str(filename), strict=role == 'test')
            elif _holds_beit(model):
                fitted, report = convert_state_dict(state_dict, model, meta=meta, role=role, source=str(filename))
                self.logger.info(str(report))
            else:  # mmseg's other backbones
                fitted = state_dict
                _check_names(model, fitted, filename, strict=role == 'test')
            checkpoint = dict(state_dict=fitted, meta={})
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        if resuming:
            _check_names(model, checkpoint['state_dict'], filename)
        model.load_state_dict(checkpoint['state_dict'], strict=False)
        self._has_loaded = True
        return checkpoint

    def _read_state(self, path: Path, map_location: Any) -> dict:
        """Reads a whole training state: weights, optimizer, schedulers, log histories."""
        path = path.expanduser()
        if not path.is_file():
            raise MissingFileError(f'checkpoint {path} does not exist: correct the path, or give --resume without one')
        if not self.trust_checkpoint:
            check_pickle(path)
        try:
            with torch.serialization.safe_globals(list(STAND_INS.values())):
                content = torch.load(path, map_location=map_location, weights_only=not self.trust_checkpoint)
        # A damaged file can fail in PyTorch in any way.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
            raise InputError(f'{path} cannot be read ({reason[:200]}): resume from another checkpoint') from None
        if not isinstance(content, dict) or not {'state_dict', 'optimizer', 'meta', 'message_hub'} <= set(content):
            raise InputError(
                f'{path} holds weights but no state of a training run: resume from an iter_*.pth of this project, '
                f'or start anew from its weights with --cfg-options load_from={path}'
            )
        return content

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Saves as the base class does; a local file appears under its name when it is whole."""
        if not is_main_process():
            return
        if '://' in str(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        Path(out_dir).mkdir(parents=True, exist_ok=True)
        try:
            with replacing(Path(out_dir) / filename) as temporary:
                super().save_checkpoint(str(temporary.parent), temporary.name, *args, **kwargs)
        except OSError as error:
            raise InputError(
                f'checkpoint {Path(out_dir) / filename} cannot be written ({error.strerror or error}): '
                f'make room there and go on with --resume'
            ) from None

    def _check_classes(self) -> None:
        model = self.model.module if is_model_wrapper(self.model) else self.model
        model = model.module if isinstance(model, BaseTTAModel) else model
        heads = {
            name: module
            for name, module in model.named_modules()
            # Decode heads, and a classifier's `head`.
            if isinstance(module, BaseDecodeHead) or (name == 'head' and hasattr(module, 'num_classes'))
        }
        for stage in ('train', 'val', 'test'):
            loop = getattr(self, f'_{stage}_loop')
            dataset = loop.dataloader.dataset if isinstance(loop, BaseLoop) else None
            classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
            for name, head in heads.items():
                if classes is not None and head.num_classes != len(classes):
                    raise InputError(
                        f'model.{name}.num_classes is {head.num_classes} but the {stage} data '
                        f'({type(dataset).__name__}) has {len(classes)} classes: '
                        f'set model.{name}.num_classes={len(classes)}'
                    )

    def _fold_for_testing(self) -> None:
        """Folds batch norms into convolutions where nothing is trained: the same numbers for less work."""
        if isinstance(self._train_loop, BaseLoop):
            return
        for module in list(self.model.modules()):
            if hasattr(module, 'fuse'):
                module.fuse()

    def _announce(self) -> None:
        if not isinstance(self._train_loop, BaseLoop):
            return
        loader, device = self.train_dataloader, get_device()
        machine = torch.cuda.get_device_name() if device == 'cuda' else f'{device}, {torch.get_num_threads()} threads'
        batch = f'{loader.batch_size} x {self.world_size}' if self.world_size > 1 else loader.batch_size
        precision = getattr(self.optim_wrapper, 'cast_dtype', None) or torch.float32
        place = os.path.relpath(self.work_dir)
        validates = isinstance(self._val_loop, BaseLoop)
        validation = f', {len(self.val_dataloader.dataset)} for validation' if validates else ''
        self.logger.info(
            f'Training from iteration {self.iter} to {self.max_iters} with {batch} of {len(loader.dataset)} images '
            f'a step{validation}, on {machine}, {str(precision).removeprefix("torch.")}; everything goes to '
            f'{self.work_dir if place.startswith(os.pardir) else place}'
        )


class _TerminalFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__('%(asctime)s  %(message)s', '%H:%M:%S')

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if record.levelno < logging.WARNING:
            return line
        return line.replace('  ', f'  {record.levelname.lower()}: ', 1)


def _holds_beit(model: nn.Module) -> bool:
    parts = ('patch_embed', 'layers', 'cls_token')
    return any(all(hasattr(module, part) for part in parts) for module in model.modules())


def _check_names(model: nn.Module, state_dict: dict, source: str, strict: bool = True) -> None:
    """Refuses weights whose names or shapes are not the model's."""
    own = {name: value.shape for name, value in model.state_dict().items() if 'num_batches_tracked' not in name}
    wrong = [name for name, shape in own.items() if name in state_dict and state_dict[name].shape != shape]
    missing = [name for name in own if name not in state_dict]
    surplus = [name for name in state_dict if name not in own and 'num_batches_tracked' not in name]
    if not strict:
        missing = [name for name in missing if name.startswith('backbone.')]
        surplus = []
    problems = [(f'tensor {wrong[:1]} has another shape', wrong), (f'tensor {missing[:1]} is missing', missing)]
    problems.append((f'tensor {surplus[:1]} has no place in the model', surplus))
    for text, names in problems:
        if names:
            raise InputError(
                f'{source} belongs to another model ({text}, one of {len(names)}): use the config it was trained with'
            )
