"""Predictions in bfloat16 on a CPU: the smaller Winograd form, which attention, and prepared weights."""

import pytest
import torch
import torch.nn.functional as F

from mmseg_beit.models.layers import Attention, attention, resampling
from mmseg_beit.models.layers.kept import kept
from mmseg_beit.models.layers.resampling import conv_of_maps
from mmseg_beit.models.layers.winograd_half import transform_weight, winograd_conv_half


@pytest.fixture
def bfloat16_vectors(monkeypatch):
    monkeypatch.setattr(resampling, 'multiplies_bfloat16_by_vectors', lambda: True)


@pytest.mark.parametrize('height, width', [(8, 12), (7, 5), (1, 1), (2, 9)])
@pytest.mark.parametrize('channels_last', [False, True])
def test_winograd_equals_the_convolution(height, width, channels_last):
    x, weight = torch.randn(2, 40, height, width).bfloat16(), torch.randn(24, 40, 3, 3)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    out = winograd_conv_half(x, transform_weight(weight))
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    assert out.shape == exact.shape and out.dtype == torch.bfloat16
    assert (out - exact).norm() <= 0.012 * exact.norm()


def test_winograd_in_strips(monkeypatch):
    x, weight = torch.randn(1, 8, 12, 6).bfloat16(), transform_weight(torch.randn(8, 8, 3, 3))
    whole = winograd_conv_half(x, weight)
    monkeypatch.setattr('mmseg_beit.models.layers.winograd_half._SCRATCH_BYTES', 1)  # One row of tiles at a time.
    assert torch.allclose(winograd_conv_half(x, weight), whole, atol=0.05)


def test_attention_layer_predicts_in_bfloat16(monkeypatch):
    """Our operator where vector units multiply, torch's where a matrix unit does."""
    layer = Attention(16, 2, (3, 4))
    torch.nn.init.normal_(layer.relative_position_bias_table)
    x = torch.randn(2, 13, 16)
    with torch.no_grad():
        exact = layer(x, (3, 4))
        for by_vectors in (True, False):
            monkeypatch.setattr(attention, 'multiplies_bfloat16_by_vectors', lambda answer=by_vectors: answer)
            with torch.autocast('cpu', torch.bfloat16):
                out = layer(x, (3, 4))
            assert layer._kept[0][0] == ('blocks' if by_vectors else 'bias')
            assert (out - exact).norm() <= 0.02 * exact.norm()


@pytest.mark.parametrize('align_corners', [False, True])
def test_prediction_equals_the_training_form(monkeypatch, bfloat16_vectors, align_corners):
    monkeypatch.setattr(resampling, '_SCRATCH_BYTES', 1 << 18)  # Several chunks of output channels.
    maps = [torch.randn(2, 256, 32, 32), torch.randn(2, 20, 16, 16), torch.randn(2, 24, 3, 5)]
    weight, bias = torch.randn(256, 300, 3, 3) * 0.02, torch.randn(256)
    exact = F.conv2d(
        torch.cat([resampling.resize(m, (32, 32), align_corners) for m in maps], 1), weight, bias, padding=1
    )
    for dtype, tolerance in ((None, 1e-5), (torch.bfloat16, 0.015)):
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=dtype is not None):
            for _ in range(2):  # The second time from what was kept.
                out = conv_of_maps(maps, weight, bias, (32, 32), align_corners)
                assert (out - exact).norm() <= tolerance * exact.norm()


def test_kept_until_it_changes():
    calls = []

    def make():
        calls.append(1)
        return weight * 2

    weight = torch.ones(3)
    assert kept(weight, 'twice', make) is kept(weight, 'twice', make)
    weight.add_(1)
    assert kept(weight, 'twice', make).tolist() == [4.0, 4.0, 4.0]
    weight.requires_grad_()
    assert kept(weight, 'twice', make) is not kept(weight, 'twice', make)
    assert len(calls) == 4


def test_kept_no_longer_than_the_tensor():
    weight = torch.ones(3)
    made = kept(weight, 'copy', weight.clone)
    import gc
    import weakref

    seen = weakref.ref(made)
    del made, weight
    gc.collect()
    assert seen() is None
