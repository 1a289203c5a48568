"""The command line, as people type it; and what it writes, loaded by those who own the formats."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from mmseg_beit.checkpoint import convert_checkpoint, inspect_checkpoint, load_checkpoint, read_state_dict
from mmseg_beit.errors import InputError, run_tool
from tests.checkpoint.peers import (
    HEADS,
    PATCH,
    WIDTH,
    beit,
    hf_config,
    mmseg_segmentor,
    official_backbone,
    official_pretraining,
    randomise,
    segmentor,
    timm_beit,
)

FORMATS = ('mmseg_beit', 'mmseg', 'mmpretrain', 'timm', 'hf', 'official')


@pytest.fixture
def run(project, monkeypatch, capsys):
    """Runs the tool in this process; returns exit status, standard output and standard error."""
    spec = importlib.util.spec_from_file_location('convert_checkpoint', project / 'tools' / 'convert_checkpoint.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['convert_checkpoint.py', *map(str, args)])
        with pytest.raises(SystemExit) as done:
            run_tool(tool.main)
        return done.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def official(tmp_path):
    torch.save(dict(model=official_backbone()), tmp_path / 'beit_official.pth')
    return tmp_path / 'beit_official.pth'


def test_as_a_program(project, official):
    command = [sys.executable, '-W', 'ignore', project / 'tools' / 'convert_checkpoint.py', official, '--inspect']
    done = subprocess.run(
        command, capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(project)), cwd=official.parent
    )
    assert done.returncode == 0 and done.stdout.startswith(f'Checkpoint {official}'), done.stderr


def test_inspect_and_convert(run, official, tmp_path):
    status, out, err = run(official, '--inspect')
    assert status == 0, err
    for part in ('official', '32 wide, 2 layers', '2 heads', '4x4 patches', 'float32', 'epsilon 1e-06'):
        assert part in out
    target = tmp_path / 'new' / 'timm.safetensors'
    status, out, err = run(official, target, '--to', 'timm')
    assert status == 0 and 'written' in out, err
    before = target.read_bytes()
    status, out, err = run(official, target, '--to', 'timm')
    assert status == 2 and '--overwrite' in err and err.count('\n') == 1 and target.read_bytes() == before
    status, _, err = run(official, target, '--to', 'timm', '--overwrite')
    assert status == 0, err
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    peer = timm_beit(num_classes=0, use_fc_norm=True)
    state_dict, _ = read_state_dict(target)
    assert set(peer.load_state_dict(state_dict, strict=False).missing_keys) == {'fc_norm.weight', 'fc_norm.bias'}


def test_usage(run, official, tmp_path):
    for args in (
        (official,),
        (official, tmp_path / 'a.pth'),
        (official, '--to', 'timm'),
        (official, tmp_path / 'a.pth', '--to', 'keras'),
        (official, '--inspect', '--to', 'timm'),
    ):
        status, _, err = run(*args)
        assert status == 2 and 'Traceback' not in err
    status, _, err = run(tmp_path / 'missing.pth', '--inspect')
    assert status == 2 and err.startswith('error: ') and 'does not exist' in err and err.count('\n') == 1


def test_trust(run, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'ran'),)

    torch.save(dict(model=official_backbone(), evil=Evil()), tmp_path / 'evil.pth')
    status, _, err = run(tmp_path / 'evil.pth', '--inspect')
    assert status == 2 and 'posix.mkdir' in err and '--trust-checkpoint' in err and not (tmp_path / 'ran').exists()
    status, out, _ = run(tmp_path / 'evil.pth', '--inspect', '--trust-checkpoint')
    assert status == 0 and 'official' in out and (tmp_path / 'ran').exists()


@pytest.mark.parametrize('to', FORMATS)
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_files_of_every_format_load_again(tmp_path, to, suffix):
    """The whole way through files: a pre-training checkpoint to each format and into our backbone."""
    torch.save(dict(model=official_pretraining()), tmp_path / 'start.pth')
    target = tmp_path / (to if to == 'hf' else f'{to}{suffix}')
    report = convert_checkpoint(tmp_path / 'start.pth', target, to)
    assert report.content == 'self-supervised pre-training'
    expected = beit(final_norm=True)
    load_checkpoint(expected, tmp_path / 'start.pth')
    model = beit(final_norm=True)
    loaded = load_checkpoint(model, target)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), expected.state_dict().values(), strict=True)
    )
    assert loaded.grid == (4, 4)


def test_oblong_grids_survive_in_our_files(tmp_path):
    source = official_backbone(grid=(3, 5))
    source = {name: t for name, t in source.items() if not name.endswith('index')}
    torch.save(dict(model=source), tmp_path / 'start.pth')
    with pytest.raises(InputError, match='name its grid'):
        convert_checkpoint(tmp_path / 'start.pth', tmp_path / 'a.pth', 'mmseg_beit')
    for to in ('mmseg_beit', 'mmseg', 'official', 'mmpretrain'):
        convert_checkpoint(tmp_path / 'start.pth', tmp_path / f'{to}.pth', to, source_grid=(3, 5))
        assert inspect_checkpoint(tmp_path / f'{to}.pth').grid == (3, 5)
    convert_checkpoint(tmp_path / 'start.pth', tmp_path / 'timm.safetensors', 'timm', source_grid=(3, 5))
    assert inspect_checkpoint(tmp_path / 'timm.safetensors').grid == (3, 5)
    with pytest.raises(InputError, match='not square'):
        convert_checkpoint(tmp_path / 'start.pth', tmp_path / 'hf', 'hf', source_grid=(3, 5))


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (0, 1, 2, 4)], ids=['inner blocks', 'last block'])
def test_transformers_gives_our_logits(tmp_path, out_indices):
    from transformers import BeitForSemanticSegmentation

    model = segmentor(depth=5, out_indices=out_indices)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'ours.pth')
    report = convert_checkpoint(tmp_path / 'ours.pth', tmp_path / 'hf', 'hf', out_indices=out_indices)
    assert any('epsilon' in note for note in report.notes)
    peer, info = BeitForSemanticSegmentation.from_pretrained(tmp_path / 'hf', output_loading_info=True)
    assert not info['missing_keys'] and not info['unexpected_keys'] and not info['mismatched_keys']
    assert peer.config.num_labels == 5 and peer.config.layer_norm_eps == 1e-6
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    assert torch.allclose(peer.eval()(images).logits, expected, atol=1e-4 * float(expected.abs().max()))
    # The way back: the identity layer is gone, everything else is there.
    again = segmentor(depth=5, out_indices=out_indices)
    back = load_checkpoint(again, tmp_path / 'hf', role='test')
    assert not back.left_out and back.depth == 5
    assert not any('blocks' in note or 'epsilon' in note for note in back.notes)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))


def test_training_checkpoints_know_their_blocks_and_epsilon(tmp_path):
    model = segmentor(depth=5)
    config = (
        "model = dict(\n    backbone=dict(type='BEiT', out_indices=(0, 1, 3, 4), norm_cfg=dict(type='LN', eps=2e-06)))"
    )
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=config)), tmp_path / 'iter_1.pth')
    report = inspect_checkpoint(tmp_path / 'iter_1.pth')
    assert 'reads the blocks 0, 1, 3, 4, counted from 0' in report.notes
    assert 'layer norm epsilon 2e-06' in report.notes
    convert_checkpoint(tmp_path / 'iter_1.pth', tmp_path / 'own.safetensors', 'mmseg_beit')
    convert_checkpoint(tmp_path / 'own.safetensors', tmp_path / 'hf', 'hf')
    config = read_state_dict(tmp_path / 'hf')[1]['config']
    assert config['out_indices'] == [2, 3, 5, 6] and config['layer_norm_eps'] == 2e-6
    # A config is parsed, never run, and may be anything.
    for text in ('import os; os.mkdir("ran")', '(' * 1000, 'model = dict(backbone=dict(out_indices=f()))', 'é' * 99, 3):
        torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=text)), tmp_path / 'iter_1.pth')
        assert 'reads' not in str(inspect_checkpoint(tmp_path / 'iter_1.pth'))


def test_transformers_folders_go_back_unchanged(tmp_path):
    from transformers import (
        BeitForImageClassification,
        BeitForMaskedImageModeling,
        BeitForSemanticSegmentation,
        BeitModel,
    )

    shared = dict(use_relative_position_bias=False, use_shared_relative_position_bias=True, use_mask_token=True)
    for kind, options in [
        (BeitForSemanticSegmentation, dict(out_indices=[1, 2, 3, 4], layer_norm_eps=1e-12)),
        (BeitForImageClassification, dict(num_labels=9)),
        (BeitForImageClassification, dict(num_labels=9, use_mean_pooling=False)),
        (BeitForMaskedImageModeling, shared),
        (
            BeitModel,
            dict(use_absolute_position_embeddings=True, use_relative_position_bias=False, use_mean_pooling=False),
        ),
    ]:
        peer = randomise(kind(hf_config(**options)))
        name = f'{kind.__name__}{len(options)}'
        peer.save_pretrained(tmp_path / name)
        convert_checkpoint(tmp_path / name, tmp_path / f'{name} again', 'hf')
        again, info = kind.from_pretrained(tmp_path / f'{name} again', output_loading_info=True)
        assert not info['missing_keys'] and not info['unexpected_keys'], name
        expected = peer.state_dict()
        assert set(again.state_dict()) == set(expected)
        assert all(torch.equal(tensor, expected[key]) for key, tensor in again.state_dict().items())
        mine, theirs = again.config.to_dict(), peer.config.to_dict()
        # Both are start values that no loaded tensor depends on.
        differing = {key for key in theirs if mine.get(key) != theirs[key]} - {
            '_name_or_path',
            'dtype',
            'num_attention_heads',
        }
        assert not differing, (name, differing)


def test_peers_read_converted_files(tmp_path):
    torch.save(dict(model=official_backbone(4)), tmp_path / 'start.pth')
    for to in ('mmseg', 'mmpretrain'):
        convert_checkpoint(tmp_path / 'start.pth', tmp_path / f'{to}.pth', to)
    mmseg = mmseg_segmentor().backbone
    mmseg.load_state_dict(torch.load(tmp_path / 'mmseg.pth')['state_dict'])
    from mmpretrain.models.backbones import BEiTViT

    arch = dict(embed_dims=WIDTH, num_layers=4, num_heads=HEADS, feedforward_channels=4 * WIDTH)
    mmpretrain = BEiTViT(arch=arch, img_size=32, patch_size=PATCH, out_type='raw', final_norm=False)
    mmpretrain.load_state_dict(torch.load(tmp_path / 'mmpretrain.pth')['state_dict'])
    images = torch.randn(2, 3, 32, 32)
    mmseg.eval(), mmpretrain.eval()  # their train() returns nothing
    tokens = mmpretrain(images)[-1]
    torch.testing.assert_close(tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4)), mmseg(images)[-1])


def test_destinations(official, tmp_path):
    for destination, to, says in [
        (tmp_path / 'a.onnx', 'timm', 'ends in no known way'),
        (tmp_path, 'hf', 'exists'),
        (official, 'hf', 'is a file'),
        (official / 'a.pth', 'timm', 'cannot be written'),
        (tmp_path / 'a.pth', 'keras', 'unknown'),
    ]:
        with pytest.raises(InputError, match=says):
            convert_checkpoint(official, destination, to)
    folder = tmp_path / 'folder.pth'
    folder.mkdir()
    with pytest.raises(InputError, match='is a folder'):
        convert_checkpoint(official, folder, 'timm')
    (tmp_path / 'link.pth').symlink_to(tmp_path / 'nowhere')
    with pytest.raises(InputError, match='exists'):
        convert_checkpoint(official, tmp_path / 'link.pth', 'timm')


def test_files_hold_nothing_else(official, tmp_path):
    # Query and value of one bias, tables of one shared: views of larger memory must not be written whole.
    source = official_backbone()
    for i in range(2):
        q, v = source.pop(f'blocks.{i}.attn.q_bias'), source.pop(f'blocks.{i}.attn.v_bias')
        source[f'blocks.{i}.attn.qkv.bias'] = torch.cat([q, torch.ones(50_000), v])[: 3 * WIDTH]
    torch.save(source, tmp_path / 'start.pth')
    assert (tmp_path / 'start.pth').stat().st_size > 400_000
    convert_checkpoint(tmp_path / 'start.pth', tmp_path / 'own.pth', 'mmseg_beit')
    numbers = sum(tensor.numel() for tensor in read_state_dict(tmp_path / 'own.pth')[0].values())
    assert (tmp_path / 'own.pth').stat().st_size < 4 * numbers + 40_000


def test_a_file_may_replace_itself(official):
    convert_checkpoint(official, official, 'mmseg_beit', overwrite=True)
    model = beit()
    load_checkpoint(model, official)
    assert torch.equal(model.cls_token, official_backbone()['cls_token'])


def test_nothing_is_left_behind_when_writing_fails(official, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', full)
    target = tmp_path / 'out' / 'a.pth'
    with pytest.raises(InputError, match='No space left'):
        convert_checkpoint(official, target, 'mmseg_beit')
    assert list(target.parent.iterdir()) == []
