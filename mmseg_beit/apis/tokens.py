"""Pictures of visual words: what a tokenizer sees in a photograph, and what masked image modelling predicts.

Words are shown as colours: the principal components of their vectors, so that like words have like colours, the same in
every picture.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

from ..checkpoint import convert_state_dict, read_state_dict
from ..errors import InputError
from ..registry import MODELS, TRANSFORMS
from ..visualization.principal import PrincipalColors
from .config import builder_sentences, check_config, load_config
from .data_flow import seeded
from .model import resolve_device, scope_of
from .pictures import read_picture

_HIDDEN = 128  # grey of hidden patches, and of visible ones among predictions


@dataclass(frozen=True)
class TokenPicture:
    """What there is to see of a photograph.

    Args:
        path: Its file.
        panels: uint8 RGB (H, W, 3) by title, in the order to show.
        figures: ``right`` and ``hidden``, numbers of patches, of masked image modelling; ``cosine`` of a tokenizer.
    """

    path: Path
    panels: dict[str, np.ndarray]
    figures: dict[str, float]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the panels side by side as one picture, by the file's ending."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(2.4 * len(self.panels), 2.7), layout='constrained')
        places = figure.subplots(1, len(self.panels), squeeze=False)[0]
        for axes, (title, panel) in zip(places, self.panels.items(), strict=True):
            axes.imshow(panel, interpolation='nearest')
            axes.set_title(title, fontsize=9)
            axes.set_axis_off()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)


class TokenShower:
    """A model of pre-training, ready to show its words.

    Args:
        config: A config file of ``configs/pretraining`` or ``configs/tokenizer``.
        checkpoint: What its run wrote.
        device: ``'auto'`` (a GPU if there is one), ``'cpu'``, ``'cuda'`` or ``'cuda:N'``.
        cfg_options: Dotted names of fields of the config and their new values.
        seed: Of the masks.
        trust: Runs whatever code a pickled checkpoint brings. Only for files whose author you trust.

    Raises:
        MissingFileError: The config, the checkpoint or the tokenizer's checkpoint does not exist.
        InputError: The config is of another stage, or something in it or the checkpoint cannot be used.
    """

    def __init__(
        self,
        config: str | os.PathLike[str],
        checkpoint: str | os.PathLike[str],
        device: str = 'auto',
        cfg_options: Mapping[str, Any] | None = None,
        seed: int = 0,
        trust: bool = False,
    ) -> None:
        self.device = resolve_device(device)
        self.config = load_config(config, cfg_options)
        check_config(self.config)
        self.seed = seed
        with scope_of(self.config), builder_sentences():
            self.model = MODELS.build(self.config.model)
            self.predicts = hasattr(self.model, 'tokenizer')
            if not self.predicts and not hasattr(self.model, 'quantize'):
                raise InputError(
                    f'model.type={self.config.model.type} has no visual words: name a config of configs/pretraining or '
                    'configs/tokenizer'
                )
            if self.predicts:
                self.masker = TRANSFORMS.build(_mask_transform(self.config))
            _load(self.model, checkpoint, trust)
        self.model.to(self.device).eval()
        self.tokenizer = self.model.tokenizer if self.predicts else self.model
        codebook = self.tokenizer.codebook.float().cpu().numpy()
        self.palette = PrincipalColors.of(codebook)(codebook)

    def default_images(self, count: int) -> list[str]:
        """Some pictures of the config's data, evenly spaced over it: those of validation where there are any.

        Raises:
            InputError: The config names no data, or they are not there.
        """
        loader = self.config.get('val_dataloader') or self.config.get('train_dataloader')
        if not loader:
            raise InputError('the config names no data: give IMAGES')
        from ..registry import DATASETS

        with scope_of(self.config), builder_sentences():
            dataset = DATASETS.build(dict(loader.dataset) | dict(pipeline=[]))
        places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
        return [dataset.get_data_info(int(place))['img_path'] for place in places]

    @torch.no_grad()
    def show(self, path: str | os.PathLike[str], number: int = 0) -> TokenPicture:
        """Looks at a photograph: the largest part of its middle that has the model's shape.

        Args:
            path: The file.
            number: Which of the seeded masks hides its patches.

        Raises:
            MissingFileError: There is no such file.
            InputError: It cannot be read.
        """
        picture = read_picture(path)
        network = self.model.backbone if self.predicts else self.model.encoder
        photo = _view(picture, network.img_size)
        if self.predicts:
            return self._predict(Path(path), picture, photo, number)
        return self._tokenize(Path(path), photo)

    def _predict(self, path: Path, picture: np.ndarray, photo: np.ndarray, number: int) -> TokenPicture:
        grid, stride = self.model.backbone.grid, self.tokenizer.stride
        with seeded(self.seed + number):
            mask = self.masker.transform({})['mask']
        batch = dict(
            img=_batch(photo), target_img=_batch(_view(picture, (grid[0] * stride, grid[1] * stride))),
            mask=torch.from_numpy(mask)[None],
        )  # fmt: skip
        if self.model.data_preprocessor.bgr_to_rgb:
            batch |= {name: batch[name].flip(1) for name in ('img', 'target_img')}
        batch = self.model.data_preprocessor(batch)
        result = self.model(**batch, mode='predict')[0]
        codes, target = result['codes'].cpu().numpy(), result['target_codes'].cpu().numpy()
        hidden, right = int(mask.sum()), int((mask & (codes == target)).sum())
        patch = self.model.backbone.patch_size
        covered = np.where(_enlarged(mask, patch)[..., None], np.uint8(_HIDDEN), photo)
        predicted = np.where(mask[..., None], self.palette[codes], np.uint8(_HIDDEN))
        panels = {
            'photograph': photo,
            f'{hidden} of {mask.size} patches hidden': covered,
            f'{len(np.unique(target))} visual words': _enlarged(self.palette[target], patch),
            f'predicted, {right} of {hidden} right': _enlarged(predicted, patch),
        }
        return TokenPicture(path, panels, dict(right=right, hidden=hidden))

    def _tokenize(self, path: Path, photo: np.ndarray) -> TokenPicture:
        img = _batch(photo).to(self.device).float()
        codes = self.model.tokenize(img)[0].cpu().numpy()
        patch = self.model.encoder.patch_size
        panels = {
            'photograph': photo,
            f'{len(np.unique(codes))} visual words': _enlarged(self.palette[codes], patch),
        }
        if self.model.teacher is None:
            return TokenPicture(path, panels, {})
        theirs, ours = (part[0].float().cpu().numpy() for part in self.model.compare(img))
        colors = PrincipalColors.of(theirs)
        # A decoder is taught directions: its lengths mean nothing, so it is shown at the teacher's.
        scale = np.linalg.norm(theirs, axis=-1) / np.linalg.norm(ours, axis=-1).clip(1e-12)
        cosine = float(F.cosine_similarity(torch.from_numpy(theirs), torch.from_numpy(ours), dim=-1).mean())
        shown = {"teacher's features": theirs, f'decoded, cosine {cosine:.2f}': ours * scale[:, None]}
        for title, features in shown.items():
            panels[title] = _enlarged(colors(features).reshape(*codes.shape, 3), patch)
        return TokenPicture(path, panels, dict(cosine=cosine))


def _load(model: nn.Module, source: str | os.PathLike[str], trust: bool) -> None:
    if hasattr(model, 'tokenizer'):
        model.tokenizer.init_weights()  # part of no checkpoint
    state_dict, meta = read_state_dict(source, trust)
    if hasattr(model, 'fit_state_dict'):
        fitted = model.fit_state_dict(state_dict, str(source))
    else:
        fitted, _ = convert_state_dict(state_dict, model, meta=meta, role='test', source=str(source))
    model.load_state_dict(fitted, strict=False)


def _mask_transform(config: Config) -> dict:
    for step in _steps(config.get('train_dataloader') or {}):
        if step.get('type') == 'BlockwiseMask':
            return dict(step)
    raise InputError(
        "train_dataloader.dataset.pipeline has no BlockwiseMask, which hides the patches: add the recipe's"
    )


def _steps(node: Any) -> Iterator[Mapping]:
    if isinstance(node, Mapping):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for part in node:
            yield from _steps(part)


def _view(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    transform = TRANSFORMS.build(dict(type='mmseg_beit.ResizeAndCenterCrop', size=size, share=1.0))
    return transform.transform(dict(img=picture))['img']


def _batch(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]


def _enlarged(grid: np.ndarray, factor: int) -> np.ndarray:
    return grid.repeat(factor, axis=0).repeat(factor, axis=1)
