"""What tracing a graph asks of eager code."""

import torch


def is_watched() -> bool:
    """Whether a dispatch mode sees every operator (fake tensors, counters of arithmetic): none is compiled then."""
    return torch._C._len_torch_dispatch_stack() > 0


def is_exporting() -> bool:
    """Whether a graph for another runtime is being made: plain operators only, and sizes may be symbols.

    ``torch.compile`` is not meant: it takes our operators and guards sizes by itself.
    """
    if hasattr(torch.compiler, 'is_exporting'):
        exporting = torch.compiler.is_exporting()
    else:  # Before torch 2.7.
        exporting = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    return exporting or torch.jit.is_tracing()
