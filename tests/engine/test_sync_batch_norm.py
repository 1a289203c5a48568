"""Batch norm over processes equals batch norm over their joined batch."""

import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from mmseg_beit.engine.sync_batch_norm import CPUSyncBatchNorm, replace_sync_batch_norm

SHARES = (1, 3)  # images of each process: they need not be equal


def _data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(SHARES), 3, 4, 5, generator=generator) * 2 + 7
    grad = torch.randn(x.shape, generator=generator)
    return x, grad


def _norm(kind):
    torch.manual_seed(1)
    norm = kind(3, momentum=0.3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def _process(rank, folder):
    store = dist.FileStore(f'{folder}/store', len(SHARES))
    dist.init_process_group('gloo', store=store, rank=rank, world_size=len(SHARES))
    norm = _norm(CPUSyncBatchNorm)
    x, grad = (part.split(SHARES)[rank].clone() for part in _data())
    x.requires_grad_()
    y = norm(x)
    y.backward(grad)
    torch.save(dict(y=y.detach(), x_grad=x.grad, w_grad=norm.weight.grad, state=norm.state_dict()), f'{folder}/{rank}')
    dist.destroy_process_group()


def test_two_processes_equal_one_with_the_joined_batch(tmp_path):
    # Fresh ones: autograd refuses forks of a process that has used its threads, as other tests do.
    root = Path(__file__).parents[2]
    environment = {**os.environ, 'PYTHONPATH': str(root)}
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)], cwd=root, env=environment)
        for rank in range(len(SHARES))
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    parts = [torch.load(tmp_path / str(rank)) for rank in range(len(SHARES))]
    norm = _norm(nn.BatchNorm2d)
    x, grad = _data()
    x.requires_grad_()
    y = norm(x)
    y.backward(grad)
    torch.testing.assert_close(torch.cat([part['y'] for part in parts]), y.detach())
    torch.testing.assert_close(torch.cat([part['x_grad'] for part in parts]), x.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sum(part['w_grad'] for part in parts), norm.weight.grad, rtol=1e-4, atol=1e-5)
    for part in parts:
        torch.testing.assert_close(part['state'], dict(norm.state_dict()), check_device=False)


def test_alone_it_is_batch_norm_in_training_and_evaluation():
    x, _ = _data()
    own, reference = _norm(CPUSyncBatchNorm), _norm(nn.BatchNorm2d)
    for mode in (True, False):
        own.train(mode)
        reference.train(mode)
        assert torch.equal(own(x), reference(x))
    torch.testing.assert_close(own.state_dict(), reference.state_dict())


def test_replacing_keeps_names_and_weights():
    inner = nn.Sequential(nn.SyncBatchNorm(4), nn.BatchNorm2d(4))
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4), inner)
    names = list(model.state_dict())
    weight = model[1].weight
    assert replace_sync_batch_norm(model) == 2
    assert list(model.state_dict()) == names
    assert type(model[1]) is CPUSyncBatchNorm and model[1].weight is weight
    assert type(model[2][1]) is nn.BatchNorm2d


if __name__ == '__main__':
    _process(int(sys.argv[1]), sys.argv[2])
