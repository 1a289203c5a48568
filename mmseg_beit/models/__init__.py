"""Models. Importing this package registers them all."""

from . import backbones, decode_heads, losses, necks, segmentors  # noqa: F401
