"""Interpolation matrices and logit maps against torch's own interpolation, step by step."""

import pytest
import torch
import torch.nn.functional as F

from mmseg_beit.models.layers import logit_map
from mmseg_beit.models.layers.interpolation import band, interpolation_matrix
from mmseg_beit.models.layers.logit_map import LogitMap, Piece


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(('src', 'dst'), [(4, 16), (5, 13), (13, 5), (1, 4), (4, 1), (7, 7), (128, 512), (100, 683)])
def test_matrix_is_torchs_interpolation(src, dst, align_corners):
    signal = torch.randn(3, 1, src, 1, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(signal, size=(dst, 1), mode='bilinear', align_corners=align_corners)
    actual = interpolation_matrix(src, dst, align_corners) @ signal[:, 0]
    # A place near pixel 683 is known to 3e-5 of a pixel in float32, and versions of torch round it differently.
    torch.testing.assert_close(actual, expected[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(interpolation_matrix(src, dst, align_corners).sum(1), torch.ones(dst))


def test_band():
    assert band(torch.tensor([[0.0, 0, 1, 0], [0, 2, 0, 0]])) == (1, 3)
    assert band(torch.zeros(2, 4)) == (0, 0)


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(logit_map, '_TILE_LOGITS', {'cpu': 5 * 7**2, 'other': 1})


def resized(small: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(small.permute(2, 0, 1)[None], size=size, mode='bilinear', align_corners=False)[0]


def make_map(small: torch.Tensor, size: tuple[int, int]) -> LogitMap:
    h, w, _ = small.shape
    return LogitMap([Piece(small, interpolation_matrix(h, size[0], False), interpolation_matrix(w, size[1], False))])


@pytest.mark.usefixtures('small_tiles')
def test_chain_of_steps_equals_torch():
    small = torch.randn(6, 9, 5)
    picture = make_map(small, (24, 40)).crop(1, 2, 20, 33).flip(horizontal=True).flip(horizontal=False)
    picture = picture.resize(31, 17, align_corners=False)
    expected = resized(small, (24, 40))[:, 1:21, 2:35].flip(2).flip(1)
    expected = F.interpolate(expected[None], size=(31, 17), mode='bilinear', align_corners=False)[0]
    assert picture.shape == (5, 31, 17)
    torch.testing.assert_close(picture.logits(), expected, rtol=0, atol=1e-5)
    assert torch.equal(picture.labels(), expected.argmax(0))


@pytest.mark.usefixtures('small_tiles')
def test_windows_add_up():
    """Two windows side by side with an overlap of 4 pixels, each at half its size."""
    left, right = torch.randn(5, 8, 3), torch.randn(5, 8, 3)
    rows, cols = interpolation_matrix(5, 10, False), interpolation_matrix(8, 16, False)
    count = torch.ones(28)
    count[12:16] = 2
    placed_left, placed_right = torch.zeros(28, 8), torch.zeros(28, 8)
    placed_left[:16] = cols
    placed_right[12:] = cols
    pieces = [Piece(left, rows, placed_left / count[:, None]), Piece(right, rows, placed_right / count[:, None])]
    expected = torch.zeros(3, 10, 28)
    expected[:, :, :16] += resized(left, (10, 16))
    expected[:, :, 12:] += resized(right, (10, 16))
    torch.testing.assert_close(LogitMap(pieces).logits(), expected / count, rtol=0, atol=1e-5)


@pytest.mark.parametrize('num_classes', [5, 70])
def test_autocast_changes_neither_logits_nor_labels(num_classes):
    """Half precision would make neighbouring logits equal, of which the first class then wins."""
    small = 30 + torch.rand(6, 9, num_classes)
    small.requires_grad_()
    picture = make_map(small, (24, 40))
    expected = F.interpolate(resized(small, (24, 40))[None], size=(31, 17), mode='bilinear', align_corners=False)[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        resized_picture = picture.resize(31, 17, align_corners=False)
        logits, labels = resized_picture.logits(), resized_picture.labels()
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert torch.equal(labels, expected.argmax(0))
