"""Linear layers of predictions: both libraries give the same numbers, and each is taken where it may be."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmseg_beit.models.layers import FeedForward, choice, linear
from mmseg_beit.models.layers.choice import choices, forget_choices

needs_onednn = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')),
    reason='this torch has no linear layer of oneDNN',
)


@pytest.fixture(autouse=True)
def nothing_chosen_before_and_after():
    forget_choices()
    yield
    forget_choices()


@pytest.fixture
def calls(monkeypatch):
    """Counts products by oneDNN, which is always the faster one."""
    seen, by_onednn = [], linear._by_onednn
    monkeypatch.setattr(linear, '_chosen', lambda: 'oneDNN')
    monkeypatch.setattr(linear, '_by_onednn', lambda *args: seen.append(args[3]) or by_onednn(*args))
    return seen


@needs_onednn
@pytest.mark.parametrize('gelu', [False, True])
@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('view', [lambda x: x, lambda x: x.transpose(0, 1), lambda x: x[0], lambda x: x[:, ::2]])
def test_equals_torch(gelu, bias, view, calls):
    layer, x = nn.Linear(300, 260, bias=bias).requires_grad_(False), view(torch.randn(2, 7, 300))
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    exact = F.gelu(exact) if gelu else exact
    out = linear.linear(layer, x, gelu)
    assert calls == [gelu]
    torch.testing.assert_close(out, exact.float(), rtol=1e-5, atol=2e-6)


@needs_onednn
def test_taken_for_plain_predictions_only(calls):
    layer, x = nn.Linear(256, 256), torch.randn(3, 256)
    assert linear.linear(layer, x).requires_grad and not calls
    with torch.no_grad():
        linear.linear(layer.double(), x.double())
        layer.float()
        linear.linear(nn.Linear(256, 255), x)
        with torch.autocast('cpu', torch.bfloat16):
            assert linear.linear(layer, x).dtype == torch.bfloat16
        assert not calls
        linear.linear(layer, x)
        assert calls == [False]
        seen = []
        layer.register_forward_hook(lambda *_: seen.append(1))
        linear.linear(layer, x)
    assert seen == [1] and len(calls) == 1


@needs_onednn
def test_a_bias_alone_gets_its_gradient(calls):
    layer = nn.Linear(256, 256)
    layer.weight.requires_grad_(False)
    linear.linear(layer, torch.randn(3, 256)).sum().backward()
    assert not calls
    torch.testing.assert_close(layer.bias.grad, torch.full((256,), 3.0))


@needs_onednn
def test_mlp_predicts_what_it_trains_with(calls):
    mlp, x = FeedForward(256, 512), torch.randn(2, 5, 256)
    expected = mlp(x)
    assert not calls
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), expected.detach(), rtol=1e-5, atol=1e-6)
    assert calls == [True, False]


def test_the_library_is_measured_once_and_not_where_that_is_forbidden(monkeypatch):
    layer, x = nn.Linear(256, 256), torch.randn(3, 256)
    monkeypatch.setenv('MMSEG_BEIT_MEASURE', '0')
    with torch.no_grad():
        linear.linear(layer, x)
        assert not choices()
        monkeypatch.delenv('MMSEG_BEIT_MEASURE')
        monkeypatch.setattr(choice, '_REPEATS', 1)
        linear.linear(layer, x)
    if hasattr(torch.ops.mkldnn, '_linear_pointwise') and torch.backends.mkldnn.is_available():
        assert [name in ('MKL', 'oneDNN') for name in choices().values()] == [True]
