"""Teachers of the tokenizer: frozen networks whose features it learns to reconstruct (BEiT v2, section 3.1).

A teacher takes pictures in 0..255, normalises and resizes them as it was trained, and gives a feature map. It is part
of no checkpoint: its weights are named in the config and read when it is first used, in a test too.
"""

import difflib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from ...checkpoint import load_checkpoint, read_state_dict
from ...errors import InputError
from ...registry import MODELS

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class Teacher(nn.Module, ABC):
    """Base of all teachers.

    Args:
        mean: Of the pictures it was trained on, RGB in 0..255.
        std: Likewise.
        size: (height, width) that pictures are resized to; ``None`` to take them as they are.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.size = size
        self._loaded = False

    @abstractmethod
    def features(self, img: Tensor) -> Tensor:
        """Feature map (B, D, h, w) of normalised pictures (B, 3, H, W)."""

    @abstractmethod
    def load(self) -> None:
        """Reads the weights that the config names."""

    def init_weights(self) -> None:
        """Reads the weights, once."""
        if not self._loaded:
            self._loaded = True
            self.load()
            self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, img: Tensor, grid: tuple[int, int]) -> Tensor:
        """Target features.

        Args:
            img: Float RGB (B, 3, H, W), 0..255.
            grid: (h, w) of the tokens that are to be taught.

        Returns:
            Float32 (B, h w, D).
        """
        self.init_weights()
        if self.size is not None and self.size != tuple(img.shape[2:]):
            img = F.interpolate(img, self.size, mode='bicubic', align_corners=False, antialias=True).clamp(0, 255)
        features = self.features((img - self.mean) / self.std).float()
        if tuple(features.shape[2:]) != tuple(grid):
            finer = features.shape[2] >= grid[0] and features.shape[3] >= grid[1]
            features = (
                F.adaptive_avg_pool2d(features, grid)
                if finer
                else F.interpolate(features, grid, mode='bilinear', align_corners=False)
            )
        return features.flatten(2).transpose(1, 2)

    def train(self, mode: bool = True) -> 'Teacher':
        """Stays in evaluation mode."""
        return super().train(False)


@MODELS.register_module()
class TimmTeacher(Teacher):
    """A network of timm's, such as ``vit_base_patch16_clip_224.openai`` or ``vit_base_patch16_224.dino``.

    Args:
        name: timm's name, with its tag after a dot.
        project: Applies the network's head to every token (CLIP's projection to 512 numbers); else the normalised
            tokens are the features.
        checkpoint: Weights from a file instead of from timm's hub, safetensors or ``torch.save``.
        pretrained: False for random weights, for tests.

    Raises:
        InputError: timm knows no such network, its weights cannot be had, or it has no feature map.
    """

    def __init__(
        self, name: str, project: bool = False, checkpoint: str | None = None, pretrained: bool = True
    ) -> None:
        timm = _timm()
        _check_timm_name(timm, name, pretrained and checkpoint is None)
        model = timm.create_model(name, pretrained=False)
        config = model.pretrained_cfg
        super().__init__(
            [255 * value for value in config['mean']],
            [255 * value for value in config['std']],
            tuple(config['input_size'][1:]),
        )
        self.name, self.checkpoint, self.pretrained = name, checkpoint, pretrained
        self.project = project
        self.model = model
        head = getattr(model, 'head', None)
        if project and not isinstance(head, nn.Linear):
            raise InputError(f'teacher {name} has no linear head to project with: set project=False')
        self.out_dims = head.out_features if project else model.num_features

    def load(self) -> None:
        """Reads the file, or has timm fetch the published weights."""
        overlay = dict(file=self.checkpoint) if self.checkpoint else {}
        if not (self.pretrained or self.checkpoint):
            return
        if self.checkpoint:
            read_state_dict(self.checkpoint)  # Refuses what is missing or wants to run code, before timm opens it.
        else:
            print_log(f"Teacher {self.name}: asking timm's hub for its weights", logger='current')
        # The hub's client tells of each of its retries; what it ends with is told below.
        logging.getLogger('huggingface_hub').setLevel(logging.ERROR)
        try:
            loaded = _timm().create_model(self.name, pretrained=True, pretrained_cfg_overlay=overlay)
        except Exception as error:  # Whatever the hub's client, or a file of another network, fails with.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition('. ')[0].rstrip('.')
            where = self.checkpoint or "timm's hub"
            raise InputError(
                f'the weights of teacher {self.name} cannot be read from {where} ({reason}): download them once and '
                f'set checkpoint=FILE in the teacher'
            ) from None
        self.model.load_state_dict(loaded.state_dict())
        print_log(f'Teacher {self.name}, {self.out_dims} features', logger='current')

    def features(self, img: Tensor) -> Tensor:
        """Feature map (B, D, h, w) of normalised pictures (B, 3, H, W)."""
        out = self.model.forward_features(img)
        if out.ndim == 4:
            return out
        tokens = out[:, getattr(self.model, 'num_prefix_tokens', 1) :]
        if self.project:
            tokens = self.model.head(tokens)
        patch = self.model.patch_embed.patch_size
        grid = (img.shape[2] // patch[0], img.shape[3] // patch[1])
        return tokens.transpose(1, 2).unflatten(2, grid)


@MODELS.register_module()
class FeatureTeacher(Teacher):
    """Any registered backbone, the last of whose outputs are the features.

    Args:
        backbone: Config of a backbone of ours, of mmseg's or, as ``mmpretrain.NAME``, of mmpretrain's.
        out_dims: Width D of its features.
        checkpoint: Weights: for a BEiT anything that loads into segmentation too, such as a segmentor's checkpoint;
            ``None`` for none (descriptors such as ``mmpretrain.HOGGenerator``; a network then has fixed random
            weights).
        mean: Of the pictures it was trained on, RGB in 0..255.
        std: Likewise.
        size: (height, width) that pictures are resized to; ``None`` to take them as they are.
        centre: Takes each feature vector's own mean off. Where all features are positive (histograms), every two
            have a high cosine, and a tokenizer of one code would already do well.
    """

    def __init__(
        self,
        backbone: dict,
        out_dims: int,
        checkpoint: str | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        size: tuple[int, int] | None = None,
        centre: bool = False,
    ) -> None:
        super().__init__(mean, std, size)
        self.centre = centre
        self.backbone = MODELS.build(backbone)
        self.out_dims = out_dims
        self.checkpoint = checkpoint

    def load(self) -> None:
        """Reads the checkpoint, or draws the same random weights every time."""
        if self.checkpoint is None:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                for module in self.backbone.modules():
                    if hasattr(module, 'reset_parameters'):
                        module.reset_parameters()
                if hasattr(self.backbone, 'init_weights'):
                    self.backbone.init_weights()
        elif hasattr(self.backbone, 'layer_id'):  # A BEiT
            load_checkpoint(self.backbone, self.checkpoint, role='init')
        else:
            state_dict, _ = read_state_dict(self.checkpoint)
            state_dict = {name.removeprefix('backbone.'): tensor for name, tensor in state_dict.items()}
            missing = self.backbone.load_state_dict(state_dict, strict=False).missing_keys
            if missing:
                raise InputError(
                    f'teacher checkpoint {self.checkpoint} lacks {missing[0]}: name a checkpoint of its backbone '
                    f'({type(self.backbone).__name__})'
                )

    def features(self, img: Tensor) -> Tensor:
        """Feature map (B, D, h, w) of normalised pictures (B, 3, H, W)."""
        # Mixed precision is for networks: descriptors are not written for it, and take little time.
        is_network = next(self.backbone.parameters(), None) is not None
        with torch.autocast(img.device.type, enabled=is_network and torch.is_autocast_enabled(img.device.type)):
            out: Any = self.backbone(img)
        out = out[-1] if isinstance(out, tuple | list) else out
        if out.ndim == 3:
            # Tokens, perhaps behind a class token.
            side = math.isqrt(out.shape[1])
            out = out[:, out.shape[1] - side * side :].transpose(1, 2).unflatten(2, (side, side))
        if out.ndim != 4 or out.shape[1] != self.out_dims:
            raise InputError(
                f'teacher {type(self.backbone).__name__} gives features of shape {tuple(out.shape)}, not a map of '
                f'out_dims={self.out_dims} channels: correct out_dims'
            )
        return out - out.mean(dim=1, keepdim=True) if self.centre else out


def _timm() -> Any:
    # Heavy, and not needed for a tokenizer that is only used.
    import timm

    return timm


def _check_timm_name(timm: Any, name: str, needs_weights: bool) -> None:
    architecture, _, tag = name.partition('.')
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(name, [*timm.list_pretrained(), *timm.list_models()], n=1, cutoff=0.4)
        hint = f'did you mean {near[0]}?' if near else 'timm.list_pretrained() lists the names'
        raise InputError(f'teacher {name} is no network that timm knows: {hint}')
    tags = [
        full.partition('.')[2]
        for full in timm.list_pretrained(f'{architecture}*')
        if full.split('.')[0] == architecture
    ]
    if needs_weights and tag not in (tags if tag else [*tags, '']):
        raise InputError(f'teacher {name}: timm has no weights {tag!r} of {architecture}, but {", ".join(tags)}')
