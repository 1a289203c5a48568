"""Hooks of a training run."""

from .data_check import DataCheckHook
from .non_finite_loss import NonFiniteLossError, NonFiniteLossHook
from .safe_checkpoint import SafeCheckpointHook
from .show_results import ShowResultsHook

__all__ = ['DataCheckHook', 'NonFiniteLossError', 'NonFiniteLossHook', 'SafeCheckpointHook', 'ShowResultsHook']
