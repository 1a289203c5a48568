"""Classes of whole pictures: a classifier from a config and a checkpoint, and prediction with it.

Source: mmpretrain's ``ImageClassifier`` and the pipeline that the config tests with; reading, batching and the handling
of pictures that fail are :class:`~mmseg_beit.apis.inference.Inferencer`'s.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from ..datasets.image_folder import shown_names
from ..errors import InputError
from ..registry import MODELS
from .checkpoint import load_for_inference
from .config import apply_options, builder_sentences, check_config, load_config
from .inference import Inferencer
from .model import resolve_device, scope_of, test_dataset

_LONGEST = 20  # ratio of the sides beyond which the ends of a picture are cut off before it is resized


def init_classifier(
    config: str | os.PathLike[str] | Config,
    checkpoint: str | os.PathLike[str] | None = None,
    device: str | torch.device = 'auto',
    cfg_options: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> nn.Module:
    """Builds a classifier, loads its weights and puts it into evaluation mode.

    Args:
        config: A config file, or a config (not changed).
        checkpoint: A file, a folder, ``timm://NAME``, ``hf://ORG/NAME`` or ``https://...``; ``None``: random weights.
        device: ``'auto'`` (a GPU if there is one), ``'cpu'``, ``'cuda'`` or ``'cuda:N'``.
        cfg_options: Dotted names of fields of the config and their new values.
        trust: Runs whatever code a pickled checkpoint brings. Only for files whose author you trust.

    Returns:
        The model, with ``cfg`` (its config) and ``dataset_meta``: ``classes``, the K names, from the checkpoint, else
        from the config's data set, else numbers.

    Raises:
        MissingFileError: The config or the checkpoint does not exist.
        InputError: The config is of no classifier, or an option, the checkpoint or the device cannot be used.
    """
    target = resolve_device(device)
    if isinstance(config, Config):
        config = config.copy()
        if cfg_options:
            apply_options(config, cfg_options)
    else:
        config = load_config(config, cfg_options)
    check_config(config)
    with scope_of(config), builder_sentences():
        model = MODELS.build(config.model)
        if not hasattr(getattr(model, 'head', None), 'num_classes'):
            raise InputError(f'model.type={config.model.type} is no classifier: name a config of one')
        described = load_for_inference(model, checkpoint, trust) if checkpoint is not None else {}
    model.dataset_meta = dict(classes=_class_names(model.head.num_classes, described, config))
    model.cfg = config
    return model.to(target).eval()


@dataclass(frozen=True)
class ClassResult:
    """What a classifier says about a picture.

    Args:
        path: The file; None for a picture in memory.
        class_index: The best class, 0..K-1.
        class_name: Its name.
        score: Its probability, 0..1.
        scores: float32 (K,): the probabilities of all classes.
    """

    path: Path | None
    class_index: int
    class_name: str
    score: float
    scores: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """The plain values that ``tools/classify.py`` writes for a picture."""
        return {'class index': self.class_index, 'class name': self.class_name, 'score': round(self.score, 6)}


class ImageClassifierInferencer(Inferencer):
    """Predicts the classes of pictures with a classifier and its config's test pipeline.

    Called and streamed as :class:`~mmseg_beit.apis.inference.Inferencer`, with a :class:`ClassResult` for each picture.

    Args:
        config: A config file, a config, or a model from :func:`init_classifier`.
        checkpoint: A file, a folder, ``timm://NAME``, ``hf://ORG/NAME`` or ``https://...``; not with a model.
        device: ``'auto'`` (a GPU if there is one), ``'cpu'``, ``'cuda'`` or ``'cuda:N'``; not with a model.
        batch_size: Pictures that go through the network at once.
        channel_order: Of arrays that are given: ``'rgb'``, or ``'bgr'``.
        cfg_options: Dotted names of fields of the config and their new values; not with a model.
        trust: Runs whatever code a pickled checkpoint brings. Only for files whose author you trust.

    Raises:
        InputError: Config, checkpoint, device or an option cannot be used.
    """

    def __init__(
        self,
        config: str | os.PathLike | Config | nn.Module,
        checkpoint: str | os.PathLike | None = None,
        device: str | torch.device = 'auto',
        batch_size: int = 1,
        channel_order: str = 'rgb',
        cfg_options: dict[str, Any] | None = None,
        trust: bool = False,
    ) -> None:
        if not isinstance(config, nn.Module):
            config, checkpoint = init_classifier(config, checkpoint, device, cfg_options, trust), None
            cfg_options = None
        super().__init__(
            config, checkpoint, batch_size=batch_size, channel_order=channel_order, cfg_options=cfg_options
        )

    def _packed(self, picture: np.ndarray, path: Path | None) -> dict[str, Any]:
        return super()._packed(_without_far_ends(picture), path)

    def _predict(self, batch: list) -> list[ClassResult]:
        data = {key: [item.packed[key] for item in batch] for key in ('inputs', 'data_samples')}
        with torch.no_grad():
            samples = self.model.test_step(data)
        return [self._result(item, sample) for item, sample in zip(batch, samples, strict=True)]

    def _result(self, item: Any, sample: Any) -> ClassResult:
        scores = sample.pred_score.float().cpu().numpy()
        index = int(scores.argmax())
        return ClassResult(item.path, index, self.model.dataset_meta['classes'][index], float(scores[index]), scores)


def _without_far_ends(picture: np.ndarray) -> np.ndarray:
    """The middle of a very long picture: resized by its short side it would fill the memory, and be cropped anyway."""
    height, width = picture.shape[:2]
    rows, columns = min(height, _LONGEST * width), min(width, _LONGEST * height)
    top, left = (height - rows) // 2, (width - columns) // 2
    return picture[top : top + rows, left : left + columns]


def _class_names(num_classes: int, described: Mapping[str, Any], config: Config) -> tuple[str, ...]:
    """The first list of names that has one for each class; numbered names if there is none."""
    dataset = test_dataset(config) or (config.get('train_dataloader') or {}).get('dataset') or {}
    with scope_of(config):
        candidates = (
            described.get('classes'),
            shown_names(dataset.get('class_names')),
            (dataset.get('metainfo') or {}).get('classes'),
        )
    for names in candidates:
        if isinstance(names, list | tuple) and len(names) == num_classes:
            return tuple(map(str, names))
    print_log(
        f"neither checkpoint nor config names the model's {num_classes} classes: they are numbered",
        'current',
        logging.WARNING,
    )
    return tuple(f'class {k}' for k in range(num_classes))
