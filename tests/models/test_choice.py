"""The measured choice between equal ways: run for real, on this machine's CPU, with its own clock or a scripted one."""

import logging
import time

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from benchmarks.activations import HAS_FAKE_GPU
from mmseg_beit.models.layers import attention as attention_module
from mmseg_beit.models.layers import choice
from mmseg_beit.models.layers.attention import trial
from mmseg_beit.models.layers.choice import choices, choose, forget_choices
from mmseg_beit.models.layers.taps import taps_are_faster

needs_fake_gpu = pytest.mark.skipif(not HAS_FAKE_GPU, reason='this torch has no fake CUDA tensors without a GPU')

CPU = torch.device('cpu')


@pytest.fixture(autouse=True)
def nothing_chosen_before_and_after():
    forget_choices()
    yield
    forget_choices()


def sleeping(**milliseconds):
    """Candidates that take so long."""
    return {name: lambda ms=ms: lambda: time.sleep(ms / 1e3) for name, ms in milliseconds.items()}


def refuse():
    raise RuntimeError('no compiler here\nand more lines')


def test_the_fastest_is_chosen_told_once_and_kept(caplog):
    caplog.set_level(logging.INFO, 'mmseg_beit')
    assert choose('key', sleeping(slow=4, fast=0.1, slower=6), CPU, rule='slow') == 'fast'
    assert choose('key', dict(slow=refuse, fast=refuse), CPU, rule='slow') == 'fast'
    assert choices() == {'key': 'fast'}
    (record,) = caplog.records
    assert record.getMessage().startswith('chose fast for key: slow 4.')


def test_one_that_fails_is_left_out_and_told(caplog):
    caplog.set_level(logging.INFO, 'mmseg_beit')
    assert choose('key', dict(broken=refuse, **sleeping(works=1)), CPU, rule='broken') == 'works'
    assert caplog.records[0].getMessage().endswith('broken failed (no compiler here)')


def test_one_with_other_numbers_is_left_out_and_told(caplog):
    caplog.set_level(logging.INFO, 'mmseg_beit')
    right = torch.randn(3, 100)

    def returning(value, seconds=0.0):
        return lambda: lambda: (time.sleep(seconds), right, value)

    close, wrong = right * 1.01, right.clone()
    wrong[0] += 1
    candidates = dict(wrong=returning(wrong), nan=returning(right * torch.nan), close=returning(close))
    assert choose('key', candidates | dict(rule=returning(right, 0.01)), CPU, rule='rule') == 'close'
    said = caplog.records[0].getMessage()
    assert 'wrong failed (its numbers are not those of rule)' in said
    assert 'nan failed (its numbers are not those of rule)' in said


def test_a_measurement_of_attention_sees_a_lost_gradient(monkeypatch):
    """A kernel that forgets the table's gradient must not be taken for its speed."""

    def forgetful(q, k, v, table, h, w):
        return attention_module.toeplitz_attention(q, k, v, table.detach() + 0 * table, h, w)

    monkeypatch.setattr(attention_module, 'flex_attend', forgetful)
    make = {
        impl: lambda impl=impl: trial(impl, torch.Size((2, 2, 13, 8)), (3, 4), torch.float32, CPU, True)
        for impl in ('flex', 'toeplitz', 'sdpa')
    }
    seconds, failures = choice._measure(make, CPU, lambda *_: 1.0, rule='sdpa')
    assert list(seconds) == ['toeplitz', 'sdpa']
    assert failures == {'flex': 'its numbers are not those of sdpa'}


def test_without_any_that_works_the_rule_holds():
    assert choose('key', dict(a=refuse, b=refuse), CPU, rule='b') == 'b'
    assert choices() == {'key': 'b'}


def test_a_near_tie_goes_to_the_first():
    def scripted(seconds):
        return choose(tuple(seconds), dict.fromkeys(seconds, lambda: list), CPU, 'none', timer=lambda *_: times.pop(0))

    times = [1.00, 0.98]
    assert scripted(dict(first=1.00, second=0.98)) == 'first'
    times = [1.0, 0.9]
    assert scripted(dict(one=1.0, other=0.9)) == 'other'


def test_patience():
    names = [choose('key', sleeping(a=1, b=0.1), CPU, rule='a', patience=2) for _ in range(4)]
    assert names == ['a', 'a', 'b', 'b']


@pytest.mark.parametrize('why', ['environment', 'deterministic', 'fake tensors'])
def test_where_nothing_may_be_measured_the_rule_decides(why, monkeypatch):
    if why == 'environment':
        monkeypatch.setenv('MMSEG_BEIT_MEASURE', '0')
    if why == 'deterministic':
        monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: True)
    mode = torch._subclasses.FakeTensorMode() if why == 'fake tensors' else torch.no_grad()
    with mode:
        assert choose('key', dict(a=refuse, b=refuse), CPU, rule='b') == 'b'
    assert choices() == {}


def test_a_compiled_graph_goes_by_the_rule():
    def function(x):
        return x + 1 if choose('key', {}, x.device, rule='b') == 'b' else x - 1

    choose('key', sleeping(a=0), CPU, rule='a')
    assert torch.compile(function, backend='eager', fullgraph=True)(torch.zeros(1)) == 1


def test_measuring_inside_activation_checkpointing_and_autocast_disturbs_neither():
    """Checkpointing packs what autograd saves in the caller's thread; a candidate's own backward must not see that."""
    seen = []

    def candidate():
        weight = torch.ones(4, 4, requires_grad=True)

        def run():
            out = weight @ weight
            seen.append((out.dtype, torch.is_inference_mode_enabled()))
            out.sum().backward()

        return run

    def function(x):
        choose('key', dict(only=candidate), CPU, rule='none')
        return (x * x).sum()

    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        checkpoint(function, x, use_reentrant=False).backward()
    assert x.grad.tolist() == [2.0, 4.0]
    assert set(seen) == {(torch.float32, False)}
    assert choices() == {'key': 'only'}


@pytest.mark.parametrize('training', [False, True])
def test_attention_is_measured_on_what_it_runs(training, monkeypatch):
    """The trials of a GPU's candidates, here with those that this CPU can run."""
    shape, grid = (2, 2, 13, 8), (3, 4)
    candidates = {
        impl: lambda impl=impl: trial(impl, torch.Size(shape), grid, torch.float32, CPU, training)
        for impl in (['sdpa', 'toeplitz'] if training else ['sdpa', 'toeplitz', 'flex'])
    }
    state = torch.get_rng_state()
    monkeypatch.setattr(choice, '_REPEATS', 1)
    seconds, failures = choice._measure(candidates, CPU, choice.seconds_of, rule='sdpa')
    assert failures == {}
    assert list(seconds) == list(candidates)
    assert torch.equal(torch.get_rng_state(), state)  # A seeded run draws what it would have drawn.


@pytest.mark.parametrize('training', [False, True])
def test_taps_are_measured_on_what_a_head_runs(training):
    m, weight = torch.randn(1, 64, 6, 6), torch.randn(64, 64, 3, 3, requires_grad=training)
    # A hundredth of the products.
    assert taps_are_faster(m, weight, (60, 60), False, by_rule=False) == training
    for _ in range(20):
        faster = taps_are_faster(m, weight, (60, 60), False, by_rule=False)
    assert faster
    ((key, name),) = choices().items()
    assert name == 'taps'
    assert key[:4] == ('convolution', (1, 64, 6, 6), (64, 64, 3, 3), (60, 60))


@needs_fake_gpu
def test_auto_asks_for_a_measurement_on_a_gpu_only(monkeypatch):
    asked = []

    def record(key, candidates, device, rule, patience):
        asked.append((key, list(candidates), rule, patience))
        return rule

    monkeypatch.setattr(attention_module, 'choose', record)
    attention = attention_module.Attention(16, 2, (3, 4))
    attention(torch.randn(1, 13, 16), (3, 4))
    assert asked == []
    with torch._subclasses.FakeTensorMode(), torch.device('cuda'):
        attention = attention_module.Attention(16, 2, (3, 4))
        attention(torch.empty(1, 13, 16), (3, 4))
        with torch.no_grad():
            attention(torch.empty(1, 13, 16), (3, 4))
    shape = (1, 2, 13, 8)
    assert asked == [
        (('attention', shape, (3, 4), torch.float32, 'training', 'cuda:0'), ['flex', 'sdpa'], 'sdpa', 0),
        (('attention', shape, (3, 4), torch.float32, 'prediction', 'cuda:0'), ['flex', 'sdpa'], 'sdpa', 600),
    ]
