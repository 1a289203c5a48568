"""Transforms of the data pipelines. Importing this package registers them all."""

from .augmentation import PackSegInputs, PhotoMetricDistortion, RandomCrop, RandomFlip
from .loading import LoadAnnotations, LoadImageFromFile
from .masking import BlockwiseMask
from .pretraining import PackViews, RandomResizedCropTwoViews, ResizeAndCenterCrop
from .resizing import Resize, resize_on_demand

__all__ = [
    'BlockwiseMask',
    'LoadAnnotations',
    'LoadImageFromFile',
    'PackSegInputs',
    'PackViews',
    'PhotoMetricDistortion',
    'RandomCrop',
    'RandomFlip',
    'RandomResizedCropTwoViews',
    'Resize',
    'ResizeAndCenterCrop',
    'resize_on_demand',
]
