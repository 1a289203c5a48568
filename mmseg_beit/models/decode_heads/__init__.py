"""Decode heads."""

from .fcn_head import FCNHead
from .setr_up_head import SETRUPHead
from .uper_head import UPerHead

__all__ = ['FCNHead', 'SETRUPHead', 'UPerHead']
