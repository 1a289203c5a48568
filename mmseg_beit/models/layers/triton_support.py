"""Whether this machine can build and run our Triton kernels.

``import mmseg_beit`` does not import Triton: the modules of kernels are imported at their first use.
"""

import importlib.util
import logging
import os
from functools import lru_cache

import torch
from torch import Tensor

_LOG = logging.getLogger('mmseg_beit')


def use_triton(x: Tensor) -> bool:
    """Whether kernels serve a tensor: it lies on a GPU where Triton works.

    With ``TRITON_INTERPRET=1`` in the environment tensors on the CPU go through Triton's interpreter: slow, for tests.
    """
    if x.device.type == 'cuda':
        return _works_on(x.device.index or 0)
    return x.device.type == 'cpu' and os.environ.get('TRITON_INTERPRET') == '1' and _is_installed()


def _is_installed() -> bool:
    return importlib.util.find_spec('triton') is not None


@torch.compiler.assume_constant_result
def _works_on(index: int) -> bool:
    # The mark must be on a plain function: a graph's tracer looks through a cache.
    return _has_worked_on(index)


@lru_cache
def _has_worked_on(index: int) -> bool:
    """Builds and runs one small kernel: Triton also needs a C compiler, and a GPU that it has code for."""
    if not _is_installed():
        return False
    try:
        from .triton_labels import probe

        with torch.cuda.device(index):
            return probe(torch.device('cuda', index))
    except Exception as error:  # Whatever is missing there, plain torch does the same work.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        _LOG.warning('Triton does not work on GPU %d, plain torch operators serve instead: %s', index, reason[:200])
        return False
