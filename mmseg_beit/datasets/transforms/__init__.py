"""Transforms of the data pipelines. Importing this package registers them all."""

from .augmentation import PackSegInputs, PhotoMetricDistortion, RandomCrop
from .loading import LoadAnnotations, LoadImageFromFile
from .masking import BlockwiseMask
from .pretraining import PackViews, RandomResizedCropTwoViews, ResizeAndCenterCrop

__all__ = [
    'BlockwiseMask',
    'LoadAnnotations',
    'LoadImageFromFile',
    'PackSegInputs',
    'PackViews',
    'PhotoMetricDistortion',
    'RandomCrop',
    'RandomResizedCropTwoViews',
    'ResizeAndCenterCrop',
]
