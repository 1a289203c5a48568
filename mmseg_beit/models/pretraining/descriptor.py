"""A teacher's network without weights: colours and edges of each patch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry import MODELS

_GREY = (0.299, 0.587, 0.114)  # Rec. 601


@MODELS.register_module()
class PatchDescriptor(nn.Module):
    """Describes each patch by the colours of its four quarters and by the strength of its edges in each direction.

    For :class:`~.teachers.FeatureTeacher`. Histograms of gradients alone (``mmpretrain.HOGGenerator``) are blind to
    colour, which a dVAE, the tokenizer of BEiT v1, keeps.

    Args:
        patch_size: Side of a patch in pixels, even.
        num_directions: Directions of edges, spread over half a turn.
        edge_weight: What the edges are multiplied by.
    """

    def __init__(self, patch_size: int = 8, num_directions: int = 8, edge_weight: float = 10.0) -> None:
        super().__init__()
        self.patch_size, self.num_directions, self.edge_weight = patch_size, num_directions, edge_weight
        self.out_dims = 12 + num_directions
        self.register_buffer('grey', torch.tensor(_GREY).view(1, 3, 1, 1), persistent=False)

    def forward(self, img: Tensor) -> Tensor:
        """Float pictures (B, 3, H, W), normalised, to float (B, 12 + directions, H / patch, W / patch)."""
        quarters = F.pixel_unshuffle(F.avg_pool2d(img, self.patch_size // 2), 2)
        grey = F.pad((img * self.grey).sum(dim=1, keepdim=True), (1, 1, 1, 1), mode='replicate')
        across = (grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]) / 2
        down = (grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]) / 2
        strength = torch.hypot(across, down)
        # The nearest two directions share an edge, by its angle.
        place = torch.atan2(down, across).remainder(math.pi) * (self.num_directions / math.pi)
        steps = torch.arange(self.num_directions, device=img.device).view(1, -1, 1, 1)
        distance = (place - steps).abs()
        distance = torch.minimum(distance, self.num_directions - distance)
        edges = F.avg_pool2d(strength * (1 - distance).clamp(min=0), self.patch_size)
        return torch.cat([quarters / 2, self.edge_weight * edges], dim=1)
