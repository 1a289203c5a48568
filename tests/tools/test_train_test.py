"""tools/train.py and tools/test.py from the command line: what they write, how they go on, how they refuse."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_beit.models.segmentors import EncoderDecoder


def losses(work_dir):
    """Loss by iteration over all runs in a work directory; the later run counts where two overlap."""
    found = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if 'loss' in record:
                found[record['iter']] = record['loss']
    assert found
    return found


def test_training_writes_what_it_says_and_learns(tiny, capsys):
    assert tiny.call('train.py', 'tiny.py') == 0
    work_dir = tiny.folder / 'work_dirs' / 'tiny'
    names = {path.name for path in work_dir.iterdir() if path.is_file()}
    assert {'tiny.py', 'iter_9.pth', 'iter_12.pth', 'last_checkpoint'} <= names
    assert 'iter_6.pth' not in names  # two are kept
    curve = losses(work_dir)
    assert list(curve) == list(range(1, 13))
    assert curve[12] < curve[1]
    terminal = capsys.readouterr().out
    assert 'Training from iteration 0 to 12' in terminal and 'left 0:00:' in terminal
    assert 'System environment' not in terminal and 'Hooks will be executed' not in terminal
    log = next(work_dir.glob('*/*.log')).read_text()
    assert 'System environment' in log and 'Hooks will be executed' in log


def test_compiled_training_gives_the_same_losses(tiny, capsys):
    for name, options in dict(eager=['compile=False'], compiled=['compile.backend=aot_eager']).items():
        options += ['train_cfg.max_iters=3', 'randomness.seed=1']
        assert tiny.call('train.py', 'tiny.py', '--work-dir', name, '--cfg-options', *options) == 0
    eager, compiled = (losses(tiny.folder / name) for name in ('eager', 'compiled'))
    assert list(eager) == list(compiled) == [1, 2, 3]
    assert list(compiled.values()) == pytest.approx(list(eager.values()), rel=1e-4)
    assert 'compiled at the first step' in capsys.readouterr().out
    assert tiny.call('train.py', 'tiny.py', '--work-dir', 'wrong', '--cfg-options', 'compile=3') == 2
    assert 'compile=3 must be True, False, or arguments of torch.compile' in capsys.readouterr().err


def test_a_checkpoint_is_read_without_unpickling_objects(trained):
    content = torch.load(trained.work_dir / 'iter_12.pth', weights_only=True)
    assert content['meta']['iter'] == 12
    assert content['meta']['dataset_meta']['classes'] == ('sky', 'tree', 'road')
    assert {'optimizer', 'param_schedulers', 'message_hub'} <= set(content)


def test_testing_repeats_the_figures_of_validation(trained, capsys):
    assert trained.call('test.py', 'tiny.py', trained.work_dir / 'iter_12.pth', '--work-dir', 'test') == 0
    figures = json.loads((trained.folder / 'test' / 'metrics.json').read_text())
    best = torch.load(trained.work_dir / 'iter_12.pth', weights_only=True)['message_hub']['runtime_info']
    if best['best_ckpt'].endswith('iter_12.pth'):
        assert figures['mIoU'] == best['best_score']
    assert [row['name'] for row in figures['classes']] == ['sky', 'tree', 'road']
    assert figures['images'] == 4 and figures['checkpoint'].endswith('iter_12.pth')
    terminal = capsys.readouterr().out
    assert 'By class, in percent' in terminal and f'mIoU {figures["mIoU"]:.4g}' in terminal


def test_testing_writes_masks_and_pictures_with_flips(trained):
    checkpoint = trained.work_dir / 'iter_12.pth'
    status = trained.call('test.py', 'tiny.py', checkpoint, '--tta', '--out', 'masks', '--show-dir', 'pictures')
    assert status == 0
    masks = sorted((trained.folder / 'masks').iterdir())
    assert [path.name for path in masks] == ['00.png', '01.png', '02.png', '03.png']
    values = np.unique(np.array(Image.open(masks[0])))
    assert set(values) <= {1, 2, 3}  # stored as annotations are, with 0 for unlabelled
    assert len(list((trained.folder / 'pictures').iterdir())) == 4
    assert json.loads((trained.work_dir / 'metrics.json').read_text())['tta'] is True


def test_testing_in_mixed_precision(trained, monkeypatch):
    seen = []
    predict = EncoderDecoder.predict

    def watched(self, *args, **kwargs):
        seen.append(torch.is_autocast_enabled('cpu') and torch.get_autocast_dtype('cpu'))
        return predict(self, *args, **kwargs)

    monkeypatch.setattr(EncoderDecoder, 'predict', watched)
    checkpoint = trained.work_dir / 'iter_12.pth'
    found = []
    for amp in ((), ('--amp',)):
        assert trained.call('test.py', 'tiny.py', checkpoint, '--device', 'cpu', *amp, '--work-dir', 'test') == 0
        found.append(json.loads((trained.folder / 'test' / 'metrics.json').read_text())['aAcc'])
    assert seen == 4 * [False] + 4 * [torch.bfloat16]
    assert abs(found[0] - found[1]) < 1


def test_a_run_in_two_parts_has_the_curve_of_one(trained):
    first = ['--work-dir', 'parts', '--cfg-options', 'train_cfg.max_iters=6']
    assert trained.call('train.py', 'tiny.py', *first) == 0
    assert trained.call('train.py', 'tiny.py', '--work-dir', 'parts', '--resume') == 0
    whole, parts = losses(trained.work_dir), losses(trained.folder / 'parts')
    assert list(parts) == list(whole)
    assert list(parts.values()) == pytest.approx(list(whole.values()), abs=1e-6)
    folders = (trained.work_dir, trained.folder / 'parts')
    ends = [torch.load(folder / 'iter_12.pth', weights_only=True) for folder in folders]
    for name, value in ends[0]['state_dict'].items():
        torch.testing.assert_close(ends[1]['state_dict'][name], value, rtol=0, atol=1e-6)


def test_resuming_goes_back_behind_a_truncated_checkpoint(trained, capsys):
    last = trained.work_dir / 'iter_12.pth'
    last.write_bytes(last.read_bytes()[:-5000])
    capsys.readouterr()
    assert trained.call('train.py', 'tiny.py', '--resume') == 0
    terminal = capsys.readouterr().out
    assert 'iter_12.pth' in terminal and 'going back to the checkpoint before it' in terminal
    assert 'Training from iteration 9 to 12' in terminal


def test_resuming_from_nothing_begins_and_says_so(tiny, capsys):
    assert tiny.call('train.py', 'tiny.py', '--resume', '--cfg-options', 'train_cfg.max_iters=1') == 0
    terminal = capsys.readouterr().out
    assert 'there is no checkpoint' in terminal and 'Training from iteration 0' in terminal


def test_resuming_from_a_named_checkpoint(trained, capsys):
    status = trained.call('train.py', 'tiny.py', '--work-dir', 'other', '--resume', trained.work_dir / 'iter_9.pth')
    assert status == 0
    assert 'Training from iteration 9 to 12' in capsys.readouterr().out
    assert losses(trained.folder / 'other') == pytest.approx(
        {step: loss for step, loss in losses(trained.work_dir).items() if step > 9}, abs=1e-6
    )


def test_mixed_precision_and_tensorboard(tiny, capsys):
    pytest.importorskip('tensorboard')
    two = ('--cfg-options', 'train_cfg.max_iters=2')
    status = tiny.call('train.py', 'tiny.py', '--amp', 'bf16', '--tensorboard', *two)
    assert status == 0
    assert 'bfloat16' in capsys.readouterr().out
    assert list((tiny.folder / 'work_dirs').glob('**/events.out.tfevents*'))


def refused(tiny, capsys, tool, *args):
    capsys.readouterr()
    status = tiny.call(tool, *args)
    message = capsys.readouterr().err
    assert status == 2
    assert message.startswith('error: ') and message.count('\n') == 1
    return message


def test_other_class_count_is_refused_and_overwrites_nothing(tiny, capsys):
    (tiny.folder / 'w').mkdir()
    (tiny.folder / 'w' / 'tiny.py').write_text('former')
    options = ('--work-dir', 'w', '--cfg-options', 'model.decode_head.num_classes=5')
    message = refused(tiny, capsys, 'train.py', 'tiny.py', *options)
    assert 'model.decode_head.num_classes is 5' in message and 'has 3 classes' in message
    assert (tiny.folder / 'w' / 'tiny.py').read_text() == 'former'


def test_a_loss_that_is_not_finite_ends_training(tiny, capsys):
    message = refused(tiny, capsys, 'train.py', 'tiny.py', '--cfg-options', 'optim_wrapper.optimizer.lr=1e20')
    assert 'the loss is not finite at iteration 2 (loss, decode.loss_ce; learning rate 3.64e+19)' in message
    assert 'no checkpoint had been written yet' in message


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (('--resume', 'none.pth'), ('none.pth', 'does not exist')),
        (('--cfg-options', 'load_from=none.pth'), ('none.pth', 'does not exist')),
        (('--work-dir', 'tiny.py/x'), ('tiny.py/x', '--work-dir')),
        (('--cfg-options', 'model.backbone.out_indices=[0,5]'), ('out_indices', 'num_layers=2')),
        (('--cfg-options', 'model.backbone.type=BEiTT'), ("'BEiTT'", "'BEiT'")),
        (('--launcher', 'pytorch'), ('RANK', 'dist_train.sh')),
        (('--device', 'gpu'), ('--device gpu', 'cuda')),
    ],
)
def test_training_refuses_in_one_sentence(tiny, capsys, args, words):
    message = refused(tiny, capsys, 'train.py', 'tiny.py', *args)
    assert all(word in message for word in words)


@pytest.mark.skipif(torch.cuda.is_available(), reason='says what happens without a GPU')
@pytest.mark.parametrize(('args', 'word'), [(('--device', 'cuda'), 'no GPU'), (('--amp', 'fp16'), 'needs a GPU')])
def test_what_needs_a_gpu_is_refused_without_one(tiny, capsys, args, word):
    assert word in refused(tiny, capsys, 'train.py', 'tiny.py', *args)


def test_unusable_checkpoints_are_refused(trained, capsys):
    whole = trained.work_dir / 'iter_12.pth'
    (trained.folder / 'cut.pth').write_bytes(whole.read_bytes()[:9000])
    torch.save(dict(state_dict=torch.load(whole, weights_only=True)['state_dict']), trained.folder / 'weights.pth')
    narrow = ('--cfg-options', 'model.backbone.embed_dims=16', 'model.decode_head.in_channels=16')
    head = ('--cfg-options', 'model.decode_head.channels=8')
    for tool, args, word in [
        ('test.py', ('cut.pth',), 'cut short'),
        ('train.py', ('--resume', 'cut.pth'), 'cut short'),
        ('train.py', ('--resume', 'weights.pth'), 'no state of a training run'),
        ('test.py', ('none.pth',), 'does not exist'),
        ('test.py', (whole, *narrow), 'iter_12.pth'),
        ('test.py', (whole, *head), 'decode_head'),
        ('train.py', ('--resume', whole, '--work-dir', 'x', *head), 'decode_head'),
    ]:
        assert word in refused(trained, capsys, tool, 'tiny.py', *args)


def test_a_missing_backbone_tensor_is_refused(trained, capsys):
    state_dict = torch.load(trained.work_dir / 'iter_12.pth', weights_only=True)['state_dict']
    del state_dict['backbone.layers.1.attn.qkv.weight']
    torch.save(dict(state_dict=state_dict), trained.folder / 'less.pth')
    assert 'qkv' in refused(trained, capsys, 'test.py', 'tiny.py', 'less.pth')
    assert 'qkv' in refused(trained, capsys, 'train.py', 'tiny.py', '--cfg-options', 'load_from=less.pth')


def _start(tiny, *args, **env):
    command = [sys.executable, str(tiny.tools / 'train.py'), 'long.py', *args]
    return subprocess.Popen(command, cwd=tiny.folder, env=tiny.environment(**env), stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_curve_of_a_whole_one(tiny):
    tiny.write_config("train_cfg.update(max_iters=60, val_interval=100)\ndefault_hooks['checkpoint'] = dict("
                      "type='CheckpointHook', by_epoch=False, interval=5, max_keep_ckpts=2)\n", 'long.py')  # fmt: skip
    assert _start(tiny, '--work-dir', 'whole').wait(300) == 0
    process = _start(tiny, '--work-dir', 'killed')
    deadline = time.time() + 200
    while not (tiny.folder / 'killed' / 'iter_20.pth').exists() and time.time() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert not (tiny.folder / 'killed' / 'iter_60.pth').exists()
    assert _start(tiny, '--work-dir', 'killed', '--resume').wait(300) == 0
    whole, parts = losses(tiny.folder / 'whole'), losses(tiny.folder / 'killed')
    assert list(whole) == list(range(1, 61))
    assert sorted(parts) == list(whole)
    assert [parts[step] for step in whole] == pytest.approx(list(whole.values()), abs=1e-6)


KILLER = """
import os, signal
from mmengine.runner import runner
def half_written(checkpoint, filename, **kwargs):
    save(checkpoint, filename, **kwargs)
    if checkpoint['meta']['iter'] == 15:
        with open(filename, 'r+b') as file:
            file.truncate(os.path.getsize(filename) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
save, runner.save_checkpoint = runner.save_checkpoint, half_written
"""


@pytest.mark.slow
def test_a_kill_while_writing_leaves_the_former_checkpoint_whole(tiny):
    (tiny.folder / 'killer.py').write_text(KILLER)
    tiny.write_config("train_cfg.update(max_iters=20, val_interval=100)\ndefault_hooks['checkpoint'] = dict("
                      "type='CheckpointHook', by_epoch=False, interval=5, max_keep_ckpts=1)\n", 'long.py')  # fmt: skip
    lines = (tiny.folder / 'long.py').read_text() + "custom_imports = dict(imports=['killer'])\n"
    (tiny.folder / 'kill.py').write_text(lines)
    path = os.pathsep.join([str(tiny.folder), tiny.environment()['PYTHONPATH']])
    command = [sys.executable, str(tiny.tools / 'train.py'), 'kill.py', '--work-dir', 'w']
    killed = subprocess.run(command, cwd=tiny.folder, env=tiny.environment(PYTHONPATH=path), stdout=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    work_dir = tiny.folder / 'w'
    assert [path.name for path in work_dir.glob('*.pth')] == ['iter_10.pth']
    assert torch.load(work_dir / 'iter_10.pth', weights_only=True)['meta']['iter'] == 10
    assert list(work_dir.glob('.*.tmp'))
    assert _start(tiny, '--work-dir', 'w', '--resume').wait(300) == 0
    assert [path.name for path in work_dir.glob('*.pth')] == ['iter_20.pth']
    assert not list(work_dir.glob('.*.tmp'))
