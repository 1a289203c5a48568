"""A linear layer behind a GELU that keeps the GELU's input alone for the backward pass.

PyTorch keeps input and output of the GELU, the widest tensors of a transformer; the output is made again here, which
costs a few thousandths of the layer's products.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return F.linear(F.gelu(hidden), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad
        grad_rows = grad.flatten(0, -2)
        grad_weight = grad_bias = grad_hidden = None
        if needs_weight:
            grad_weight = grad_rows.t() @ F.gelu(hidden).flatten(0, -2)
        if needs_bias:
            grad_bias = grad_rows.sum(0)
        if needs_hidden:
            grad_hidden = torch.ops.aten.gelu_backward((grad_rows @ weight).view_as(hidden), hidden)
        return grad_hidden, grad_weight, grad_bias


def gelu_linear(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``linear(gelu(hidden), weight, bias)`` with the same numbers. Differentiable once.

    Args:
        hidden: Float (..., C).
        weight: Float (O, C).
        bias: Float (O,).

    Returns:
        Float (..., O), of the autocast type where there is one.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight, bias = (tensor.to(dtype) for tensor in (hidden, weight, bias))
    return _GeluLinear.apply(hidden, weight, bias)
