"""Data sets. Importing this package registers them all."""

from .base import ADE20KDataset, BaseSegDataset
from .checks.hook import DataCheckHook
from .image_folder import ImageFolder
from .msrc import MSRCDataset
from .pretraining import UnlabelledImages
from .scenes import ScenesDataset

__all__ = [
    'ADE20KDataset',
    'BaseSegDataset',
    'DataCheckHook',
    'ImageFolder',
    'MSRCDataset',
    'ScenesDataset',
    'UnlabelledImages',
]
