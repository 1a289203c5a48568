"""The parts of tools/lifecycle_demo.sh: classes of pictures, configs for a data set, curves, table; and the script."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine import Config
from PIL import Image

from mmseg_beit.errors import InputError, MissingFileError

PROJECT = Path(__file__).resolve().parents[2]
BASH = shutil.which('bash')


@pytest.fixture(scope='module')
def parts():
    """The module tools/_lifecycle.py."""
    spec = importlib.util.spec_from_file_location('_lifecycle', PROJECT / 'tools' / '_lifecycle.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path):
    """Makes a data set in ADE20K's layout: names of pictures, and for each the mask values of its two halves."""

    def make(pictures, classes=None):
        root = tmp_path / 'data'
        for split in ('training', 'validation'):
            for kind in ('images', 'annotations'):
                (root / kind / split).mkdir(parents=True)
            for name, (upper, lower) in pictures.items():
                mask = np.full((9, 4), lower, np.uint8)  # the lower part is the larger one
                mask[:4] = upper
                Image.fromarray(np.zeros((9, 4, 3), np.uint8)).save(root / 'images' / split / f'{name}.jpg')
                Image.fromarray(mask).save(root / 'annotations' / split / f'{name}.png')
        if classes:
            (root / 'classes.txt').write_text('\n'.join(classes) + '\n')
        return root

    return make


def finished_run(run, name, *parts):
    """A segmentation run whose scalars lie in one folder for each part."""
    for i, scores in enumerate(parts):
        folder = run / name / f'2026_{i}' / 'vis_data'
        folder.mkdir(parents=True)
        lines = [json.dumps(dict(mIoU=score, step=step)) for step, score in scores.items()]
        (folder / 'scalars.json').write_text('\n'.join(['{"loss": 1.0, "step": 1}', *lines, '{"mIoU": 9']))
    (run / name / 'trained').touch()


# Classes of pictures ------------------------------------------------------------------------------------------------


def test_numbers_before_the_names_are_the_classes(parts, data):
    root = data({f'{group}_{i}_s': (1, 2) for group in (1, 12) for i in range(5)})
    assert parts.label_arguments(root) == ['--from-names', '^([0-9]+)_']


def test_else_what_covers_most_of_a_picture_is_its_class(parts, data):
    root = data({f'a{i}': (7, 1 + i % 2) for i in range(4)}, ['1\tsky', '2\twall/fence', '7\tcar'])
    arguments = parts.label_arguments(root)
    assert arguments == ['--from-masks', str(root / 'annotations'), '1=sky', '2=wall-fence']


def test_a_rare_class_of_pictures_is_left_out(parts, data):
    root = data({f'a{i:02}': (0, 3 if i == 0 else 1 + i % 2) for i in range(51)})
    assert parts.label_arguments(root)[2:] == ['1=class 1', '2=class 2']


def test_pictures_of_one_class_are_refused(parts, data):
    root = data({f'a{i}': (0, 1) for i in range(3)})
    with pytest.raises(InputError, match='no two classes of pictures: begin the file names with the number'):
        parts.label_arguments(root)


def test_a_missing_or_empty_folder_is_named(parts, data):
    root = data({'a': (1, 2)})
    shutil.rmtree(root / 'annotations' / 'validation')
    with pytest.raises(MissingFileError, match='annotations/validation does not exist'):
        parts.check_layout(root)
    (root / 'annotations' / 'validation').mkdir()
    with pytest.raises(MissingFileError, match='annotations/validation holds no picture'):
        parts.check_layout(root)


def test_a_wrong_line_of_classes_txt_is_shown(parts, data):
    root = data({'a': (1, 2)}, ['1\tsky', 'tree'])
    with pytest.raises(InputError, match=r"classes.txt has the line 'tree': write index, tab and name"):
        parts.class_names(root)


def test_a_mask_that_is_none_is_named(parts, tmp_path):
    (tmp_path / 'a.png').write_bytes(b'no picture')
    with pytest.raises(InputError, match=r'mask .*a\.png cannot be read as an index mask'):
        parts.counts(tmp_path / 'a.png')


# Configs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(parts, data, tmp_path):
    """Configs of four stages for six pictures, three of them labelled."""
    root = data({f'{1 + i // 3}_{i}': (1, 2) for i in range(6)}, ['1\tsky', '2\ttree', '3\tcar'])
    for name in '12':
        (tmp_path / 'run' / 'folders' / 'train' / name).mkdir(parents=True)
    parts.write_configs(root, tmp_path / 'run', 3)
    configs = sorted((tmp_path / 'run' / 'configs').glob('*.py'))
    return root, {path.stem: Config.fromfile(path) for path in configs}


def test_configs_hold_the_folders_and_class_counts(written):
    root, configs = written
    assert sorted(configs) == ['classification', 'pretraining', 'segmentation', 'tokenizer']
    for stage in ('tokenizer', 'pretraining', 'segmentation'):
        assert configs[stage].train_dataloader.dataset.data_root == str(root)
    assert configs['classification'].train_dataloader.dataset.data_root == str(root.parent / 'run' / 'folders')
    assert configs['classification'].model.head.num_classes == 2
    segmentation = configs['segmentation']
    assert segmentation.model.decode_head.num_classes == 3
    assert segmentation.val_dataloader.dataset.metainfo.classes == ['sky', 'tree', 'car']


def test_labelled_pictures_are_spread_over_the_names(written):
    segmentation = written[1]['segmentation']
    assert segmentation.train_dataloader.dataset.indices == [0, 2, 4]
    assert 'indices' not in segmentation.val_dataloader.dataset


def test_every_stage_has_the_same_backbone(written):
    sizes = ('img_size', 'patch_size', 'embed_dims', 'num_layers', 'num_heads', 'mlp_ratio', 'init_values')
    backbones = [written[1][stage].model.backbone for stage in ('pretraining', 'classification', 'segmentation')]
    assert len({tuple(backbone[size] for size in sizes) for backbone in backbones}) == 1


def test_the_codebook_is_the_one_that_is_predicted(written):
    tokenizer, pretraining = written[1]['tokenizer'].model, written[1]['pretraining'].model
    assert pretraining.head.num_embed == pretraining.tokenizer.num_codes == tokenizer.num_codes
    assert pretraining.tokenizer.encoder == tokenizer.encoder


@pytest.mark.parametrize('stage', ['tokenizer', 'pretraining', 'classification', 'segmentation'])
def test_header_says_what_a_reader_needs(stage):
    header = ast.get_docstring(ast.parse((PROJECT / 'configs' / 'lifecycle' / f'{stage}.py').read_text()))
    first = {line.split(' ')[0] for line in header.splitlines()}
    assert {'Source', 'Expected', 'Hardware', 'Command', 'Start', 'Input'} <= first
    assert f'configs/lifecycle/{stage}.py' in header


def test_too_many_labelled_pictures_are_refused(parts, data, tmp_path):
    with pytest.raises(InputError, match=r'--labelled 5: .* has 2 training pictures, give 1 to 2'):
        parts.write_configs(data({'a': (1, 2), 'b': (1, 2)}), tmp_path, 5)


# Table and curves ---------------------------------------------------------------------------------------------------


def test_curve_joins_the_parts_of_an_interrupted_run(parts, tmp_path):
    finished_run(tmp_path, 'mim_0', {25: 10.0, 50: 11.0}, {50: 12.0, 75: 13.0})
    assert parts.curve(tmp_path / 'mim_0') == {25: 10.0, 50: 12.0, 75: 13.0}


def test_table_gives_means_and_gains_over_common_seeds(parts, tmp_path):
    for name, score in dict(scratch_0=10.0, scratch_1=12.0, mim_0=13.0, mim_1=16.0, classes_0=15.5).items():
        finished_run(tmp_path, name, {10: 1.0, 20: score})
    lines = parts.table(parts.collect(tmp_path)).splitlines()
    assert lines[1].split()[-3:] == ['10.00', '12.00', '11.00']
    assert lines[2].split()[-4:] == ['13.00', '16.00', '14.50', '+3.50']
    assert lines[3].split()[-4:] == ['15.50', '-', '15.50', '+5.50']


def test_unfinished_runs_are_not_counted(parts, tmp_path):
    finished_run(tmp_path, 'scratch_0', {10: 1.0})
    (tmp_path / 'scratch_0' / 'trained').unlink()
    with pytest.raises(MissingFileError, match='no finished segmentation run'):
        parts.collect(tmp_path)


def test_report_writes_plot_and_figures(parts, tmp_path, capsys):
    finished_run(tmp_path, 'scratch_0', {10: 1.0, 20: 2.0})
    finished_run(tmp_path, 'mim_0', {10: 3.0, 20: 4.0})
    parts.report(tmp_path)
    assert '+2.00' in capsys.readouterr().out
    assert json.loads((tmp_path / 'report.json').read_text())['mim'] == {'0': {'10': 3.0, '20': 4.0}}
    with Image.open(tmp_path / 'curves.png') as picture:
        assert len(np.unique(np.asarray(picture.convert('RGB')).reshape(-1, 3), axis=0)) > 10


# The script ---------------------------------------------------------------------------------------------------------

RECORDING = """#!{bash}
case "$*" in
  *%d.%d.%d*) echo 3.12.0; exit ;;
  '-m zipfile -t '*) [ ! -s "$4" ]; exit ;;
  '-c '*) exit ;;
esac
printf '%s\\n' "$*" >>calls
[ "$1" != "${{FAILING:-}}" ] || exit 3
run=work_dirs/lifecycle
case "$*" in
  'tools/_lifecycle.py labels '*) printf '%s\\n' --from-names '^([0-9]+)_' ;;
  tools/make_image_folder.py*) mkdir -p $run/folders.part ;;
  tools/train.py*) mkdir -p "$4"; touch "$4/iter_8.pth"; echo /elsewhere/iter_8.pth >"$4/last_checkpoint" ;;
esac
"""


@pytest.fixture
def demo(tmp_path):
    """Runs the script in a clone whose python writes down what it is called with, and makes empty checkpoints."""
    clone = tmp_path / 'a clone'
    shutil.copytree(PROJECT / 'tools', clone / 'tools', ignore=shutil.ignore_patterns('*.py', '__pycache__'))
    (clone / 'configs').mkdir()
    python = clone / 'env' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text(RECORDING.format(bash=BASH))
    python.chmod(0o755)

    def run(*arguments, **variables):
        (clone / 'calls').unlink(missing_ok=True)
        environment = {'PATH': os.environ['PATH'], 'HOME': str(clone), 'VIRTUAL_ENV': str(clone / 'env'), **variables}
        command = [BASH, str(clone / 'tools' / 'lifecycle_demo.sh'), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60)
        calls = clone / 'calls'
        return done, calls.read_text().splitlines() if calls.exists() else []

    run.clone = clone
    return run


needs_bash = pytest.mark.skipif(BASH is None, reason='needs bash')
RUN = 'work_dirs/lifecycle'


def trained(calls):
    """Where the calls of tools/train.py write, and the checkpoint that each begins with."""
    words = [call.split() for call in calls if call.startswith('tools/train.py')]
    starts = [[word.partition('=')[2] for word in call if '.checkpoint=' in word] for call in words]
    return {Path(call[3]).name: start[0] if start else None for call, start in zip(words, starts, strict=True)}


@needs_bash
def test_every_stage_begins_with_the_file_of_the_one_before(demo):
    done, calls = demo('--seeds', '2')
    assert done.returncode == 0, done.stderr
    tokenizer, pretraining, classes = (
        f'{RUN}/{stage}/iter_8.pth' for stage in ('tokenizer', 'pretraining', 'classification')
    )
    assert trained(calls) == {
        'tokenizer': None,
        'pretraining': tokenizer,
        'classification': pretraining,
        'scratch_0': None,
        'mim_0': pretraining,
        'classes_0': classes,
        'scratch_1': None,
        'mim_1': pretraining,
        'classes_1': classes,
    }
    assert calls[-1] == f'tools/_lifecycle.py report {RUN}'


@needs_bash
def test_all_starts_get_the_same_settings_but_for_layer_decay(demo):
    _, calls = demo('--seeds', '2')
    settings = {}
    for call in calls:
        if call.startswith(f'tools/train.py {RUN}/configs/segmentation.py'):
            name = Path(call.split()[3]).name
            settings[name] = [word for word in call.split()[4:] if 'init_cfg' not in word]
    decay = {name: words.pop().partition('layer_decay_rate=')[2] for name, words in settings.items()}
    assert decay['scratch_1'] == '1'
    assert decay['mim_1'] == decay['classes_1'] == '0.65'
    assert settings['scratch_1'] == settings['mim_1'] == settings['classes_1']
    assert 'randomness.seed=1' in settings['scratch_1']


@needs_bash
def test_a_second_time_all_is_kept(demo):
    demo('--seeds', '1')
    done, calls = demo('--seeds', '1')
    assert done.returncode == 0, done.stderr
    assert trained(calls) == {}
    assert 'scratch_0: Keeping the weights of the finished run' in done.stdout


@needs_bash
def test_it_goes_on_with_an_interrupted_stage(demo):
    demo('--seeds', '1')
    (demo.clone / RUN / 'classification' / 'trained').unlink()
    _, calls = demo('--seeds', '1')
    assert list(trained(calls)) == ['classification']
    assert '--resume' in next(call for call in calls if call.startswith('tools/train.py'))


@needs_bash
def test_a_failing_stage_is_named_with_the_command_to_go_on(demo):
    done, _ = demo('--seeds', '1', FAILING='tools/train.py')
    assert done.returncode == 3
    assert 'stopped at the step "3/8 tokenizer' in done.stderr
    assert 'type bash tools/lifecycle_demo.sh --seeds 1 again' in done.stderr


@needs_bash
def test_a_damaged_checkpoint_is_named_and_kept(demo):
    demo('--seeds', '1')
    damaged = demo.clone / RUN / 'pretraining' / 'iter_8.pth'
    damaged.write_text('x')
    done, calls = demo('--seeds', '1')
    assert f'error: {RUN}/pretraining/iter_8.pth is damaged: remove it' in done.stderr
    assert damaged.exists()
    assert trained(calls) == {}


@needs_bash
def test_retraining_moves_the_runs_aside(demo):
    demo('--seeds', '1')
    _, calls = demo('--seeds', '1', '--retrain')
    assert len(trained(calls)) == 6
    assert len(list((demo.clone / 'work_dirs').glob('lifecycle.*'))) == 1


@needs_bash
@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (('--fast',), 'has no option --fast: see'),
        (('--seeds',), '--seeds takes a value'),
        (('--seeds', '0'), '--seeds takes a number from 1, not 0.'),
        (('--data', 'nowhere'), 'nowhere/images/training does not exist: --data takes a folder'),
    ],
)
def test_wrong_arguments_are_one_sentence(demo, arguments, sentence):
    done, calls = demo(*arguments)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not calls


@needs_bash
def test_pictures_of_another_folder_do_not_mix_with_a_run(demo):
    demo('--seeds', '1')
    (demo.clone / RUN / 'data.txt').write_text('/other\n')
    done, calls = demo('--seeds', '1')
    assert done.stderr.startswith('error: work_dirs/lifecycle was made with the pictures of /other')
    assert not calls


@needs_bash
@pytest.mark.slow
def test_the_whole_chain_runs_on_a_folder(tmp_path):
    scenes, run = tmp_path / 'scenes', tmp_path / 'run'
    subprocess.run(
        [sys.executable, 'tools/make_scenes.py', '--out', scenes, '--train', '40', '--val', '8', '--size', '160x120'],
        cwd=PROJECT,
        check=True,
    )
    (scenes / 'scenes.json').unlink()  # a folder like any other, whose masks have values without a name
    command = [BASH, 'tools/lifecycle_demo.sh', '--quick', '--data', scenes, '--work-dir', run, '--labelled', '16']
    done = subprocess.run(
        command, cwd=PROJECT, env=os.environ | {'VIRTUAL_ENV': sys.prefix}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(json.loads((run / 'report.json').read_text())) == ['classes', 'mim', 'scratch']
    assert (run / 'curves.png').is_file()
    assert 'the shared relative position table is copied to the 6 layers' in done.stdout + done.stderr
