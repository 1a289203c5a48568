"""Constants that are made once are of use to everyone, whoever asked first."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mmseg_beit.models.layers import num_relative_positions, resize_relative_position_table
from mmseg_beit.models.layers.kept import constant


@constant(maxsize=2)
def ascending(count: int) -> torch.Tensor:
    return torch.arange(float(count))


def test_is_made_once():
    assert ascending(3) is ascending(3)
    assert ascending(3).tolist() == [0, 1, 2]
    assert ascending.__name__ == 'ascending'


def test_first_call_in_inference_mode():
    with torch.inference_mode():
        ascending(4)
    x = torch.ones(4, requires_grad=True)
    (x * ascending(4)).sum().backward()
    assert x.grad.tolist() == [0, 1, 2, 3]


def test_first_call_with_fake_tensors():
    with FakeTensorMode():
        assert isinstance(ascending(5), FakeTensor)
    assert ascending(5).tolist() == [0, 1, 2, 3, 4]


def test_first_call_with_another_default_device():
    with torch.device('meta'):
        ascending(6)
    assert ascending(6).device.type == 'cpu'


def test_a_graph_computes_its_own():
    def function(x):
        return x + ascending(7)

    compiled = torch.compile(function, backend='aot_eager', fullgraph=True)
    assert torch.equal(compiled(torch.ones(7)), function(torch.ones(7)))


@pytest.mark.parametrize('grid', [(6, 5), (3, 9)])
def test_training_after_a_prediction_at_another_size(grid):
    """A notebook predicts first and trains then."""
    table = torch.randn(num_relative_positions((4, 4)), 3)
    with torch.inference_mode():
        resize_relative_position_table(table, (4, 4), grid)
    table.requires_grad_()
    resize_relative_position_table(table, (4, 4), grid).sum().backward()
    assert table.grad.isfinite().all()
