"""The descriptor of colours and edges, by hand-computed values."""

import pytest
import torch

from mmseg_beit.models.pretraining import PatchDescriptor

EDGES = slice(12, None)


def test_colours_are_the_means_of_a_patchs_quarters():
    picture = torch.zeros(1, 3, 8, 8)
    picture[0, 1, :4, 4:] = 2.0  # green, upper right quarter
    described = PatchDescriptor(8)(picture)
    assert described.shape == (1, 20, 1, 1)
    expected = torch.zeros(12)
    expected[5] = 1.0  # quarters of a colour lie together, row by row; halved
    torch.testing.assert_close(described[0, :12, 0, 0], expected)


def test_a_plain_picture_has_no_edges():
    assert PatchDescriptor(8)(torch.full((2, 3, 16, 8), 0.7))[:, EDGES].abs().max() < 1e-5


@pytest.mark.parametrize(('axis', 'direction'), [(3, 0), (2, 4)])
def test_a_ramp_is_an_edge_in_its_direction(axis, direction):
    ramp = 0.1 * torch.arange(16.0).view([16 if i == axis else 1 for i in range(4)])
    edges = PatchDescriptor(8, num_directions=8, edge_weight=10)(ramp.expand(1, 3, 16, 16))[0, EDGES]
    expected = torch.zeros(8, 2, 2)
    expected[direction] = 0.1 * (7 + 0.5) / 8 * 10  # one of eight differences is half as large, at the border
    torch.testing.assert_close(edges, expected)


def test_an_edge_between_two_directions_is_shared():
    angle = torch.tensor(torch.pi / 16)  # half-way from direction 0 to 1
    place = torch.arange(24.0)
    picture = 0.1 * (place.view(1, -1) * angle.cos() + place.view(-1, 1) * angle.sin()).expand(1, 3, 24, 24)
    edges = PatchDescriptor(8)(picture)[0, EDGES, 1, 1]  # the middle patch: no border
    torch.testing.assert_close(edges[:2], torch.tensor([0.5, 0.5]))
    assert edges[2:].abs().max() < 1e-4


def test_a_direction_and_its_opposite_are_one():
    torch.manual_seed(0)
    picture = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(PatchDescriptor(8)(picture)[:, EDGES], PatchDescriptor(8)(-picture)[:, EDGES])
