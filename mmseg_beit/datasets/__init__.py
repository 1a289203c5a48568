"""Data sets. Importing this package registers them all."""

from .msrc import MSRCDataset
from .scenes import ScenesDataset

__all__ = ['MSRCDataset', 'ScenesDataset']
