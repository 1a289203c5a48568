"""Segmentors."""

from .encoder_decoder import EncoderDecoder
from .exported import ExportedSegmentor
from .tta import SegTTAModel

__all__ = ['EncoderDecoder', 'ExportedSegmentor', 'SegTTAModel']
