"""Checkpoints: safe reading, recognising a family, renaming, fitting position tables, reporting.

:func:`load_checkpoint` is the one way into a model; beneath it are functions on dictionaries of tensors.
"""

from .convert import from_ours, to_ours
from .fit import Target
from .load import convert_state_dict, load_checkpoint
from .reading import read_state_dict
from .report import Report
from .writing import convert_checkpoint, inspect_checkpoint

__all__ = [
    'Report',
    'Target',
    'convert_checkpoint',
    'convert_state_dict',
    'from_ours',
    'inspect_checkpoint',
    'load_checkpoint',
    'read_state_dict',
    'to_ours',
]
