"""What tracing a graph asks of eager code."""

import torch


def has_open_sizes() -> bool:
    """Whether ``torch.export`` is tracing, so that sizes may be symbols and no step may depend on them.

    ``torch.compile`` fixes or guards sizes by itself and is not meant.
    """
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
