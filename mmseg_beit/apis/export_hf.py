"""A trained segmentor as a folder that transformers loads, with its picture processing and a model card."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from ..checkpoint import convert_checkpoint
from ..errors import InputError, MissingFileError
from .model import init_model


@dataclass
class TransformersCheck:
    """How transformers' model compares with ours on one picture of the model's size."""

    largest_difference: float
    largest_logit: float


def export_transformers(
    config: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    metrics: str | os.PathLike[str] | None = None,
    cfg_options: dict[str, Any] | None = None,
    trust: bool = False,
) -> TransformersCheck | None:
    """Writes ``config.json``, ``model.safetensors``, ``preprocessor_config.json`` and a model card.

    Args:
        config: The model's config.
        checkpoint: Its weights, of any known family.
        folder: The folder to write; new or empty.
        metrics: The ``metrics.json`` that ``tools/test.py`` wrote for this checkpoint, for the model card.
        cfg_options: Fields of the config to change.
        trust: Runs whatever code a pickled checkpoint brings.

    Returns:
        The comparison with transformers, ``None`` where it is not installed.

    Raises:
        MissingFileError: A file does not exist.
        InputError: The folder is not empty, transformers has no such network, or its logits are not ours.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f'{folder} exists and is not an empty folder: give another name')
    figures = _read_metrics(metrics)
    model = init_model(config, checkpoint, device='cpu', cfg_options=cfg_options, trust=trust)
    with tempfile.TemporaryDirectory() as scratch:
        # The weights as they are in memory: whatever family the file was of, they are now this config's.
        weights = Path(scratch, 'weights.pth')
        torch.save(model.state_dict(), weights)
        convert_checkpoint(
            weights,
            folder,
            'hf',
            source_grid=model.backbone.grid,
            out_indices=model.backbone.out_indices,
            norm_eps=model.backbone.layers[0].ln1.eps,
        )
    _name_classes(folder / 'config.json', model.dataset_meta)
    (folder / 'preprocessor_config.json').write_text(json.dumps(_processing(model), indent=2) + '\n')
    (folder / 'README.md').write_text(_card(model, Path(str(checkpoint)).name, figures))
    return _compare(folder, model)


def _read_metrics(path: str | os.PathLike[str] | None) -> dict[str, Any] | None:
    if path is None:
        return None
    if not Path(path).is_file():
        raise MissingFileError(f'--metrics {path} does not exist: give the metrics.json that tools/test.py wrote')
    try:
        figures = json.loads(Path(path).read_text())
        return {key: figures[key] for key in ('mIoU', 'mAcc', 'aAcc', 'images')}
    except (ValueError, KeyError, TypeError):
        raise InputError(f'--metrics {path} is no metrics.json of tools/test.py: run the test again') from None


def _name_classes(path: Path, meta: dict[str, Any]) -> None:
    content = json.loads(path.read_text())
    content['id2label'] = {str(i): name for i, name in enumerate(meta['classes'])}
    content['label2id'] = {name: i for i, name in enumerate(meta['classes'])}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + '\n')


def _processing(model: nn.Module) -> dict[str, Any]:
    """Transformers' picture processing with our normalisation. It resizes to one size, where ours keeps the ratio."""
    preprocessor = model.data_preprocessor
    height, width = model.backbone.img_size
    return dict(
        image_processor_type='BeitImageProcessor',
        do_resize=True,
        size=dict(height=height, width=width),
        resample=2,
        do_center_crop=False,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[value / 255 for value in preprocessor.mean.flatten().tolist()],
        image_std=[value / 255 for value in preprocessor.std.flatten().tolist()],
        do_reduce_labels=bool(model.dataset_meta.get('reduce_zero_label', False)),
    )


def _card(model: nn.Module, checkpoint: str, figures: dict[str, Any] | None) -> str:
    height, width = model.backbone.img_size
    classes = model.dataset_meta['classes']
    if figures is None:
        measured = 'Not measured: give `--metrics metrics.json` when exporting.'
    else:
        measured = (
            f'mIoU {figures["mIoU"]}, mAcc {figures["mAcc"]}, aAcc {figures["aAcc"]} (percent) on {figures["images"]} '
            "validation pictures, measured by mmseg_beit's `tools/test.py` with its own test pipeline."
        )
    training = Config({key: model.cfg[key] for key in _TRAINING_FIELDS if model.cfg.get(key) is not None})
    return f"""---
library_name: transformers
pipeline_tag: image-segmentation
tags:
- beit
- semantic-segmentation
---

# {type(model.backbone).__name__} with {type(model.decode_head).__name__}, {height}x{width}, {len(classes)} classes

Written by mmseg_beit from `{checkpoint}`.

## Use

```python
from transformers import AutoImageProcessor, BeitForSemanticSegmentation

processor = AutoImageProcessor.from_pretrained(FOLDER)
model = BeitForSemanticSegmentation.from_pretrained(FOLDER)
```

The processor resizes every picture to {height}x{width}. mmseg_beit keeps the ratio of sides and slides windows over
larger pictures, so the figures below are for that way of testing.

## Figures

{measured}

## Classes

{', '.join(f'{i} {name}' for i, name in enumerate(classes))}

## Training config

```python
{training.pretty_text.strip()}
```
"""


_TRAINING_FIELDS = ('model', 'train_pipeline', 'train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg')


def _compare(folder: Path, model: nn.Module) -> TransformersCheck | None:
    try:
        from transformers import BeitForSemanticSegmentation
    except ImportError:
        return None
    peer = BeitForSemanticSegmentation.from_pretrained(folder).eval()
    image = torch.randn(1, 3, *model.backbone.img_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = peer(pixel_values=image).logits
        ours = model.decode_head(model.extract_feat(image))
    check = TransformersCheck((ours - theirs).abs().max().item(), ours.abs().max().item())
    if not check.largest_difference <= 1e-3 * max(check.largest_logit, 1e-6):
        raise InputError(
            f"{folder}: transformers' logits are {check.largest_difference:.1e} apart from ours, so do not use the "
            'folder: please report it with your version of transformers'
        )
    return check
