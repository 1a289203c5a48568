"""Transforms of the data pipelines. Importing this package registers them all."""

from .augmentation import PackSegInputs, PhotoMetricDistortion, RandomCrop
from .loading import LoadAnnotations, LoadImageFromFile

__all__ = ['LoadAnnotations', 'LoadImageFromFile', 'PackSegInputs', 'PhotoMetricDistortion', 'RandomCrop']
