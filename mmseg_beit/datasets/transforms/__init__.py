"""Transforms of the data pipelines. Importing this package registers them all."""

from .loading import LoadAnnotations, LoadImageFromFile

__all__ = ['LoadAnnotations', 'LoadImageFromFile']
