"""Frozen features, their cache, and the linear classifiers on them."""

import json
import os

import pytest
import torch
from mmengine import Config

from mmseg_beit.apis.classification import init_classifier
from mmseg_beit.apis.linear_probe import FrozenBackbone, ProbeSettings, cached_features, select, train_probe
from mmseg_beit.apis.pictures import find_pictures
from mmseg_beit.errors import InputError
from tests.checkpoint.peers import randomise


@pytest.fixture
def trained(tiny):
    """A checkpoint of the tiny classifier, with random weights."""
    model = randomise(init_classifier(tiny.config, device='cpu'))
    torch.save(dict(state_dict=model.state_dict(), meta={}), tiny.folder / 'model.pth')
    return tiny, model


def test_the_last_layers_mean_is_what_the_classifier_normalises(trained):
    tiny, model = trained
    config = Config.fromfile(tiny.config)
    frozen = FrozenBackbone(config, tiny.folder / 'model.pth', device='cpu')
    found, labels, classes = cached_features(frozen, config, 'val', tiny.folder / 'cache')
    assert labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert classes == ('grass', 'road', 'water')
    assert sorted(found) == [0, 1] and found[1]['mean'].shape == (9, 32)

    from mmseg_beit.apis.classification import ImageClassifierInferencer

    infer = ImageClassifierInferencer(model)
    pictures = find_pictures([tiny.data / 'val'], recursive=True)
    scores = torch.stack([torch.from_numpy(result.scores) for result in infer([picture.path for picture in pictures])])
    logits = model.head.fc(model.backbone.fc_norm(found[1]['mean'].float()))
    torch.testing.assert_close(logits.softmax(dim=1), scores, rtol=0, atol=2e-3)  # features are kept as float16


def test_the_cache_is_used_until_something_changes(trained):
    tiny, _ = trained
    config = Config.fromfile(tiny.config)
    calls = []

    def run(layers=None, split='val'):
        calls.clear()
        frozen = FrozenBackbone(config, tiny.folder / 'model.pth', layers, device='cpu')
        return cached_features(frozen, config, split, tiny.folder / 'cache', progress=lambda *done: calls.append(done))

    first = run([0])
    assert calls == [(9, 9)]
    again = run([0])
    assert not calls
    assert torch.equal(first[0][0]['cls'], again[0][0]['cls'])
    run([0, 1])  # only layer 1 is new, and the layers of one run share a pass
    assert calls == [(9, 9)]
    assert len(list((tiny.folder / 'cache').iterdir())) == 2
    run([1, 0])
    assert not calls
    os.utime(tiny.data / 'val' / 'road' / '0.jpg', (1, 1))
    run([0])
    assert calls
    state = torch.load(tiny.folder / 'model.pth', weights_only=True)
    state['state_dict']['backbone.cls_token'] += 1
    torch.save(state, tiny.folder / 'model.pth')
    run([0])
    assert calls
    config.val_dataloader.dataset.pipeline[1].scale = 40
    run([0])
    assert calls


def test_final_norm_is_the_checkpoints(trained):
    tiny, model = trained
    config = Config.fromfile(tiny.config)
    assert FrozenBackbone(config, tiny.folder / 'model.pth', device='cpu').backbone.ln1 is None
    state = {**model.state_dict(), 'backbone.ln1.weight': torch.full((32,), 2.0), 'backbone.ln1.bias': torch.ones(32)}
    torch.save(dict(state_dict=state, meta={}), tiny.folder / 'normed.pth')
    frozen = FrozenBackbone(config, tiny.folder / 'normed.pth', device='cpu')
    assert frozen.backbone.ln1.weight.tolist() == [2.0] * 32


def test_select_joins_class_token_and_mean():
    features = dict(cls=torch.tensor([[1.0, 2.0]]), mean=torch.tensor([[3.0, 4.0]]))
    assert select(features, 'both').tolist() == [[1.0, 2.0, 3.0, 4.0]]
    assert select(features, 'mean').tolist() == [[3.0, 4.0]]
    with pytest.raises(InputError, match='choose among cls, mean, both'):
        select(features, 'max')


def test_separable_features_are_learnt_whatever_their_scale_and_noise_is_not():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    centres = torch.randn(3, 8, generator=generator)
    features = (centres[labels] + 0.05 * torch.randn(300, 8, generator=generator)).half()
    settings = ProbeSettings(epochs=30, batch_size=64)
    for scale in (1.0, 1000.0):
        scores = train_probe((features * scale, labels), (features * scale, labels), 3, settings)
        assert scores == dict(top1=100.0, top5=100.0, train_top1=100.0)
    noise = torch.randn(600, 8, generator=generator)
    scores = train_probe((noise[:300], labels), (noise[300:], labels), 3, settings)
    assert 20 < scores['top1'] < 47  # chance is 33


def test_the_same_seed_gives_the_same_figures():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 4, generator=generator), torch.arange(80) % 8
    runs = [train_probe((x, y), (x, y), 8, ProbeSettings(epochs=5, batch_size=16, seed=seed)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize('wrong', [dict(epochs=0), dict(lr=-1.0), dict(weight_decay=-1.0), dict(batch_size=0)])
def test_settings_out_of_range(wrong):
    with pytest.raises(InputError, match='linear probe: '):
        ProbeSettings(**wrong)


def test_the_tool_writes_table_figures_and_plot(trained, capsys):
    tiny, _ = trained
    arguments = ('tiny.py', 'model.pth', '--out', 'probe', '--workers', 0, '--epochs', 5, '--device', 'cpu')
    assert tiny.call('linear_probe.py', *arguments, '--features', 'cls', 'both') == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith('top-1')] == [['top-1', 'cls', 'both']]
    figures = json.loads((tiny.folder / 'probe' / 'linear_probe.json').read_text())
    assert [(row['layer'], row['feature']) for row in figures['results']] == [
        (0, 'cls'), (0, 'both'), (1, 'cls'), (1, 'both'),
    ]  # fmt: skip
    shown = [line.split()[2:] for line in lines if line.startswith('layer')]
    assert shown == [[f'{row["top1"]:.2f}' for row in figures['results'] if row['layer'] == layer] for layer in (0, 1)]
    assert figures['settings'] == dict(epochs=5, lr=4e-3, weight_decay=1e-4, batch_size=1024, seed=0)
    assert (tiny.folder / 'probe' / 'linear_probe.png').stat().st_size > 5000


@pytest.mark.parametrize(
    'wrong, said',
    [
        (('--layers', 2), 'name some of 0 to 1'),
        (('--features', 'max'), "feature 'max' is unknown"),
        (('--epochs', 0), 'epochs=0 must be above 0'),
    ],
)
def test_the_tool_refuses_in_one_sentence(trained, capsys, wrong, said):
    tiny, _ = trained
    assert tiny.call('linear_probe.py', 'tiny.py', 'model.pth', '--out', 'probe', '--device', 'cpu', *wrong) == 2
    assert said in capsys.readouterr().err
