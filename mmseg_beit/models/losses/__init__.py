"""Losses."""

from .head_loss import UpsampledLossMixin
from .upsampled_cross_entropy import upsampled_cross_entropy

__all__ = ['UpsampledLossMixin', 'upsampled_cross_entropy']
