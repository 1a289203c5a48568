"""The config field ``compile``: networks become graphs while they train, with the same numbers."""

import copy

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn
from torch._dynamo.backends.debugging import aot_eager

from benchmarks.models import build_ours, segmentor_config
from mmseg_beit.engine.compiling import compile_networks
from mmseg_beit.errors import InputError


@pytest.fixture
def graphs(monkeypatch):
    """A backend that counts the graphs it is given, and computes them as they are."""
    torch._dynamo.reset()
    found = []

    def backend(graph, inputs, **kwargs):
        found.append(graph)
        return aot_eager(graph, inputs, **kwargs)

    yield found, backend
    torch._dynamo.reset()


def make_segmentor():
    config = segmentor_config('base', tiny=True)
    config['backbone']['drop_path_rate'] = 0.0
    config['decode_head']['dropout_ratio'] = config['auxiliary_head']['dropout_ratio'] = 0.0
    return build_ours(config).train()


def step(model):
    torch.manual_seed(0)
    labels = torch.randint(0, 150, (2, 1, 64, 64))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    losses = model.loss(torch.randn(2, 3, 64, 64), samples)
    model.zero_grad()
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_training_step_is_the_eager_one(graphs):
    found, backend = graphs
    eager, compiled = make_segmentor(), make_segmentor()
    names = list(compiled.state_dict())
    assert compile_networks(compiled, dict(backend=backend)) == ['backbone', 'neck', 'decode_head', 'auxiliary_head']
    assert list(compiled.state_dict()) == names
    (losses, grads), (other_losses, other_grads) = step(eager), step(compiled)
    assert len(found) == 4
    for name, value in losses.items():
        torch.testing.assert_close(other_losses[name], value, rtol=1e-5, atol=1e-5)
    assert grads.keys() == other_grads.keys()
    atol = 1e-5 * max(grad.abs().max().item() for grad in grads.values())
    for name, grad in grads.items():
        torch.testing.assert_close(other_grads[name], grad, rtol=1e-4, atol=atol)


def test_predictions_of_any_size_make_no_graphs(graphs):
    found, backend = graphs
    model = make_segmentor()
    compile_networks(model, dict(backend=backend))
    model.eval().test_cfg.mode = 'whole'
    with torch.no_grad():
        labels = [model.predict(torch.randn(1, 3, *size))[0].pred_sem_seg.data for size in ((64, 64), (70, 45))]
    assert [tuple(label.shape) for label in labels] == [(1, 64, 64), (1, 70, 45)]
    assert found == []


def test_a_copy_computes_with_its_own_weights(graphs):
    """As an average of the weights does."""
    model = make_segmentor()
    compile_networks(model, dict(backend=graphs[1]))
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    expected = make_segmentor()
    expected.load_state_dict(other.state_dict())
    for training in (True, False):
        img = torch.randn(2, 3, 64, 64)
        (theirs,), (ours,) = ([m.train(training).backbone(img)[-1]] for m in (expected, other))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_several_auxiliary_heads(graphs):
    found, backend = graphs
    model = nn.Module()
    model.auxiliary_head = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 4)])
    assert compile_networks(model, dict(backend=backend)) == ['auxiliary_head']
    assert [head(torch.ones(1, 3)).shape[1] for head in model.auxiliary_head] == [2, 4]
    assert len(found) == 2


@pytest.mark.parametrize('options', [dict(backend='nonsense'), dict(bakend='eager')])
def test_wrong_options(options):
    with pytest.raises(InputError, match=r'compile=\{.*\} is not what torch.compile takes: '):
        compile_networks(make_segmentor(), options)


def test_nothing_to_compile():
    with pytest.raises(InputError, match='compile has nothing to do: Linear has no backbone'):
        compile_networks(nn.Linear(1, 1), {})


def test_a_backend_that_fails_is_one_sentence():
    def backend(graph, inputs):
        raise RuntimeError('no C++ compiler')

    torch._dynamo.reset()
    model = make_segmentor()
    compile_networks(model, dict(backend=backend))
    with pytest.raises(
        InputError, match=r'torch cannot compile model.backbone here \(.*no C\+\+ compiler.*leave compile'
    ):
        step(model)
