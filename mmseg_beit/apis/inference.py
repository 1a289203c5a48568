"""Prediction on pictures of any kind and size, one by one or in batches."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import Compose
from mmseg.structures import SegDataSample
from PIL import Image
from torch import nn

from ..engine.amp import amp_dtype
from ..errors import InputError
from ..registry import TRANSFORMS
from .config import builder_sentences
from .exported import check_amp_of
from .model import init_model, scope_of, test_dataset
from .pictures import find_pictures, picture_array, read_picture
from .result import SegResult, make_result

ImageLike = str | os.PathLike | np.ndarray | Image.Image
"""A file, an array (see :func:`~mmseg_beit.apis.pictures.picture_array`) or a Pillow image."""

_THINNEST = 100  # ratio of the sides of what is left of a picture too thin for the pipeline
_LOOKAHEAD = 4  # pictures read ahead, in batches, to find those of one size


class Inferencer:
    """Predicts the classes of pictures with a segmentor and its config's test pipeline.

    Only the loading differs from ``tools/test.py``: files are read by :func:`~mmseg_beit.apis.pictures.read_picture`,
    which takes more kinds of files and gives the same pixels for ordinary ones.

    Args:
        config: A config file, a config, or a model from :func:`~mmseg_beit.apis.init_model`.
        checkpoint: A file, a folder, ``timm://NAME``, ``hf://ORG/NAME`` or ``https://...``; not with a model.
        device: ``'auto'`` (a GPU if there is one), ``'cpu'``, ``'cuda'`` or ``'cuda:N'``; not with a model.
        batch_size: Pictures that go through the network at once. Those of one size are brought together; results keep
            their order.
        with_logits: Whether results hold the logits; for K classes of a large picture that is K floats for every pixel.
        channel_order: Of arrays that are given: ``'rgb'``, or ``'bgr'`` as ``cv2.imread`` and ``mmcv.imread`` return.
        cfg_options: Dotted names of fields of the config and their new values; not with a model.
        trust: Runs whatever code a pickled checkpoint brings. Only for files whose author you trust.
        amp: Mixed precision: ``'bf16'``, ``'fp16'`` (GPUs only), ``'auto'`` for what the device has, or ``None``.

    Raises:
        InputError: Config, checkpoint, device or an option cannot be used.

    Example:
        >>> import numpy as np
        >>> from mmseg_beit.apis import Inferencer
        >>> infer = Inferencer('config.py', 'checkpoint.pth', device='cpu', batch_size=2)
        >>> infer('photo.jpg').mask.shape
        (48, 64)
        >>> array = np.zeros((30, 40, 3), np.uint8)
        >>> [result.mask.shape for result in infer(['photo.jpg', array])]
        [(48, 64), (30, 40)]
        >>> for result in infer('photos'):
        ...     result.save(f'overlays/{result.path.stem}.png', legend=True)
    """

    def __init__(
        self,
        config: str | os.PathLike | Config | nn.Module,
        checkpoint: str | os.PathLike | None = None,
        device: str | torch.device = 'auto',
        batch_size: int = 1,
        with_logits: bool = False,
        channel_order: str = 'rgb',
        cfg_options: dict[str, Any] | None = None,
        trust: bool = False,
        amp: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f'batch_size={batch_size} must be at least 1')
        if amp:
            check_amp_of(checkpoint)
        if isinstance(config, nn.Module):
            if checkpoint is not None or cfg_options:
                raise InputError('a built model takes neither checkpoint nor cfg_options: give its config instead')
            if not hasattr(config, 'cfg') or not hasattr(config, 'dataset_meta'):
                raise InputError('the model has no cfg or no dataset_meta: make it with mmseg_beit.apis.init_model')
            self.model = config
        else:
            self.model = init_model(config, checkpoint, device, cfg_options, trust)
        self._dtype = amp_dtype(amp, self.device.type) if amp else None
        self.batch_size = batch_size
        self.with_logits = with_logits
        self.channel_order = channel_order
        self.pipeline, self._to_float32 = _build_pipeline(self.model.cfg)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.data_preprocessor.device

    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> SegResult | list[SegResult]:
        """Predicts.

        Args:
            images: A file, an array uint8 (H, W, 3), (H, W, 4) or (H, W), a Pillow image; or a list of these, or a
                folder.

        Returns:
            One result for one picture, else a list in the order given (a folder's by name).

        Raises:
            InputError: A picture cannot be read; the message names it.
        """
        if isinstance(images, str | os.PathLike) and Path(images).is_dir():
            images = [picture.path for picture in find_pictures([images])]
        elif isinstance(images, str | os.PathLike | np.ndarray | Image.Image):
            return next(self.stream([images]))
        return list(self.stream(images))

    def stream(
        self, images: Iterable[ImageLike], on_error: Callable[[ImageLike, InputError], None] | None = None
    ) -> Iterator[SegResult]:
        """Predicts on any number of pictures with the memory of a few.

        Args:
            images: As for a call, but no folder; taken as they are needed.
            on_error: Called with a picture that fails and why; the others go on. By default the error is raised.

        Yields:
            Results in the order of the pictures, without those that failed.

        Raises:
            InputError: A picture fails and there is no `on_error`.
        """
        ahead = 1 if self.batch_size == 1 else _LOOKAHEAD * self.batch_size
        for chunk in _chunks(images, ahead):
            inputs: dict[int, _Input] = {}
            results: dict[int, SegResult] = {}
            for i, image in enumerate(chunk):
                with _reporting(on_error, [image]):
                    inputs[i] = self._prepare(image)
            for batch in self._batches(inputs):
                with _reporting(on_error, [chunk[i] for i in batch]):
                    results.update(zip(batch, self._predict([inputs.pop(i) for i in batch]), strict=True))
            for i in sorted(results):
                yield results.pop(i)

    def _prepare(self, image: ImageLike) -> '_Input':
        path = Path(image) if isinstance(image, str | os.PathLike) else None
        picture = read_picture(path) if path is not None else picture_array(image, self.channel_order)
        try:
            return _Input(picture, self._packed(picture, path), path)
        except cv2.error:
            # A picture so thin that the pipeline's resize leaves no pixel of its short side: its lines are repeated.
            thickness = -(-max(picture.shape) // (_THINNEST * min(picture.shape[:2])))
            if thickness == 1:
                raise
            steps = (thickness, 1) if picture.shape[0] < picture.shape[1] else (1, thickness)
            thick = picture.repeat(steps[0], axis=0).repeat(steps[1], axis=1)
            return _Input(picture, self._packed(thick, path), path, steps)

    def _packed(self, picture: np.ndarray, path: Path | None) -> dict[str, Any]:
        """What the config's test pipeline makes of a picture: ``inputs`` and ``data_samples``."""
        bgr = np.ascontiguousarray(picture[..., ::-1], dtype=np.float32 if self._to_float32 else np.uint8)
        size = picture.shape[:2]
        return self.pipeline(dict(img=bgr, img_path=path and str(path), img_shape=size, ori_shape=size))

    def _batches(self, inputs: dict[int, '_Input']) -> list[list[int]]:
        """Numbers of inputs of one size, at most ``batch_size`` together."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, item in inputs.items():
            by_shape.setdefault(tuple(item.packed['inputs'].shape), []).append(i)
        return [batch for group in by_shape.values() for batch in _chunks(group, self.batch_size)]

    def _predict(self, batch: list['_Input']) -> list[SegResult]:
        data = {key: [item.packed[key] for item in batch] for key in ('inputs', 'data_samples')}
        try:
            with torch.no_grad(), _logits_kept(self.model, self.with_logits), self._precision():
                samples = self.model.test_step(data)
            return [self._result(item, sample) for item, sample in zip(batch, samples, strict=True)]
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if type(error) is RuntimeError and 'allocate memory' not in str(error):
                raise
            raise InputError(
                f'{batch[0].path or "a picture"} does not fit into the memory of {self.device}, {len(batch)} at once: '
                f'use a smaller batch size, or smaller windows (model.test_cfg)'
            ) from None

    def _precision(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self._dtype) if self._dtype else nullcontext()

    def _result(self, item: '_Input', sample: SegDataSample) -> SegResult:
        rows, columns = item.steps
        mask = sample.pred_sem_seg.data.squeeze(0)[::rows, ::columns].cpu().numpy()
        logits = sample.seg_logits.data[:, ::rows, ::columns].float().cpu().numpy() if self.with_logits else None
        return make_result(item.picture, mask, self.model.dataset_meta, item.path, logits)


def inference_model(
    model: nn.Module, images: ImageLike | Sequence[ImageLike], channel_order: str = 'rgb'
) -> SegResult | list[SegResult]:
    """Predicts with a model from :func:`~mmseg_beit.apis.init_model`, one picture at a time.

    NOTE(reference): mmseg's function takes arrays as BGR; here they are RGB unless `channel_order` says so.

    Args:
        model: The segmentor.
        images: A file, an array uint8 (H, W, 3), (H, W, 4) or (H, W), a Pillow image; or a list of these, or a folder.
        channel_order: Of arrays: ``'rgb'``, or ``'bgr'`` as ``cv2.imread`` and ``mmcv.imread`` return.

    Returns:
        One result for one picture, else a list in the order given.

    Raises:
        InputError: A picture cannot be read.

    Example:
        >>> from mmseg_beit.apis import inference_model, init_model
        >>> model = init_model('config.py', 'checkpoint.pth', device='cpu')
        >>> result = inference_model(model, 'photo.jpg')
        >>> result.mask.shape == result.image.shape[:2]
        True
    """
    return Inferencer(model, channel_order=channel_order)(images)


@dataclass(frozen=True)
class _Input:
    """A picture before prediction: as read, as packed, and how often its rows and columns were repeated for that."""

    picture: np.ndarray
    packed: dict[str, Any]
    path: Path | None
    steps: tuple[int, int] = (1, 1)


def _build_pipeline(config: Config) -> tuple[Compose, bool]:
    """The config's test pipeline without loading, and whether it works on float32."""
    steps = test_dataset(config).get('pipeline') or config.get('test_pipeline')
    if not steps:
        raise InputError('the config has no test pipeline: set test_dataloader.dataset.pipeline')
    with scope_of(config), builder_sentences():
        loader = TRANSFORMS.build(steps[0])
        if not isinstance(loader, LoadImageFromFile) or loader.color_type != 'color':
            raise InputError(
                f'the test pipeline of the config begins with {steps[0]["type"]}, but inference on pictures needs '
                f"LoadImageFromFile with color_type='color': change test_dataloader.dataset.pipeline.0"
            )
        return Compose([step for step in steps[1:] if 'Annotation' not in _type_name(step)]), loader.to_float32


def _type_name(step: Any) -> str:
    kind = step.get('type') if isinstance(step, dict) else type(step)
    return kind if isinstance(kind, str) else kind.__name__


@contextmanager
def _logits_kept(model: nn.Module, keep: bool) -> Iterator[None]:
    """Asks our segmentor for logits beside the labels, or not; mmseg's always gives both."""
    before = model.test_cfg.get('keep_logits', False)
    model.test_cfg['keep_logits'] = keep
    try:
        yield
    finally:
        model.test_cfg['keep_logits'] = before


@contextmanager
def _reporting(on_error: Callable[[ImageLike, InputError], None] | None, images: list[ImageLike]) -> Iterator[None]:
    """Hands an error inside to `on_error` once for each picture, if there is one."""
    try:
        yield
    except InputError as error:
        if on_error is None:
            raise
        for image in images:
            on_error(image, error)


def _chunks(items: Iterable, size: int) -> Iterator[list]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
