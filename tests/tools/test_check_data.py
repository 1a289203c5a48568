"""The data check before a run, which a config need not name, and its tool."""

import re

import numpy as np
import pytest
from PIL import Image


def spoil(path):
    with Image.open(path) as picture:
        mask = np.array(picture)
    mask[3:5, 3:5] = 9
    Image.fromarray(mask).save(path)


def test_training_stops_before_the_first_step_and_writes_no_checkpoint(tiny):
    spoil(tiny.folder / 'data/annotations/training/03.png')
    done = tiny.run('train.py', tiny.config, '--work-dir', 'work')
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1 and '03.png) hold the value 9' in errors[0] and 'Traceback' not in done.stderr
    assert not list((tiny.folder / 'work').rglob('*.pth'))


@pytest.mark.slow
def test_all_processes_stop_with_the_first(tiny):
    spoil(tiny.folder / 'data/annotations/training/03.png')
    done = tiny.run('dist_train.sh', tiny.config, 2, '--work-dir', 'work', CUDA_VISIBLE_DEVICES='')
    assert done.returncode != 0
    assert done.stderr.count('hold the value 9') == 1 and 'Traceback' not in done.stderr


def test_tool_prints_tables_and_draws_the_sheet(tiny):
    done = tiny.run('check_data.py', tiny.config, '--sheet', 'sheet.png', '--sheet-count', 3, COLUMNS='160')
    assert done.returncode == 0, done.stderr
    assert 'no problem found' in done.stdout
    # 16 and 4 pictures; each mask's first 2 of 32 columns are unlabelled.
    assert re.search(r'train .* 16 .* 16 .*32x32 \(16\)', done.stdout)
    assert re.search(r'val .* 4 .* 4 .*32x32 \(4\)', done.stdout)
    assert re.search(r'ignored, share of all pixels.*6\.25 %.*6\.25 %', done.stdout)
    with Image.open(tiny.folder / 'sheet.png') as sheet:
        assert sheet.size == (4 * 320, 240)


def test_tool_lists_every_problem(tiny):
    spoil(tiny.folder / 'data/annotations/training/03.png')
    (tiny.folder / 'data/images/training/05.jpg').write_bytes(b'\xff\xd8')
    (tiny.folder / 'data/images/validation/02.jpg').unlink()
    done = tiny.run('check_data.py', tiny.config)
    assert done.returncode == 2
    problems = [line for line in done.stderr.splitlines() if line.startswith('problem: ')]
    assert len(problems) == 3
    assert any('train: ' in line and '05.jpg' in line for line in problems)
    assert any('train: ' in line and 'hold the value 9' in line for line in problems)
    assert any('val: ' in line and '(02.png)' in line for line in problems)


def test_tool_without_the_split(tiny):
    done = tiny.run('check_data.py', tiny.write_config('\ndel test_dataloader\n'), '--split', 'test')
    assert done.returncode == 2 and 'no test_dataloader' in done.stderr
