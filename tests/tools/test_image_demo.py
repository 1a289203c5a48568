"""The overlay tool, as a user starts it."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.apis.conftest import demo, demo_source  # noqa: F401

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'image_demo.py'


@pytest.fixture
def run(demo, monkeypatch, capsys):  # noqa: F811
    """Runs the tool in this process; gives status, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['image_demo.py', *map(str, arguments)])
        # The tool may hide the GPUs and quiet warnings for its own process.
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', os.environ.get('CUDA_VISIBLE_DEVICES', ''))
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name='__main__')
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return run


MODEL = ('config.py', 'checkpoint.pth', '--out-dir', 'out', '--device', 'cpu')


def written(folder='out'):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob('*') if path.is_file())


def test_one_picture(run):
    status, out, err = run('photo.jpg', *MODEL)
    assert status == 0 and out.endswith('1 of 1 overlays are in out\n')
    assert '1/1' in err
    assert written() == ['photo.png']
    assert Image.open('out/photo.png').size == (64, 48)


def test_a_folder_with_legend_and_masks(run):
    status, _, _ = run('photos', *MODEL, '--with-legend', '--borders', '--save-mask', '--batch-size', 2)
    assert status == 0
    assert written() == [f'{folder}{i}.png' for folder in ('', 'masks/') for i in range(3)]
    assert Image.open('out/0.png').height > 48
    mask = np.asarray(Image.open('out/masks/0.png'))
    assert mask.shape == (48, 64) and mask.min() >= 1 and mask.max() <= 3


def test_opacity_zero_is_the_picture(run):
    assert run('photos/*.png', *MODEL, '--opacity', 0)[0] == 0
    for name in ('0.png', '1.png', '2.png'):
        assert (np.asarray(Image.open(f'out/{name}')) == np.asarray(Image.open(f'photos/{name}'))).all()


def test_several_pictures_and_options_of_the_config(run):
    assert run('photo.jpg', 'photos', *MODEL, '--cfg-options', 'model.test_cfg.mode=whole')[0] == 0
    assert written() == ['0.png', '1.png', '2.png', 'photo.png']


def test_a_second_run_replaces_the_first(run):
    assert run('photo.jpg', *MODEL)[0] == 0
    before = Path('out/photo.png').read_bytes()
    assert run('photo.jpg', *MODEL, '--opacity', 0.9)[0] == 0
    assert Path('out/photo.png').read_bytes() != before


def test_a_damaged_picture_is_named_and_the_others_are_written(run):
    Path('mixed').mkdir()
    for name in ('a.jpg', 'c.jpg'):
        Path('mixed', name).write_bytes(Path('photo.jpg').read_bytes())
    Path('mixed', 'b.jpg').write_bytes(Path('photo.jpg').read_bytes()[:400])
    status, out, err = run('mixed', *MODEL)
    assert status == 1
    assert 'failed: picture mixed/b.jpg cannot be read: ' in err and '1 of 3 pictures could not be used' in err
    assert '2 of 3 overlays' in out
    assert written() == ['a.png', 'c.png']


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (('gone.jpg', *MODEL), 'picture gone.jpg does not exist'),
        (('*.bmp', *MODEL), 'holds no picture'),
        (('photo.jpg', 'gone.py', *MODEL[1:]), 'gone.py does not exist'),
        (('photo.jpg', 'config.py', 'gone.pth', *MODEL[2:]), 'gone.pth'),
        (('photo.jpg', *MODEL, '--opacity', '1.5'), 'opacity=1.5'),
        (('photo.jpg', *MODEL, '--batch-size', '0'), 'batch_size=0'),
        (('photo.jpg', *MODEL, '--cfg-options', 'model.nonsense=1'), 'nonsense'),
        (('photo.jpg', *MODEL[:-1], 'tpu'), 'tpu is unknown'),
        (('photo.jpg', *MODEL, '--out-dir', 'photo.jpg/out'), 'cannot be written'),
        (('photos', *MODEL, '--out-dir', 'photos'), 'write the results to another folder'),
        (('photos/0.png', *MODEL, '--out-dir', 'photos'), 'would replace the picture'),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(run, arguments, said):
    before = written('photos'), Path('photos/0.png').read_bytes()
    status, out, err = run(*arguments)
    assert status == 2 and out == ''
    assert err.startswith('error: ') and said in err and err.count('\n') == 1
    assert (written('photos'), Path('photos/0.png').read_bytes()) == before
    assert not Path('out').exists() or not written()


@pytest.mark.slow
def test_as_a_process(demo):  # noqa: F811
    command = [sys.executable, str(TOOL), 'photo.jpg', *MODEL, '--with-legend']
    env = {**os.environ, 'PYTHONPATH': str(TOOL.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=demo, env=env)
    assert done.returncode == 0, done.stderr
    assert 'Warning' not in done.stderr and 'Could not import' not in done.stderr + done.stdout
    assert written(demo / 'out') == ['photo.png']
