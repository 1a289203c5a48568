"""A segmentor as one graph from pictures to logits or labels, with batch, height and width open.

The graph pads to the patch size, crops back and resizes by itself. It is the whole-image form: sliding windows belong
to whoever calls it.
"""

import copy
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .layers.attention import RelativePosition
from .layers.dynamic import OpenGridBias, OpenSizePool


class ExportableSegmentor(nn.Module):
    """Copies a segmentor and makes every step of it fit for open sizes.

    Args:
        model: Our ``EncoderDecoder``; not changed.
        max_size: Largest height and width in pixels that the graph will take.
        output: ``logits``: float32 (B, K, H, W); ``mask``: int64 (B, H, W), 0..K-1.
        uint8_input: Whether the graph takes uint8 RGB pictures (B, H, W, 3), 0..255, and normalises them; else it takes
            normalised float32 RGB (B, 3, H, W).
    """

    def __init__(self, model: nn.Module, max_size: int, output: str = 'logits', uint8_input: bool = False) -> None:
        super().__init__()
        model = copy.deepcopy(model).eval()
        self.backbone = model.backbone
        self.neck = model.neck if model.with_neck else nn.Identity()
        self.decode_head = model.decode_head
        self.patch_size = model.patch_size
        self.align_corners = model.align_corners
        self.output = output
        self.uint8_input = uint8_input
        preprocessor = model.data_preprocessor
        self.register_buffer('mean', preprocessor.mean.clone().view(1, 3, 1, 1), persistent=False)
        self.register_buffer('std', preprocessor.std.clone().view(1, 3, 1, 1), persistent=False)
        self._open_sizes(-(-max_size // self.patch_size))

    def _open_sizes(self, max_patches: int) -> None:
        shared: dict[tuple[int, int], OpenGridBias] = {}
        for module in list(self.modules()):
            if isinstance(module, RelativePosition) and module.grid is not None:
                grid = tuple(module.grid)
                module.open_bias = shared.setdefault(grid, OpenGridBias(grid, max_patches))
            for name, child in list(module.named_children()):
                if isinstance(child, nn.AdaptiveAvgPool2d):
                    size = child.output_size
                    setattr(module, name, OpenSizePool(size[0] if isinstance(size, Sequence) else size))

    def forward(self, image: Tensor) -> Tensor:
        """Pictures of any size to what ``output`` says."""
        if self.uint8_input:
            image = (image.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std
        height, width = image.shape[2:]
        pad_h = (height + self.patch_size - 1) // self.patch_size * self.patch_size - height
        pad_w = (width + self.patch_size - 1) // self.patch_size * self.patch_size - width
        padded = F.pad(image, (0, pad_w, 0, pad_h))
        logits = self.decode_head(self.neck(self.backbone(padded)))
        logits = F.interpolate(logits, size=padded.shape[2:], mode='bilinear', align_corners=self.align_corners)
        logits = logits[:, :, :height, :width]
        return logits.argmax(dim=1) if self.output == 'mask' else logits
