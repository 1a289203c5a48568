"""The linear layer behind a GELU: the plain layers' numbers and gradients, and less that is kept."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmseg_beit.models.layers.block import FeedForward
from mmseg_beit.models.layers.gelu_linear import gelu_linear


def gradients(output, *tensors):
    weight = torch.linspace(-1, 1, output.numel()).view_as(output)
    return torch.autograd.grad((output * weight).sum(), tensors)


@pytest.mark.parametrize('shape', [(5, 16), (2, 3, 16)])
def test_is_the_plain_layers(shape):
    hidden = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 16, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    found, expected = gelu_linear(hidden, weight, bias), F.linear(F.gelu(hidden), weight, bias)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    tensors = (hidden, weight, bias)
    for ours, plain in zip(gradients(found, *tensors), gradients(expected, *tensors), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_mixed_precision_is_the_plain_layers():
    hidden = torch.randn(7, 16).bfloat16().requires_grad_()
    linear = nn.Linear(16, 4)
    with torch.autocast('cpu', torch.bfloat16):
        found, expected = gelu_linear(hidden, linear.weight, linear.bias), linear(F.gelu(hidden))
    assert found.dtype == torch.bfloat16 and torch.equal(found, expected)
    tensors = (hidden, linear.weight, linear.bias)
    for ours, plain in zip(gradients(found, *tensors), gradients(expected, *tensors), strict=True):
        assert ours.dtype == plain.dtype
        torch.testing.assert_close(ours, plain, rtol=1e-2, atol=1e-2)


def test_frozen_parts_get_no_gradient():
    hidden = torch.randn(3, 16, requires_grad=True)
    linear = nn.Linear(16, 4).requires_grad_(False)
    gelu_linear(hidden, linear.weight, linear.bias).sum().backward()
    assert hidden.grad is not None and linear.weight.grad is None


def kept_numbers(network, x):
    """Floats that a forward pass keeps, parameters not counted."""
    sizes = {}

    def pack(tensor):
        sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(x)
    for parameter in network.parameters():
        sizes.pop(parameter.data_ptr(), None)
    return sum(sizes.values())


def test_feed_forward_keeps_one_wide_tensor():
    x = torch.randn(2, 5, 8, requires_grad=True)
    assert kept_numbers(FeedForward(8, 32), x) == x.numel() + 10 * 32
    # Dropout of the activations needs them: the plain layers.
    assert kept_numbers(FeedForward(8, 32, drop_rate=0.1), x) > x.numel() + 2 * 10 * 32


def test_three_layers():
    network = FeedForward(8, 32, num_fcs=3)
    x = torch.randn(2, 5, 8, requires_grad=True)
    torch.testing.assert_close(network(x), network.layers(x))
