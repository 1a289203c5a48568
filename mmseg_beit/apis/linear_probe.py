"""Linear classifiers on the frozen features of a backbone, at any of its layers.

Setting of BEiT's linear probe (arXiv:2106.08254, appendix): AdamW, learning rate 4e-3, weight decay 1e-4, 100 epochs of
batches of 1024, class token joined with the mean of the patch tokens. NOTE(paper): features are computed once, from the
centre crop, and kept; the paper augments its pictures in every epoch. Features are standardised by the training set's
statistics, so that layers of different scale share one learning rate.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..checkpoint import load_checkpoint, read_state_dict
from ..checkpoint.convert import to_ours
from ..engine.resuming import replacing
from ..errors import InputError
from ..registry import DATASETS, MODELS
from .config import builder_sentences
from .model import resolve_device, scope_of

FEATURES = ('cls', 'mean', 'both')
_FORMAT = 1  # counts up whenever the same inputs give other features


@dataclass(frozen=True)
class ProbeSettings:
    """How the linear classifiers are trained.

    Args:
        epochs: Passes over the features.
        lr: Learning rate of AdamW, falling to 0 as a cosine.
        weight_decay: Of AdamW.
        batch_size: Features per step.
        seed: Of start weights and order.

    Raises:
        InputError: A value is out of its range.
    """

    epochs: int = 100
    lr: float = 4e-3
    weight_decay: float = 1e-4
    batch_size: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('epochs', 'lr', 'batch_size'):
            if getattr(self, name) <= 0:
                raise InputError(f'linear probe: {name}={getattr(self, name)} must be above 0')
        if self.weight_decay < 0:
            raise InputError(f'linear probe: weight_decay={self.weight_decay} must not be negative')


class FrozenBackbone:
    """A backbone of a checkpoint that gives class token and mean patch token of several layers.

    Args:
        config: Config of a model with a BEiT backbone, and of labelled training and validation data.
        checkpoint: Any that the package reads: pre-training, classifier, segmentor.
        layers: 0-based layers; ``None`` for all.
        device: ``'auto'``, ``'cpu'``, ``'cuda'`` or ``'cuda:N'``.
        trust: Runs whatever code a pickled checkpoint brings. Only for files whose author you trust.

    The final norm is applied where the checkpoint has one.

    Raises:
        InputError: The config has no such backbone or layer, or the checkpoint does not fit it.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: str | os.PathLike[str],
        layers: Sequence[int] | None = None,
        device: str | torch.device = 'auto',
        trust: bool = False,
    ) -> None:
        self.device = resolve_device(device)
        tensors, meta = read_state_dict(checkpoint, trust)
        ours, _ = to_ours(tensors, meta, str(checkpoint))
        backbone = config.model.get('backbone')
        if not isinstance(backbone, Mapping) or 'num_layers' not in backbone:
            raise InputError('the config has no model.backbone with num_layers: name one of configs/classification')
        depth = backbone['num_layers']
        self.layers = list(range(depth)) if layers is None else sorted(set(layers))
        if not self.layers or not 0 <= self.layers[0] <= self.layers[-1] < depth:
            raise InputError(f'layers {self.layers} do not fit a backbone of {depth}: name some of 0 to {depth - 1}')
        self._cfg = dict(backbone) | dict(
            out_type='tokens', out_indices=self.layers, init_cfg=None, drop_path_rate=0.0,
            final_norm='backbone.ln1.weight' in ours,
        )  # fmt: skip
        self._preprocessor_cfg = dict(config.model.get('data_preprocessor') or {})
        with scope_of(config), builder_sentences():
            self.backbone = MODELS.build(self._cfg)
            self.preprocessor = MODELS.build(self._preprocessor_cfg)
        load_checkpoint(self.backbone, checkpoint, role='init', trust=trust)
        self.backbone.to(self.device).eval().requires_grad_(False)
        self.preprocessor.to(self.device)

    def fingerprint(self, dataset: Any, pipeline: Any) -> str:
        """Tells apart what gives different features: weights, model, preprocessing, pictures and their labels."""
        digest = hashlib.sha256()
        for name, tensor in self.backbone.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        model = {
            name: value for name, value in self._cfg.items() if name not in ('out_indices', 'with_cp', 'attn_impl')
        }
        digest.update(repr((_FORMAT, model, self._preprocessor_cfg, pipeline)).encode())
        for index in range(len(dataset)):
            item = dataset.get_data_info(index)
            info = os.stat(item['img_path'])
            digest.update(repr((item['img_path'], item['gt_label'], info.st_size, info.st_mtime_ns)).encode())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def features(self, inputs: Tensor, layers: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
        """Class token and mean patch token of a batch, float32 (B, D) each, by layer.

        Args:
            inputs: Float RGB (B, 3, H, W), normalised, on the device.
            layers: Some of :attr:`layers`.
        """
        outs = dict(zip(self.layers, self.backbone(inputs), strict=True))
        return {layer: (outs[layer][:, 0], outs[layer][:, 1:].mean(dim=1)) for layer in layers}


def cached_features(
    frozen: FrozenBackbone,
    config: Config,
    split: str,
    cache_dir: str | os.PathLike[str],
    batch_size: int = 64,
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[int, dict[str, Tensor]], Tensor, tuple[str, ...]]:
    """Features of a split, from the cache where they are there, else computed and put there.

    Args:
        frozen: The backbone.
        config: Config with ``train_dataloader`` and ``val_dataloader``.
        split: ``'train'`` or ``'val'``. Both go through the validation pipeline.
        cache_dir: Folder of one safetensors file per split and layer.
        batch_size: Pictures at once.
        num_workers: Processes that load pictures.
        progress: Called with pictures done and in all.

    Returns:
        By layer ``cls`` and ``mean``, float16 (N, D); labels, int64 (N,); names of the classes.

    Raises:
        InputError: There is no such split, its data cannot be used, or a feature is beyond the range of float16.
    """
    dataset, pipeline = _build_split(config, split)
    key = frozen.fingerprint(dataset, pipeline)
    folder = Path(cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    files = {layer: folder / f'{split}_layer{layer}_{key}.safetensors' for layer in frozen.layers}
    missing = [layer for layer, file in files.items() if not file.is_file()]
    if missing:
        computed = _compute(frozen, config, dataset, missing, batch_size, num_workers, progress)
        for layer, tensors in computed.items():
            with replacing(files[layer]) as temporary:
                save_file(tensors, temporary, metadata=dict(key=key, split=split, layer=str(layer)))
    found = {layer: load_file(file) for layer, file in files.items()}
    labels = torch.tensor([dataset.get_data_info(index)['gt_label'] for index in range(len(dataset))])
    return found, labels, tuple(dataset.metainfo['classes'])


def _build_split(config: Config, split: str) -> tuple[Any, Any]:
    loader, test = config.get(f'{split}_dataloader'), config.get('val_dataloader')
    if not loader or not test:
        raise InputError('a linear probe needs train_dataloader and val_dataloader in the config: name another config')
    pipeline = test['dataset'].get('pipeline')
    with scope_of(config), builder_sentences():
        dataset = DATASETS.build(dict(loader['dataset']) | dict(pipeline=pipeline, test_mode=True))
    if not (dataset.metainfo or {}).get('classes') or 'gt_label' not in dataset.get_data_info(0):
        raise InputError(
            f'the {split} data ({type(dataset).__name__}) has no classes of whole pictures: use ImageFolder'
        )
    return dataset, json.loads(json.dumps(pipeline, default=str))


def _compute(
    frozen: FrozenBackbone,
    config: Config,
    dataset: Any,
    layers: Sequence[int],
    batch_size: int,
    num_workers: int,
    progress: Callable[[int, int], None] | None,
) -> dict[int, dict[str, Tensor]]:
    width = frozen.backbone.embed_dims
    out = {
        layer: {kind: torch.empty(len(dataset), width, dtype=torch.float16) for kind in ('cls', 'mean')}
        for layer in layers
    }
    done = 0
    with scope_of(config):
        for data in DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=pseudo_collate):
            inputs = frozen.preprocessor(data, training=False)['inputs']
            features = frozen.features(inputs, layers)
            for layer, values in features.items():
                for kind, value in zip(('cls', 'mean'), values, strict=True):
                    out[layer][kind][done : done + len(value)] = value.to('cpu', torch.float16)
            done += len(inputs)
            if progress:
                progress(done, len(dataset))
    for layer, tensors in out.items():
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise InputError(f'features of layer {layer} are beyond the range of float16: probe other layers')
    return out


def select(features: Mapping[str, Tensor], kind: str) -> Tensor:
    """One of :data:`FEATURES` of a layer: (N, D), or (N, 2 D) for ``'both'``, the class token first."""
    if kind not in FEATURES:
        raise InputError(f'feature {kind!r} is unknown: choose among {", ".join(FEATURES)}')
    return torch.cat([features['cls'], features['mean']], dim=1) if kind == 'both' else features[kind]


def train_probe(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    num_classes: int,
    settings: ProbeSettings,
    device: torch.device | str = 'cpu',
) -> dict[str, float]:
    """Trains a linear classifier and scores it.

    Args:
        train: Features, float (N, D), and labels, int64 (N,), 0..K-1.
        val: The same for validation.
        num_classes: K.
        settings: How.
        device: Where; all features are moved there.

    Returns:
        ``top1``, ``top5`` and ``train_top1``, in percent, after the last epoch. Top-5 of K < 5 classes is top-K.
    """
    x, y = (tensor.to(device) for tensor in train)
    mean = x.mean(dim=0, dtype=torch.float32)
    # In two steps, as float16 squares overflow, and by parts, as a float32 copy may not fit.
    variance = sum(((part.float() - mean) ** 2).sum(dim=0) for part in x.split(4096)) / len(x)
    std = variance.sqrt().clamp_min(1e-6)
    generator = torch.Generator().manual_seed(settings.seed)
    head = nn.Linear(x.shape[1], num_classes)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.01)
        head.bias.zero_()
    head.to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    steps = settings.epochs * -(-len(x) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(settings.epochs):
        for picked in torch.randperm(len(x), generator=generator).split(settings.batch_size):
            picked = picked.to(device)
            loss = nn.functional.cross_entropy(head((x[picked].float() - mean) / std), y[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def scores(features: Tensor, labels: Tensor, k: int) -> float:
        hits = 0
        with torch.no_grad():
            for part, wanted in zip(features.split(4096), labels.split(4096), strict=True):
                best = head((part.to(device).float() - mean) / std).topk(min(k, num_classes), dim=1).indices
                hits += int((best == wanted.to(device)[:, None]).any(dim=1).sum())
        return 100.0 * hits / len(labels)

    return dict(top1=scores(*val, 1), top5=scores(*val, 5), train_top1=scores(x, y, 1))
