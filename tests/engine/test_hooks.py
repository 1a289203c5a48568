"""The hooks, on stand-ins for the runner and on real short runs."""

import math
from types import SimpleNamespace

import pytest
import torch

from mmseg_beit.engine.hooks import NonFiniteLossError, NonFiniteLossHook, SafeCheckpointHook


@pytest.fixture
def runner():
    return SimpleNamespace(
        iter=41,
        world_size=1,
        optim_wrapper=SimpleNamespace(get_lr=lambda: {'base_lr': [0.5], 'lr': [0.1, 0.2]}),
        message_hub=SimpleNamespace(runtime_info={'last_ckpt': 'work/iter_40.pth'}),
    )


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_with_all_there_is_to_know(runner, value):
    outputs = {'loss': torch.tensor(value), 'decode.loss_ce': torch.tensor(1.0), 'aux.loss_ce': torch.tensor(value)}
    with pytest.raises(NonFiniteLossError) as error:
        NonFiniteLossHook().after_train_iter(runner, 41, outputs=outputs)
    text = str(error.value)
    assert 'iteration 42' in text
    assert '(loss, aux.loss_ce;' in text
    assert 'learning rate 0.5' in text
    assert 'work/iter_40.pth' in text


def test_finite_losses_pass_and_become_numbers(runner):
    outputs = {'loss': torch.tensor(2.0, requires_grad=True), 'acc_seg': torch.tensor([math.nan])}
    NonFiniteLossHook().after_train_iter(runner, 0, outputs=outputs)
    assert outputs['loss'] == 2.0 and type(outputs['loss']) is float


class _Runner:
    """Saves empty files and says in which order files came and went."""

    def __init__(self, folder):
        self.work_dir = str(folder)
        self.iter, self.epoch = 0, 0
        self.message_hub = SimpleNamespace(runtime_info={}, update_info=self._update, get_info=self._get)
        self.logger = SimpleNamespace(info=lambda text: None, warning=lambda text: None)
        self.before_saving = []

    def _update(self, key, value):
        self.message_hub.runtime_info[key] = value

    def _get(self, key):
        return self.message_hub.runtime_info[key]

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        from pathlib import Path

        folder = Path(out_dir)
        self.before_saving.append(sorted(path.name for path in folder.glob('*.pth')))
        (folder / filename).write_text('')


def test_the_only_kept_checkpoint_goes_when_the_next_one_is_there(tmp_path):
    runner = _Runner(tmp_path)
    hook = SafeCheckpointHook(interval=1, by_epoch=False, max_keep_ckpts=1)
    hook.before_train(runner)
    for step in (1, 2, 3):
        hook._save_checkpoint_with_step(runner, step, {})
        assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / f'iter_{step}.pth')
    assert runner.before_saving == [[], ['iter_1.pth'], ['iter_2.pth']]
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_3.pth']
    assert runner.message_hub.runtime_info['keep_ckpt_ids'] == [3]


@pytest.mark.parametrize('save_best', ['mIoU', ['mIoU', 'mAcc']])
def test_the_former_best_goes_when_the_next_one_is_there(tmp_path, save_best):
    runner = _Runner(tmp_path)
    hook = SafeCheckpointHook(interval=1, by_epoch=False, save_best=save_best)
    hook.before_train(runner)
    for iteration, figure in ((1, 10.0), (2, 5.0), (3, 20.0)):
        runner.iter = iteration
        hook.after_val_epoch(runner, dict(mIoU=figure, mAcc=figure))
    names = ['mIoU'] if save_best == 'mIoU' else ['mAcc', 'mIoU']
    assert sorted(path.name for path in tmp_path.glob('best*')) == [f'best_{name}_iter_3.pth' for name in names]
    assert f'best_{names[-1]}_iter_1.pth' in runner.before_saving[-1]


def test_files_left_by_a_kill_are_cleared_away(tmp_path):
    (tmp_path / '.iter_5.pth.abc.tmp').write_text('half')
    SafeCheckpointHook(interval=1).before_train(_Runner(tmp_path))
    assert list(tmp_path.iterdir()) == []
