"""What drives training: optimizer constructor, mixed precision, hooks, log lines. Importing it registers them all."""

from . import amp, hooks, layer_decay, log_processor  # noqa: F401
