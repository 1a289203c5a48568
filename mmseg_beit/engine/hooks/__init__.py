"""Hooks of a training run."""

from .non_finite_loss import NonFiniteLossError, NonFiniteLossHook
from .safe_checkpoint import SafeCheckpointHook
from .show_results import ShowResultsHook

__all__ = ['NonFiniteLossError', 'NonFiniteLossHook', 'SafeCheckpointHook', 'ShowResultsHook']
