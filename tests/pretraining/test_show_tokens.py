"""tools/show_tokens.py on tiny models of both stages, and what is in its pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_beit.apis.tokens import TokenShower
from mmseg_beit.errors import InputError
from mmseg_beit.registry import MODELS
from tests.tools.conftest import PROJECT, call_tool

PIPELINE = """
train_dataloader = dict(dataset=dict(type='UnlabelledImages', data_root='photos', pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='BlockwiseMask', grid=4, num_masked=6, min_block=4, exact=True),
]))
"""
HEADER = """
default_scope = 'mmseg_beit'
custom_imports = dict(imports=['mmseg_beit.models.pretraining'], allow_failed_imports=False)
"""


@pytest.fixture
def photos(tmp_path):
    """Two noisy photographs, wider than high, and a broken one elsewhere."""
    rng = np.random.default_rng(0)
    (tmp_path / 'photos').mkdir()
    for name in 'ab':
        Image.fromarray(rng.integers(0, 256, (70, 100, 3), dtype=np.uint8)).save(tmp_path / 'photos' / f'{name}.png')
    (tmp_path / 'broken.jpg').write_bytes(b'no picture')
    return tmp_path


@pytest.fixture
def stages(photos, vqkd_config, backbone_config):
    """Config and checkpoint of a tiny VQ-KD with a codebook, and of a tiny v1 model that predicts its words."""
    model = vqkd_config(quantizer=dict(kmeans_init=False))
    tokenizer = MODELS.build(model)
    tokenizer.init_weights()
    torch.save(dict(state_dict=tokenizer.state_dict()), photos / 'vqkd.pth')
    (photos / 'vqkd.py').write_text(f'{HEADER}model = {model!r}\n')
    mim = dict(
        type='MaskedImageModeling', backbone=backbone_config(),
        head=dict(type='BEiTV1Head', embed_dims=32, num_embed=16),
        tokenizer=vqkd_config(trains=False, init_cfg=dict(type='Pretrained', checkpoint=str(photos / 'vqkd.pth'))),
    )  # fmt: skip
    torch.save(dict(state_dict=MODELS.build(mim).state_dict()), photos / 'mim.pth')
    (photos / 'mim.py').write_text(f'{HEADER}{PIPELINE}model = {mim!r}\n')
    return photos


def test_draws_what_was_hidden_and_what_is_predicted(stages, capsys):
    assert call_tool('show_tokens.py', 'mim.py', 'mim.pth', '--out', 'out', '--device', 'cpu', cwd=stages) == 0
    said = capsys.readouterr().out
    assert 'of 6 hidden patches right' in said and 'all 2:' in said and 'of 12 hidden' in said
    width, height = Image.open(stages / 'out' / 'a.png').size
    assert width > 3 * height and (stages / 'out' / 'b.png').is_file()


def test_a_broken_photograph_is_named_and_the_others_go_on(stages, capsys):
    arguments = ('vqkd.py', 'vqkd.pth', 'photos/a.png', 'broken.jpg', '--out', 'out', '--device', 'cpu')
    assert call_tool('show_tokens.py', *arguments, cwd=stages) == 1
    said = capsys.readouterr()
    assert 'broken.jpg cannot be read' in said.err and 'cosine with the teacher' in said.out
    assert [path.name for path in (stages / 'out').iterdir()] == ['a.png']


def test_panels_hold_the_words(stages, monkeypatch):
    """Hidden patches are the mask's, words the tokenizer's of the same view, and the share right is counted."""
    monkeypatch.chdir(stages)
    shower = TokenShower('mim.py', 'mim.pth', 'cpu', seed=3)
    with torch.no_grad():  # a head that always says word 5
        shower.model.head.cls_head.weight.zero_()
        shower.model.head.cls_head.bias.copy_(torch.nn.functional.one_hot(torch.tensor(5), 16))
    shown = shower.show('photos/a.png')
    photo, covered, words, predicted = shown.panels.values()
    view = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float()
    codes = shower.tokenizer.tokenize(view)[0].numpy()
    np.testing.assert_array_equal(words[::16, ::16], shower.palette[codes])
    hidden = (predicted[::16, ::16] == shower.palette[5]).all(-1)
    assert hidden.sum() == shown.figures['hidden'] == 6
    assert (covered.reshape(4, 16, 4, 16, 3) == 128).all((1, 3, 4))[hidden].all()
    np.testing.assert_array_equal(
        covered[~hidden.repeat(16, 0).repeat(16, 1)], photo[~hidden.repeat(16, 0).repeat(16, 1)]
    )
    assert shown.figures['right'] == (codes[hidden] == 5).sum()
    again = shower.show('photos/a.png').panels
    assert all(np.array_equal(panel, again[title]) for title, panel in shown.panels.items())


def test_a_model_without_words(stages):
    with pytest.raises(InputError, match='has no visual words: name a config of configs/pretraining'):
        TokenShower(PROJECT / 'configs' / 'beit_tiny_upernet_scenes.py', stages / 'mim.pth')
