"""Linear layers of predictions in float32 on a CPU, through the faster of two libraries.

torch's ``F.linear`` calls MKL; oneDNN is the other library that torch brings, and it applies a GELU on the way. Which
is faster depends on the processor, so one product is measured when the first prediction begins (see :mod:`~.choice`).
Measured on two cores of an AMD EPYC, 1025 tokens, GFLOP/s by MKL and by oneDNN: 768 to 2304 191 and 208, 768 to 768 196
and 211, 3072 to 768 200 and 213; with the GELU 768 to 3072 173 and 202, 1024 to 4096 166 and 205.

In bfloat16 ``F.linear`` calls oneDNN by itself. Training stays with ``F.linear``, whose backward pass torch knows.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .choice import choose
from .tracing import is_exporting

# Narrower layers take no time.
_LEAST_WIDTH = 256
# What is measured: tokens, inputs and outputs, some 4 ms a product.
_SAMPLE = 256, 768, 1536


def linear(layer: nn.Module, x: Tensor, gelu: bool = False) -> Tensor:
    """``layer(x)``, or its GELU.

    Args:
        layer: A ``torch.nn.Linear``; anything else, and one with hooks, is called as it is.
        x: Float (..., C).
        gelu: Whether the exact GELU follows.

    Returns:
        Float (..., O).
    """
    if type(layer) is nn.Linear and not layer._forward_hooks and not layer._forward_pre_hooks:
        return linear_of(x, layer.weight, layer.bias, gelu)
    return F.gelu(layer(x)) if gelu else layer(x)


def linear_of(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """As :func:`linear` from the weight (O, C) and the bias (O,)."""
    if _is_plain_prediction(x, weight, bias) and _chosen() == 'oneDNN':
        return _by_onednn(x, weight, bias, gelu)
    out = F.linear(x, weight, bias)
    return F.gelu(out) if gelu else out


def _is_plain_prediction(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    # A bias alone can want a gradient too.
    wants_grad = any(tensor is not None and tensor.requires_grad for tensor in (x, weight, bias))
    return (
        x.device.type == 'cpu'
        and x.dtype == weight.dtype == torch.float32
        and min(weight.shape) >= _LEAST_WIDTH
        and not (torch.is_grad_enabled() and wants_grad)
        and not torch.is_autocast_enabled('cpu')
        and not torch.compiler.is_compiling()
        and not is_exporting()
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, '_linear_pointwise')
    )


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    # What compiled graphs of torch call.
    activation = ('gelu', [], 'none') if gelu else ('none', [], '')
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *activation)


def _chosen() -> str:
    candidates = {'MKL': lambda: _trial(F.linear), 'oneDNN': lambda: _trial(_by_onednn, False)}
    return choose(('linear layers', torch.get_num_threads()), candidates, torch.device('cpu'), rule='MKL')


def _trial(function: Callable[..., Tensor], *args: bool) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    tokens, channels, outs = _SAMPLE
    x = torch.randn(tokens, channels, generator=generator)
    weight, bias = torch.randn(outs, channels, generator=generator), torch.zeros(outs)
    return lambda: function(x, weight, bias, *args)
