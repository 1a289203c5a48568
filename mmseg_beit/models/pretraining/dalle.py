"""The encoder of DALL-E's discrete VAE (arXiv:2102.12092, appendix A.2), the tokenizer of BEiT v1.

A convolutional network in four groups of bottleneck blocks with max-pooling between them, so that an image of H x W
pixels gives H/8 x W/8 tokens; BEiT shows it 112 pixels where the backbone sees 224. Tensor names are those of the
published weights (``blocks.group_1.block_1.res_path.conv_1.w``).

Known forms of the weights: a state dict (mmpretrain's ``dalle_encoder.pth``, or one saved from OpenAI's module).
OpenAI's own ``encoder.pkl`` is a pickled program and is refused; docs/pretraining.md says how to save its tensors.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...checkpoint import read_state_dict
from ...errors import InputError
from ...registry import MODELS
from .frozen import check_num_codes

LOGIT_LAPLACE_EPS = 0.1


class _Conv(nn.Module):
    """Convolution that keeps the size, with the published names ``w`` and ``b``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel) / (in_channels * kernel**2) ** 0.5)
        self.b = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, padding=self.w.shape[-1] // 2)


class _Bottleneck(nn.Module):
    """Residual block: three 3x3 convolutions at a quarter of the width, one 1x1 back."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int) -> None:
        super().__init__()
        width = out_channels // 4
        self.id_path = nn.Identity() if in_channels == out_channels else _Conv(in_channels, out_channels, 1)
        widths = [(in_channels, width, 3), (width, width, 3), (width, width, 3), (width, out_channels, 1)]
        path: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (before, after, kernel) in enumerate(widths, start=1):
            path[f'relu_{i}'] = nn.ReLU()
            path[f'conv_{i}'] = _Conv(before, after, kernel)
        self.res_path = nn.Sequential(path)
        self.gain = 1 / num_blocks**2  # Keeps the sum of all branches bounded.

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.gain * self.res_path(x)


@MODELS.register_module()
class DalleEncoder(BaseModule):
    """Frozen tokenizer: images to visual words.

    Args:
        num_groups: Groups of blocks; the side shrinks by 2 between groups.
        hidden_dims: Channels of the first group; each later group has twice as many.
        blocks_per_group: Blocks in each.
        num_codes: Visual words K.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)`` names the weights.
    """

    def __init__(
        self,
        num_groups: int = 4,
        hidden_dims: int = 256,
        blocks_per_group: int = 2,
        num_codes: int = 8192,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_codes = num_codes
        self.stride = 2 ** (num_groups - 1)
        parts: OrderedDict[str, nn.Module] = OrderedDict(input=_Conv(3, hidden_dims, 7))
        width = hidden_dims
        for g in range(num_groups):
            group: OrderedDict[str, nn.Module] = OrderedDict()
            out_width = hidden_dims * 2**g
            for i in range(blocks_per_group):
                group[f'block_{i + 1}'] = _Bottleneck(width, out_width, num_groups * blocks_per_group)
                width = out_width
            if g < num_groups - 1:
                group['pool'] = nn.MaxPool2d(2)
            parts[f'group_{g + 1}'] = nn.Sequential(group)
        parts['output'] = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=_Conv(width, num_codes, 1)))
        self.blocks = nn.Sequential(parts)
        self.requires_grad_(False)
        # In bfloat16 on a CPU the convolutions take half as long with channels last in memory.
        self.to(memory_format=torch.channels_last)

    @property
    def is_ready(self) -> bool:
        """Always: the classifier over codes has no state to wait for."""
        return True

    @property
    def codebook(self) -> Tensor:
        """What the classifier looks for in each code's place, (K, C)."""
        return self.blocks[-1].conv.w.flatten(1)

    def forward(self, img: Tensor) -> Tensor:
        """Scores of the visual words.

        Args:
            img: Float (B, 3, H, W), :func:`map_pixels`' range; H and W multiples of 8.

        Returns:
            Float32 (B, K, H/8, W/8).
        """
        features = self.blocks[:-1](img.contiguous(memory_format=torch.channels_last))
        # The argmax over thousands of close scores is taken in full precision; so does the published module.
        with torch.autocast(img.device.type, enabled=False):
            return self.blocks[-1](features.float())

    @torch.no_grad()
    def tokenize(self, img: Tensor) -> Tensor:
        """Visual words of images.

        Args:
            img: Float RGB (B, 3, H, W), 0..255; H and W multiples of 8.

        Returns:
            Int64 (B, H/8, W/8), 0..K-1.

        Raises:
            InputError: A side is not a multiple of 8.
        """
        if any(side % self.stride or not side for side in img.shape[2:]):
            raise InputError(
                f'the tokenizer DalleEncoder takes sides that are multiples of {self.stride}, not '
                f'{img.shape[2]}x{img.shape[3]}: set second_size of RandomResizedCropTwoViews to 8 pixels per patch'
            )
        return self(map_pixels(img)).argmax(dim=1)

    def init_weights(self) -> None:
        """Loads the weights that ``init_cfg`` names."""
        if self.init_cfg is not None:
            self.load_tokenizer(self.init_cfg['checkpoint'])
        self._is_init = True

    def load_tokenizer(self, path: str, trust: bool = False) -> None:
        """Loads published weights.

        Args:
            path: A file that :func:`mmseg_beit.checkpoint.read_state_dict` reads.
            trust: Runs the code that a pickle brings.

        Raises:
            MissingFileError: There is no such file.
            InputError: It cannot be read safely, or holds another network or another number of codes.
        """
        state_dict, _ = read_state_dict(path, trust)
        self.load_state_dict(self.fit_state_dict(state_dict, str(path)))
        print_log(f'Tokenizer {path}: dVAE encoder with {self.num_codes} codes', logger='current')

    def fit_state_dict(self, state_dict: dict[str, Tensor], source: str, strict: bool = True) -> dict[str, Tensor]:
        """The tensors of a file under this module's names; see :meth:`load_tokenizer` for what it raises."""
        named = {name.removeprefix('encoder.'): tensor for name, tensor in state_dict.items()}
        own = self.state_dict()
        fitted = {name: named[name] for name in own if name in named}
        if not fitted:
            raise InputError(
                f'{source} holds no DALL-E encoder (no tensor is named {next(iter(own))}): name dalle_encoder.pth, or '
                f'the state dict of the published encoder'
            )
        check_num_codes(fitted.get('blocks.output.conv.w'), self.num_codes, source)
        for name, tensor in own.items():
            if name not in fitted:
                raise InputError(f'{source} lacks {name}: it was cut short, or is an encoder of another size')
            if fitted[name].shape != tensor.shape:
                raise InputError(
                    f'{source}: {name} has shape {tuple(fitted[name].shape)}, the tokenizer wants '
                    f'{tuple(tensor.shape)}: set hidden_dims and blocks_per_group to match'
                )
        return fitted


def map_pixels(img: Tensor) -> Tensor:
    """Float 0..255 to the range 0.1..0.9 that the dVAE's logit-Laplace likelihood was trained with."""
    return (1 - 2 * LOGIT_LAPLACE_EPS) / 255 * img + LOGIT_LAPLACE_EPS
