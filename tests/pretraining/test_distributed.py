"""Two processes do what one does with the joint batch: the codebook's updates and the loss of masked patches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mmseg_beit.models.pretraining import BEiTV1Head, EMAVectorQuantizer

pytestmark = pytest.mark.slow  # two interpreters start


def tokens():
    """Three batches of four pictures of 30 tokens."""
    return torch.randn(3, 4, 30, 8, generator=torch.Generator().manual_seed(1))


def follow(share):
    """Codebook after three batches, from k-means on and with restarts, seeing a share of each batch."""
    quantizer = EMAVectorQuantizer(40, 8, decay=0.5, restart_below=0.2).train()
    for batch in tokens():
        quantizer(batch[share])
    return quantizer.state_dict()


def masked_batch():
    """Tokens, targets and masks of four pictures; unequally many patches are masked in the two halves."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.rand(4, 20, generator=generator) < torch.tensor([0.1, 0.2, 0.7, 0.9])[:, None]
    return (
        torch.randn(4, 20, 16, generator=generator),
        torch.randint(8, (4, 20), generator=generator),
        mask,
    )


class _Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = BEiTV1Head(16, 8)
        with torch.no_grad():
            self.head.cls_head.weight.copy_(torch.linspace(-1, 1, 128).view(8, 16))
            self.head.cls_head.bias.zero_()

    def forward(self, *batch):
        return self.head.loss(*batch)['loss_mim']


def judge(share, wrap=lambda module: module):
    """Loss, and the gradient of the output layer, of a share of the batch."""
    model = wrap(_Head())
    loss = model(*(part[share] for part in masked_batch()))
    loss.backward()
    return loss.detach(), next(model.parameters()).grad


def work(rank, folder):
    dist.init_process_group('gloo', store=dist.FileStore(f'{folder}/store', 2), rank=rank, world_size=2)
    share = slice(2 * rank, 2 * rank + 2)
    loss, gradient = judge(share, DistributedDataParallel)
    dist.all_reduce(loss)
    torch.save(dict(codebook=follow(share), loss=loss / 2, gradient=gradient), f'{folder}/{rank}.pth')
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """What each of two processes ends with."""
    folder = tmp_path_factory.mktemp('two')
    # Fresh interpreters: a fork of one that has already computed gradients may hang in its gradient threads.
    command = [sys.executable, str(Path(__file__).resolve())]
    environment = os.environ | dict(PYTHONPATH=str(Path(__file__).resolve().parents[2]))
    processes = [subprocess.Popen([*command, str(rank), str(folder)], env=environment) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=200) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f'{rank}.pth') for rank in (0, 1)]


def test_codebook(two):
    expected = follow(slice(None))
    for name, tensor in expected.items():
        torch.testing.assert_close(two[0]['codebook'][name], tensor, msg=name)
        assert torch.equal(two[0]['codebook'][name], two[1]['codebook'][name]), name


def test_masked_loss_and_its_gradient(two):
    loss, gradient = judge(slice(None))
    torch.testing.assert_close(two[0]['loss'], loss)
    torch.testing.assert_close(two[0]['gradient'], gradient)
    torch.testing.assert_close(two[1]['gradient'], gradient)


if __name__ == '__main__':
    work(int(sys.argv[1]), sys.argv[2])
