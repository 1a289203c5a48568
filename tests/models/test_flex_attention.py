"""Attention through torch's ``flex_attention`` against ``scaled_dot_product_attention`` with the bias as a tensor.

torch refuses gradients of ``flex_attention`` on a CPU before it looks at them; its unfused form has them all the same,
so the test lifts the refusal. The fused kernels run in ``tests/test_gpu.py``.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.activations import HAS_FAKE_GPU
from mmseg_beit.errors import InputError
from mmseg_beit.models.layers import Attention, RelativePosition, num_relative_positions, relative_position_bias
from mmseg_beit.registry import MODELS

needs_fake_gpu = pytest.mark.skipif(not HAS_FAKE_GPU, reason='this torch has no fake CUDA tensors without a GPU')

pytestmark = pytest.mark.filterwarnings('ignore:flex_attention called without torch.compile')


@pytest.fixture
def gradients_on_a_cpu(monkeypatch):
    flex = pytest.importorskip('torch.nn.attention.flex_attention')
    monkeypatch.setattr(flex, '_validate_device', lambda query, key, value: None)


@pytest.mark.parity
@pytest.mark.usefixtures('gradients_on_a_cpu')
@pytest.mark.parametrize(('made_for', 'grid', 'is_shared'), [((3, 5), (3, 5), False), ((3, 3), (4, 2), True)])
def test_output_and_gradients_equal_sdpa(made_for, grid, is_shared):
    """A layer's own table, and one of all layers resized to another grid; N is odd, not a multiple of anything."""
    results = []
    for impl in ('sdpa', 'flex'):
        torch.manual_seed(0)
        attention = Attention(16, 2, None if is_shared else made_for, impl=impl)
        shared = RelativePosition(made_for, 2) if is_shared else None
        parameters = [*attention.parameters(), *(shared.parameters() if is_shared else ())]
        with torch.no_grad():
            for parameter in parameters:
                parameter.normal_(std=0.3)
        x = torch.randn(2, 1 + grid[0] * grid[1], 16, requires_grad=True)
        out = attention(x, grid, shared)
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out))
        results.append([out.detach(), x.grad, *(parameter.grad for parameter in parameters)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * max(1.0, expected.abs().max().item()))


@pytest.mark.slow
@pytest.mark.parametrize('rel_pos', ['layer', 'shared', 'none'])
def test_backbone_gives_the_same_features_with_every_implementation(rel_pos):
    features = []
    for impl in ('sdpa', 'toeplitz', 'flex', 'auto'):
        torch.manual_seed(0)
        model = MODELS.build(
            dict(type='mmseg_beit.BEiT', img_size=32, patch_size=8, embed_dims=32, num_layers=2, num_heads=2,
                 rel_pos=rel_pos, attn_impl=impl)
        )  # fmt: skip
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        img = torch.randn(1, 3, 24, 40)
        with torch.no_grad():
            features.append(model.eval()(img)[0])
    for other in features[1:]:
        torch.testing.assert_close(other, features[0], rtol=1e-5, atol=1e-5)


@needs_fake_gpu
def test_rows_of_the_bias_begin_where_the_kernel_on_a_gpu_wants_them():
    """Else torch's memory-efficient kernel pads a copy of it at every call."""
    with FakeTensorMode():
        table = torch.empty(num_relative_positions((3, 4)), 2, device='cuda', dtype=torch.bfloat16)
        bias = relative_position_bias(table, (3, 4)).unsqueeze(0)
    assert bias.shape == (1, 2, 13, 13)
    assert bias.stride() == (2 * 13 * 16, 13 * 16, 16, 1)


@pytest.mark.slow
def test_compiled_forward_equals_the_unfused_one():
    """The score function goes through torch's code generator, here the one for CPUs."""
    from mmseg_beit.models.layers import flex

    query, key, value = torch.randn(3, 1, 2, 13, 16)
    table = torch.randn(num_relative_positions((3, 4)), 2)
    with torch.no_grad():
        expected = flex.flex_attend(query, key, value, table, 3, 4)
        rolled = table.roll(3, dims=0).t().contiguous()
        actual = torch.compile(flex._attend)(query, key, value, rolled, *flex._places(3, 4, query.device))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_a_counter_of_arithmetic_sees_the_plain_form():
    attention = Attention(16, 2, (3, 4), impl='flex')
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        attention(torch.randn(1, 13, 16), (3, 4))
    linear = 2 * 13 * 16 * (48 + 16)
    assert counter.get_total_flops() == linear + 2 * 2 * 2 * 13 * 13 * 8


def test_training_with_it_on_a_cpu_is_refused_in_a_sentence():
    attention = Attention(16, 2, (2, 3), impl='flex')
    with pytest.raises(InputError, match=r"attn_impl='flex' trains on a GPU only.*set attn_impl='auto'"):
        attention(torch.randn(1, 7, 16, requires_grad=True), (2, 3))


@needs_fake_gpu
@pytest.mark.parametrize('training', [True, False])
def test_a_bias_keeps_cudnn_away(training, monkeypatch):
    """torch prefers its kernel on Hopper, though it is not differentiable with respect to the bias."""
    allowed = []

    def spy(q, k, v, attn_mask, dropout_p):
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()
        return torch.empty_like(q)

    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', spy)
    with FakeTensorMode(), torch.device('cuda'), torch.set_grad_enabled(training):
        Attention(16, 2, (3, 4))(torch.empty(1, 13, 16), (3, 4))
    assert allowed == [False]
    assert torch.backends.cuda.cudnn_sdp_enabled()


@needs_fake_gpu
def test_a_bias_trained_behind_frozen_weights(monkeypatch):
    """torch's backward pass needs queries that take gradients there."""
    taking = []

    def spy(q, k, v, attn_mask, dropout_p):
        taking.append((q.requires_grad, attn_mask.requires_grad))
        return torch.empty_like(q)

    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', spy)
    with FakeTensorMode(), torch.device('cuda'):
        attention = Attention(16, 2, (3, 4)).requires_grad_(False)
        attention.relative_position_bias_table.requires_grad_()
        attention(torch.empty(1, 13, 16), (3, 4))
        with torch.no_grad():
            attention(torch.empty(1, 13, 16), (3, 4))
    assert taking == [(True, True), (False, False)]


@needs_fake_gpu
def test_cudnn_has_no_gradient_for_a_bias():
    """Where this fails torch has learnt it, and the exception in ``Attention`` may go."""
    with FakeTensorMode(), torch.device('cuda'):
        q, k, v = (torch.empty(1, 2, 16, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        bias = torch.empty(1, 2, 16, 16, dtype=torch.bfloat16, requires_grad=True)
        with pytest.raises(RuntimeError, match='not differentiable with respect to argument'):
            torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, bias, True)


def test_choosing_kernels_leaves_one_graph():
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def attend(q):
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            return torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=q @ q.transpose(2, 3))

    q = torch.randn(1, 2, 6, 8, requires_grad=True)
    compiled = torch.compile(attend, backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(compiled(q), attend(q))
