"""What drives training: optimizer constructor and hooks. Importing this package registers them all."""

from . import layer_decay  # noqa: F401
