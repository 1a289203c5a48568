"""What the trace finds, and that docs/data_flow.md says the same."""

import random
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmseg_beit.apis.data_flow import PREDICTION, TRAINING, describe, needs_mask, trace_data_flow
from mmseg_beit.errors import InputError, MissingFileError
from mmseg_beit.scenes import render_scene

COMMAND = (
    'python tools/trace_data_flow.py configs/beit_tiny_upernet_scenes.py '
    'data/scenes/images/training/scene_train_00000.jpg --seed 1 --update docs/data_flow.md'
)


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    """The first training scene of data/scenes, as a picture and its mask."""
    image, mask = render_scene(0, 0, 0, (240, 320))
    root = tmp_path_factory.mktemp('scene')
    Image.fromarray(image).save(root / 'scene.jpg')
    Image.fromarray(mask).save(root / 'scene.png')
    return root / 'scene.jpg', root / 'scene.png'


@pytest.fixture(scope='module')
def hops(scene, request):
    config = request.config.rootpath / 'configs/beit_tiny_upernet_scenes.py'
    return trace_data_flow(config, *scene, seed=1)


def found(hops, stage):
    """File, function, key, shape and dtype of every row."""
    return [
        (hop.file, f'{hop.function} of {hop.heir}' if hop.heir else hop.function, value.key, value.shape, value.dtype)
        for hop in hops
        if hop.stage == stage
        for value in hop.values
    ]


def documented(page, stage):
    """The same from the page's table, where a hop's file and function stand in its first row only."""
    table = re.search(f'<!-- {stage} begins -->\n(.*)<!-- {stage} ends -->', page, re.DOTALL).group(1)
    rows, file, function = [], '', ''
    for line in table.splitlines()[2:]:
        cells = [cell.strip().replace('`', '') for cell in line.strip('|').split('|')]
        file, function = cells[0] or file, cells[1] or function
        rows.append((file, function, *cells[2:5]))
    return rows


@pytest.mark.parametrize('stage', [TRAINING, PREDICTION])
def test_page_agrees_with_what_happens(hops, stage, project):
    page = (project / 'docs/data_flow.md').read_text()
    assert documented(page, stage) == found(hops, stage), f'to bring the page up to date: {COMMAND}'


def test_page_names_the_command(project):
    page = ' '.join((project / 'docs/data_flow.md').read_text().split())
    assert COMMAND.removesuffix(' --update docs/data_flow.md') in page


def test_the_way_of_a_picture(hops):
    rows = {(hop.stage, hop.function, value.key): value for hop in hops for value in hop.values}
    crop = (160, 160)
    assert rows[TRAINING, 'LoadImageFromFile.transform', 'img'].shape == '(240, 320, 3)'
    assert rows[TRAINING, 'LoadImageFromFile.transform', 'img'].dtype == 'uint8'
    assert rows[TRAINING, 'RandomCrop.transform', 'gt_seg_map'].shape == str(crop)
    assert rows[TRAINING, 'SegDataPreProcessor.forward', 'inputs'].shape == f'(2, 3, {crop[0]}, {crop[1]})'
    assert rows[TRAINING, 'BEiT.forward', 'features[3]'].shape == '(2, 192, 10, 10)'
    assert rows[TRAINING, 'EncoderDecoder.parse_losses', 'loss'].shape == '()'
    assert rows[PREDICTION, 'SegResult.overlay', 'overlay'].shape == '(240, 320, 3)'
    assert rows[PREDICTION, 'SegResult.overlay', 'overlay'].dtype == 'uint8'


def test_losses_add_up(hops):
    values = {value.key: value.range for hop in hops if hop.stage == TRAINING for value in hop.values}
    terms = float(values['losses.decode.loss_ce']) + float(values['losses.aux.loss_ce'])
    assert float(values['loss']) == pytest.approx(terms, abs=2e-3)


def test_lines_lead_to_the_functions(hops, project):
    own = [hop for hop in hops if hop.file.startswith('mmseg_beit/')]
    assert len(own) > 8
    for hop in own:
        lines = (project / hop.file).read_text().splitlines()[hop.line - 1 :][:4]  # decorators come first
        assert any(f'def {hop.function.split(".")[-1]}(' in line for line in lines), (hop.file, hop.line)


def test_spies_leave_nothing_behind(tiny):
    from mmseg_beit.apis import inference
    from mmseg_beit.apis.result import SegResult
    from mmseg_beit.models.layers.logit_map import LogitMap

    before = [inference.read_picture, inference.make_result, SegResult.overlay, LogitMap.labels, LogitMap.resize]
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    trace_data_flow(tiny.config, tiny.folder / 'data/images/training/00.jpg')
    after = [inference.read_picture, inference.make_result, SegResult.overlay, LogitMap.labels, LogitMap.resize]
    assert before == after
    assert state == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002


def test_mask_of_the_training_data_is_found(tiny):
    hops = trace_data_flow(tiny.config, tiny.folder / 'data/images/training/00.jpg')
    assert not needs_mask(hops)
    assert needs_mask(trace_data_flow(tiny.config, tiny.folder / 'data/images/validation/00.jpg'))


def test_every_batch_of_windows_is_seen(tiny):
    config = Config.fromfile(tiny.config)
    config.model.test_cfg = dict(mode='slide', crop_size=(16, 16), stride=(16, 16), window_batch_size=2)
    hops = trace_data_flow(config, tiny.folder / 'data/images/validation/00.jpg')
    backbone = [hop for hop in hops if hop.function == 'BEiT.forward']
    assert [hop.values[0].shape for hop in backbone] == ['(2, 32, 2, 2)'] * 2  # 4 windows of 16, patches of 8


def test_mistakes_are_one_sentence(tiny):
    image = tiny.folder / 'data/images/training/00.jpg'
    with pytest.raises(MissingFileError, match=r'image .* does not exist'):
        trace_data_flow(tiny.config, 'nowhere.jpg')
    with pytest.raises(MissingFileError, match=r'mask .* does not exist'):
        trace_data_flow(tiny.config, image, 'nowhere.png')
    small = tiny.folder / 'small.png'
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(small)
    with pytest.raises(InputError, match=r'small\.png is 7x5 pixels'):
        trace_data_flow(tiny.config, image, small)


def test_description_of_values():
    (row,) = describe(np.array([[0, 3], [255, 255]], np.uint8), 'mask')
    assert (row.key, row.shape, row.dtype, row.range) == ('mask', '(2, 2)', 'uint8', '0..3, 255')
    (row,) = describe(torch.tensor([-1.5, 2.25]), 'x')
    assert (row.shape, row.dtype, row.range) == ('(2)', 'float32 tensor', '-1.5..2.25')
    rows = describe({'a': [torch.zeros(1), torch.ones(2)], 'b': (3, 4)})
    assert [(row.key, row.dtype) for row in rows] == [('a[0]', 'float32 tensor'), ('a[1]', 'float32 tensor'),
                                                      ('b', 'tuple')]  # fmt: skip
    assert describe({i: i for i in range(20)}, 'map')[0].range == '20 entries'


def test_tool_prints_and_updates(tiny):
    image = tiny.folder / 'data/images/training/00.jpg'
    done = tiny.run('trace_data_flow.py', tiny.config, image, COLUMNS='200')
    assert done.returncode == 0, done.stderr
    assert 'Training' in done.stdout and 'Prediction' in done.stdout
    row = r'mmseg_beit/models/backbones/beit\.py:\d+ .*BEiT\.forward .*features\[0\].*\(2, 32, 4, 4\)'
    assert re.search(row, done.stdout)
    page = tiny.folder / 'page.md'
    page.write_text('before\n<!-- training begins -->\nold\n<!-- training ends -->\nafter\n')
    done = tiny.run('trace_data_flow.py', tiny.config, image, '--update', page)
    assert done.returncode == 2 and '<!-- prediction begins -->' in done.stderr
    text = page.read_text()
    assert text.startswith('before\n') and text.endswith('after\n') and 'old' not in text and 'BEiT.forward' in text
