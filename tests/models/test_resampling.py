"""Convolutions over resized maps, and the Winograd form, against torch's own operators."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_beit.models.layers import resampling
from mmseg_beit.models.layers.resampling import conv_of_maps, resize, use_taps, use_winograd
from mmseg_beit.models.layers.taps import tap_matrix
from mmseg_beit.models.layers.winograd import winograd_conv

# Output size, then the maps' sizes: the same, smaller by whole and odd ratios, larger, single pixels.
SIZES = {
    'halves': ((16, 12), [(8, 6), (4, 3)]),
    'odd': ((13, 17), [(13, 17), (7, 9), (3, 4), (1, 1), (2, 5)]),
    'larger': ((9, 9), [(20, 3), (2, 2)]),
    'one pixel': ((1, 1), [(1, 1), (2, 3)]),
}


def _plain(maps, weight, bias, size, align_corners):
    resized = torch.cat([resize(m, size, align_corners) for m in maps], dim=1)
    return F.conv2d(resized, weight, bias, padding=weight.shape[2] // 2)


def _inputs(sizes, kernel, dtype):
    maps = [torch.randn(2, 3 + i, *size, dtype=dtype) for i, size in enumerate(sizes)]
    channels = sum(m.shape[1] for m in maps)
    return [*maps, torch.randn(7, channels, kernel, kernel, dtype=dtype), torch.randn(7, dtype=dtype)]


def _assert_equal(function, reference, inputs, tolerance):
    results = []
    for call in (function, reference):
        leaves = [x.detach().requires_grad_() for x in inputs]
        out = call(leaves)
        torch.manual_seed(1)
        results.append([out, *torch.autograd.grad(out, leaves, torch.randn(out.shape, dtype=out.dtype))])
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parity
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('plain_far', [False, True], ids=['chunked', 'plain'])
@pytest.mark.parametrize('kernel', [1, 3, 5])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size, sources', SIZES.values(), ids=SIZES)
def test_taps_equal_the_convolution(monkeypatch, size, sources, align_corners, kernel, plain_far, channels_last):
    monkeypatch.setattr(resampling, 'use_taps', lambda *args: True)
    monkeypatch.setattr(resampling, '_SCRATCH_BYTES', 1)  # Sixteen channels at a time at most.
    if plain_far:
        monkeypatch.setattr(resampling, '_far_conv', resampling.plain_far_conv)
    inputs = _inputs(sources, kernel, torch.float32)
    if channels_last:
        inputs = [x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
    _assert_equal(
        lambda leaves: conv_of_maps(leaves[:-2], *leaves[-2:], size, align_corners),
        lambda leaves: _plain(leaves[:-2], *leaves[-2:], size, align_corners),
        inputs,
        tolerance=5e-6,
    )


@pytest.mark.parity
def test_several_chunks_of_channels_equal_one(monkeypatch):
    monkeypatch.setattr(resampling, 'use_taps', lambda *args: True)
    inputs = [torch.randn(2, 5, 4, 3), torch.randn(2, 4, 2, 2), torch.randn(40, 9, 3, 3), torch.randn(40)]
    monkeypatch.setattr(resampling, '_SCRATCH_BYTES', 1)
    assert len(resampling._channel_chunks(inputs[:2], [inputs[2]] * 2, 8)) == 3
    _assert_equal(
        lambda leaves: conv_of_maps(leaves[:2], *leaves[2:], (8, 7), False),
        lambda leaves: _plain(leaves[:2], *leaves[2:], (8, 7), False),
        inputs,
        tolerance=5e-6,
    )


@pytest.mark.parity
@pytest.mark.parametrize('size', [(8, 8), (5, 9), (1, 1), (4, 3), (33, 18)])
def test_winograd_equals_the_convolution(size):
    inputs = [torch.randn(2, 5, *size).double(), torch.randn(7, 5, 3, 3).double()]
    _assert_equal(lambda x: winograd_conv(*x), lambda x: F.conv2d(*x, padding=1), inputs, tolerance=1e-12)


@pytest.mark.parity
def test_winograd_rounds_well_over_many_channels():
    inputs = [torch.randn(1, 256, 48, 44).relu(), torch.randn(256, 256, 3, 3) * 0.03]
    _assert_equal(lambda x: winograd_conv(*x), lambda x: F.conv2d(*x, padding=1), inputs, tolerance=1e-5)


def test_tap_matrix_of_doubling():
    # Rows 0.25/0.75 apart from the ends; the middle tap is the resizing itself, the outer ones read a pixel aside.
    doubling = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]])
    zero = torch.zeros(1, 2)
    left, middle, right = tap_matrix(2, 4, False, 3).split(2, dim=1)
    assert torch.equal(middle, doubling)
    assert torch.equal(left, torch.cat([zero, doubling[:3]]))
    assert torch.equal(right, torch.cat([doubling[1:], zero]))


def test_rules():
    weight = torch.empty(768, 768, 3, 3, device='meta')
    fine, coarse = torch.empty(1, 768, 128, 128), torch.empty(1, 768, 16, 16)
    assert use_winograd(fine, weight, (128, 128))
    assert not use_winograd(fine.bfloat16(), weight, (128, 128))
    assert not use_winograd(coarse, weight, (16, 16))
    assert use_taps(coarse, weight, (128, 128))
    assert not use_taps(fine, weight, (128, 128))


def test_autocast_runs_in_its_type():
    maps = [torch.randn(1, 6, 16, 16), torch.randn(1, 5, 4, 4)]
    weight, bias = torch.randn(8, 11, 3, 3, requires_grad=True), torch.randn(8)
    with torch.autocast('cpu', torch.bfloat16):
        out = conv_of_maps(maps, weight, bias, (16, 16), False)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert weight.grad.dtype == torch.float32
    exact = _plain(maps, weight, bias, (16, 16), False)
    assert (out - exact).norm() <= 0.01 * exact.norm()


def test_wrong_shapes_are_refused():
    maps = [torch.randn(1, 3, 4, 4)]
    with pytest.raises(ValueError, match='square and odd'):
        conv_of_maps(maps, torch.randn(2, 3, 2, 2), None, (4, 4), False)
    with pytest.raises(ValueError, match='3 channels, the weight takes 5'):
        conv_of_maps(maps, torch.randn(2, 5, 3, 3), None, (4, 4), False)


class _Fusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(256, 128, 3, padding=1)

    def forward(self, fine, coarse):
        return conv_of_maps([fine, coarse], self.conv.weight, self.conv.bias, fine.shape[2:], False).relu()


def test_compiles_without_graph_breaks():
    model, inputs = _Fusion(), (torch.randn(1, 128, 48, 48), torch.randn(1, 128, 12, 12))
    explanation = torch._dynamo.explain(model)(*inputs)
    assert explanation.graph_break_count == 0
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    expected = model(*inputs)
    out = compiled(*inputs)
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    ours = model.conv.weight.grad.clone()
    model.zero_grad()
    expected.sum().backward()
    torch.testing.assert_close(ours, model.conv.weight.grad)


def test_operators_are_well_formed():
    maps = [torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 4, 2, 2, requires_grad=True)]
    weights = [torch.randn(6, m.shape[1], 3, 3, requires_grad=True) for m in maps]
    torch.library.opcheck(torch.ops.mmseg_beit.far_conv, (maps, weights, 8, 7, False))
    x, weight = torch.randn(1, 3, 7, 8, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.mmseg_beit.winograd_conv, (x, weight))


def test_products_are_counted():
    maps, weight = [torch.randn(1, 128, 48, 48), torch.randn(1, 128, 12, 12)], torch.randn(128, 256, 3, 3)
    with FlopCounterMode(display=False) as counter:
        conv_of_maps(maps, weight, None, (48, 48), False)
    # 36 products for a tile of 16 pixels; nine for a coarse pixel, then the two resizings of the products.
    fine = 36 * (48 * 48 // 16) * 128 * 128
    coarse = 9 * 144 * 128 * 128 + 48 * (3 * 12) * (12 * 3 * 128) + 48 * 48 * (3 * 12) * 128
    transforms = counter.get_total_flops() // 2 - fine - coarse
    assert 0 < transforms < 0.4 * fine
