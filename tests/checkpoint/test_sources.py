"""Addresses without a network: one sentence, or the cached download."""

import shutil
import socket

import pytest
import torch
from safetensors.torch import save_file

from mmseg_beit.checkpoint import load_checkpoint, read_state_dict
from mmseg_beit.errors import InputError, sentence
from tests.checkpoint.peers import beit, official_backbone, timm_beit


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every connection fails at once, as on a machine without a network."""

    def refuse(*args, **kwargs):
        raise OSError('Network is unreachable')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'create_connection', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hugging Face cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    return tmp_path / 'hub'


@pytest.fixture
def torch_hub(monkeypatch, tmp_path):
    """An empty torch hub cache."""
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'torch'), raising=False)
    return tmp_path / 'torch' / 'checkpoints'


def cache(hub, repository, folder):
    """Puts a folder's files into the cache the way a download does."""
    place = hub / f'models--{repository.replace("/", "--")}'
    (place / 'refs').mkdir(parents=True)
    (place / 'refs' / 'main').write_text('0' * 40)
    shutil.copytree(folder, place / 'snapshots' / ('0' * 40))


def refused(source):
    with pytest.raises(InputError) as caught:
        read_state_dict(source)
    assert '\n' not in str(caught.value) and source in str(caught.value)
    return sentence(caught.value)


@pytest.mark.parametrize(
    'source',
    [
        'timm://beit_base_patch16_224.in22k_ft_in22k',
        'timm://beitv2_large_patch16_224',
        'hf://microsoft/beit-base-patch16-224',
        'hf://microsoft/beit-base-patch16-224@main',
    ],
)
def test_hub_without_network(hub, source):
    text = refused(source)
    assert 'model.safetensors' in text
    assert 'timm/beit' in text or 'microsoft/beit' in text


def test_https_without_network(torch_hub):
    text = refused('https://example.com/models/beit_base.pth?sv=1&sig=2')
    assert str(torch_hub / 'beit_base.pth') in text
    assert not (torch_hub / 'beit_base.pth').exists()
    assert 'names no file' in refused('https://example.com/')


@pytest.mark.parametrize(
    ('source', 'says'),
    [
        ('timm://resnet_of_beit', 'beit_base_patch16_224'),
        ('hf://beit-base', 'hf://ORG/NAME'),
        ('hf://a/b/c', 'hf://ORG/NAME'),
        ('hf://../etc/passwd', 'hf://ORG/NAME'),
        ('http://example.com/a.pth', 'unknown scheme'),
        ('s3://bucket/a.pth', 'unknown scheme'),
        ('open-mmlab://beit', 'unknown scheme'),
    ],
)
def test_addresses_that_mean_nothing(hub, source, says):
    assert says in refused(source)


def test_cached_downloads_are_used_offline(hub, torch_hub, tmp_path):
    peer = timm_beit(global_pool='token')
    folder = tmp_path / 'timm'
    folder.mkdir()
    save_file(peer.state_dict(), folder / 'model.safetensors')
    cache(hub, 'timm/beit_base_patch16_224.in22k_ft_in22k', folder)
    report = load_checkpoint(beit(), 'timm://beit_base_patch16_224.in22k_ft_in22k')
    assert report.family == 'timm' and report.source.startswith('timm://')
    # The tag of a bare name is timm's default one.
    cache(hub, 'timm/beit_base_patch16_224.in22k_ft_in22k_in1k', folder)
    load_checkpoint(beit(), 'timm://beit_base_patch16_224')

    torch_hub.mkdir(parents=True)
    torch.save(dict(model=official_backbone()), torch_hub / 'beit_base.pth')
    assert len(read_state_dict('https://example.com/beit_base.pth?sig=1')[0]) == len(official_backbone())


def test_cached_transformers_repository(hub, tmp_path):
    from transformers import BeitModel

    from tests.checkpoint.peers import hf_config, randomise

    peer = randomise(BeitModel(hf_config(image_size=(32, 48))))
    peer.save_pretrained(tmp_path / 'hf')
    cache(hub, 'someone/beit-tiny', tmp_path / 'hf')
    _, meta = read_state_dict('hf://someone/beit-tiny')
    assert meta['config']['image_size'] == [32, 48]
    report = load_checkpoint(beit(4, 64), 'hf://someone/beit-tiny')
    assert report.grid == (4, 6)


def test_old_repositories_hold_pickles(hub, tmp_path):
    (tmp_path / 'old').mkdir()
    torch.save(official_backbone(), tmp_path / 'old' / 'pytorch_model.bin')
    cache(hub, 'someone/old', tmp_path / 'old')
    assert load_checkpoint(beit(), 'hf://someone/old').family.startswith('official')


def test_file_addresses(tmp_path):
    torch.save(official_backbone(), tmp_path / 'a b.pth')
    state_dict, _ = read_state_dict(f'file://{tmp_path}/a%20b.pth')
    plain, _ = read_state_dict(tmp_path / 'a b.pth')
    assert state_dict.keys() == plain.keys()
    assert all(torch.equal(value, plain[name]) for name, value in state_dict.items())
