"""dist_train.sh and dist_test.sh on a CPU, and what they refuse."""

import json
import os

import pytest
import torch

# No GPU, also where there is one: the processes then meet through gloo.
CPU = {'CUDA_VISIBLE_DEVICES': ''}


def losses(work_dir):
    path = next(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return {record['iter']: record['loss'] for record in records if 'loss' in record}


FROZEN = """
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm

@HOOKS.register_module()
class FrozenNormHook(Hook):
    def before_train_iter(self, runner, *args, **kwargs):
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
"""


@pytest.mark.slow
@pytest.mark.parametrize('norm', ['SyncBN', 'frozen'])
def test_two_processes_have_the_curve_of_one_with_twice_the_batch(tiny, norm):
    """Sixteen images a step, AdamW with layer decay: the losses and weights of 10 steps, to 1e-4."""
    extra = "train_cfg.update(max_iters=10, val_interval=10)\ntrain_dataloader['dataset']['pipeline'].pop(2)\n"
    if norm == 'frozen':
        extra += "custom_imports = dict(imports=['frozen'])\ncustom_hooks = [dict(type='FrozenNormHook')]\n"
        (tiny.folder / 'frozen.py').write_text(FROZEN)
    tiny.write_config(extra, 'many.py')
    option = 'train_dataloader.batch_size={}'
    path = os.pathsep.join([str(tiny.folder), tiny.environment()['PYTHONPATH']])
    env = {**CPU, 'PYTHONPATH': path}
    one = tiny.run('train.py', 'many.py', '--work-dir', 'one', '--cfg-options', option.format(16), **env)
    two = tiny.run('dist_train.sh', 'many.py', 2, '--work-dir', 'two', '--cfg-options', option.format(8), **env)
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    expected, found = losses(tiny.folder / 'one'), losses(tiny.folder / 'two')
    assert list(expected) == list(range(1, 11))
    assert found == pytest.approx(expected, abs=1e-4)
    ends = [torch.load(tiny.folder / name / 'iter_10.pth', weights_only=True) for name in ('one', 'two')]
    for name, value in ends[0]['state_dict'].items():
        torch.testing.assert_close(ends[1]['state_dict'][name], value, rtol=1e-3, atol=1e-4)

    single = tiny.run('test.py', 'many.py', 'one/iter_10.pth', '--work-dir', 'one', **env)
    double = tiny.run('dist_test.sh', 'many.py', 'one/iter_10.pth', 2, '--work-dir', 'two', '--out', 'masks', **env)
    assert single.returncode == 0 and double.returncode == 0, double.stderr
    figures = [json.loads((tiny.folder / name / 'metrics.json').read_text()) for name in ('one', 'two')]
    assert figures[0] == figures[1]
    assert len(list((tiny.folder / 'masks').iterdir())) == 4


@pytest.mark.slow
def test_a_mistake_is_told_once_by_all_processes(tiny):
    done = tiny.run('dist_train.sh', 'tiny.py', 2, '--cfg-options', 'model.decode_head.num_classes=5', **CPU)
    assert done.returncode == 2
    assert done.stderr.count('error: ') == 1 and 'num_classes is 5' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    ('script', 'args', 'env', 'words'),
    [
        ('dist_train.sh', ('tiny.py',), {}, 'usage: bash tools/dist_train.sh CONFIG NUM'),
        ('dist_train.sh', ('tiny.py', 'x'), {}, "processes is 'x'"),
        ('dist_train.sh', ('none.py', '2'), {}, 'config none.py does not exist'),
        ('dist_train.sh', ('tiny.py', '2'), {'NNODES': '2'}, 'MASTER_ADDR is not set'),
        ('dist_train.sh', ('tiny.py', '2'), {'NODE_RANK': '1'}, 'NODE_RANK is 1'),
        ('dist_test.sh', ('tiny.py', '2'), {}, 'usage: bash tools/dist_test.sh CONFIG CHECKPOINT NUM'),
        ('slurm_train.sh', ('part', 'job'), {}, 'usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG'),
    ],
)
def test_launchers_refuse_in_one_sentence(tiny, script, args, env, words):
    done = tiny.run(script, *args, **CPU, **env)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ') and words in done.stderr and done.stderr.count('\n') == 1


@pytest.mark.gpu
def test_more_processes_than_gpus_are_refused(tiny):
    done = tiny.run('dist_train.sh', 'tiny.py', torch.cuda.device_count() + 1)
    assert done.returncode == 2 and 'GPUs' in done.stderr
