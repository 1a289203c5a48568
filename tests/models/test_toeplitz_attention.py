"""Our attention operator against the plain formula: outputs, gradients, dtypes, chunks, torch.compile."""

import sys

import pytest
import torch
from torch.autograd import gradcheck
from torch.utils.flop_counter import FlopCounterMode

from mmseg_beit.models.layers import num_relative_positions, relative_position_bias, toeplitz_attention
from mmseg_beit.models.layers.toeplitz_attention import attend, bias_blocks, reduce_blocks


def make_inputs(h, w, batch=2, heads=3, width=8, dtype=torch.float64):
    torch.manual_seed(0)
    qkv = torch.randn(3, batch, heads, 1 + h * w, width, dtype=dtype)
    table = torch.randn(num_relative_positions((h, w)), heads, dtype=dtype)
    return [x.clone().requires_grad_() for x in (*qkv, table)]


def formula(q, k, v, table, h, w):
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + relative_position_bias(table, (h, w))
    return scores.softmax(-1) @ v


@pytest.mark.parametrize('tile_bytes', [1, 3000, 1 << 20])
@pytest.mark.parametrize('grid', [(3, 4), (1, 5), (5, 1), (6, 6), (1, 1)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_output_and_gradients_equal_the_formula(grid, dtype, tile_bytes, monkeypatch):
    """In tiles of a row of queries, of several rows or heads with some left over, and of all heads."""
    # The package's attribute of this name is the function, not its module.
    monkeypatch.setattr(sys.modules[toeplitz_attention.__module__], '_TILE_BYTES', tile_bytes)
    results = []
    for function in (formula, toeplitz_attention):
        inputs = make_inputs(*grid, dtype=dtype)
        out = function(*inputs, *grid)
        out.backward(torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out))
        results.append([out.detach(), *(x.grad for x in inputs)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * max(1.0, expected.abs().max().item()))


def test_gradcheck():
    assert gradcheck(lambda *x: toeplitz_attention(*x, 2, 2), make_inputs(2, 2, batch=1, heads=2, width=3))


@pytest.mark.parametrize('grid', [(1, 1), (1, 5), (5, 1), (4, 3)])
def test_windows_of_the_blocks_are_the_bias(grid):
    h, w = grid
    table = torch.randn(num_relative_positions(grid), 2)
    blocks = bias_blocks(table, h, w)
    windows = blocks.as_strided((2, h, w, h * w), (w * (2 * h - 1) * w, w, (2 * h - 1) * w, 1))
    bias = relative_position_bias(table, grid)
    torch.testing.assert_close(windows.flatten(1, 2).flip(2), bias[:, 1:, 1:], rtol=0, atol=0)
    weight = torch.randn_like(blocks)
    (expected,) = torch.autograd.grad((bias_blocks(table.requires_grad_(), h, w) * weight).sum(), table)
    torch.testing.assert_close(reduce_blocks(weight, h, w), expected[:-3])


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
@pytest.mark.parametrize('tile_bytes', [1, 1 << 20])
def test_prediction_from_kept_blocks(dtype, tolerance, tile_bytes, monkeypatch):
    monkeypatch.setattr(sys.modules[toeplitz_attention.__module__], '_TILE_BYTES', tile_bytes)
    q, k, v, table = (x.detach().to(dtype) for x in make_inputs(4, 5))
    out = attend(q, k, v, bias_blocks(table, 4, 5), table[-3:], 4, 5)
    exact = formula(*(x.double() for x in (q, k, v, table)), 4, 5)
    assert out.dtype == dtype and out.transpose(1, 2).is_contiguous()
    assert (out - exact).norm() <= tolerance * exact.norm()


def test_a_counter_of_arithmetic_sees_all_products():
    inputs = make_inputs(3, 4, dtype=torch.float32)
    q, k, v, table = (x.detach() for x in inputs)
    products = 4 * 2 * 3 * 13 * 13 * 8
    with FlopCounterMode(display=False) as counter:
        attend(q, k, v, bias_blocks(table, 3, 4), table[-3:], 3, 4)
    assert counter.get_total_flops() == products
    with FlopCounterMode(display=False) as counter:
        toeplitz_attention(*inputs, 3, 4).sum().backward()
    assert counter.get_total_flops() == products + 10 * products // 4


def test_bfloat16_is_as_close_as_its_rounding():
    exact = make_inputs(4, 4, dtype=torch.float32)
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    for inputs in (exact, rounded):
        toeplitz_attention(*inputs, 4, 4).float().pow(2).sum().backward()
    for a, b in zip(exact, rounded, strict=True):
        assert b.grad.dtype == torch.bfloat16
        assert (a.grad - b.grad.float()).norm() < 0.03 * a.grad.norm()


def test_library_checks_of_the_toeplitz_attention():
    """Fake tensors, autograd registration and tracing of the operator agree with what it does."""
    inputs = make_inputs(2, 3, dtype=torch.float32)
    torch.library.opcheck(torch.ops.mmseg_beit.toeplitz_attention.default, (*inputs, 2, 3))
    torch.library.opcheck(torch.ops.mmseg_beit.expand_table.default, (inputs[3], 2, 3))
