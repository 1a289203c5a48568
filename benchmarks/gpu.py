"""The rows of a GPU: bfloat16 at its batch, and the parts chosen or written for it. They run on a CPU as well."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from mmengine.optim import AmpOptimWrapper as MMEngineAmpOptimWrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_beit.engine.amp import AmpOptimWrapper
from mmseg_beit.engine.compiling import compile_networks
from mmseg_beit.models.layers.attention import trial
from mmseg_beit.models.layers.choice import choices
from mmseg_beit.models.losses import upsampled_cross_entropy

from .measure import interleave, matmul_gflops
from .report import Row

if TYPE_CHECKING:
    from .rows import Bench


def _on_gpu(bench: 'Bench') -> bool:
    return bench.device == 'cuda'


def _batch(bench: 'Bench') -> int:
    return 16 if _on_gpu(bench) and not bench.tiny else 2


def _half_rate(bench: 'Bench') -> float:
    """GFLOP/s of a matrix product in bfloat16; a GPU needs a large one to show it."""
    return matmul_gflops(bench.device, torch.bfloat16, side=8192 if _on_gpu(bench) else 1024)


def amp(bench: 'Bench') -> list[Row]:
    """A training step, eager and on a GPU compiled, and predictions, each in its own bfloat16 mixed precision."""
    batch, side, rate = _batch(bench), bench.side, _half_rate(bench)
    img = bench.image(side, side, batch)
    labels = torch.randint(0, 150, (batch, 1, side, side), generator=torch.Generator().manual_seed(0)).to(bench.device)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    # mmengine's own wrapper wants a GPU; on a CPU ours is the same autocast.
    theirs = MMEngineAmpOptimWrapper if _on_gpu(bench) else AmpOptimWrapper
    predictions = _predictions(bench, img, rate)  # Before the steps change the weights.
    steps = dict(
        ours=_stepper(bench.ours, AmpOptimWrapper, img, samples, fused=True),
        mmseg=_stepper(bench.mmseg, theirs, img, samples),
    )
    if _on_gpu(bench):  # On a CPU compiling takes minutes and gains little.
        compiled = copy.deepcopy(bench.ours)
        compile_networks(compiled, {})
        steps['ours, compiled'] = _stepper(compiled, AmpOptimWrapper, img, samples, fused=True)
    first = 'first loss ' + ', '.join(f'{name} {step():.5f}' for name, step in steps.items())
    row = bench.run(f'training step, {batch} images of {side}, bfloat16', first, **steps)
    return [_with_images_per_second(row, batch, rate), predictions]


def _stepper(model: nn.Module, wrapper_class: type, img: Tensor, samples: list, **adamw: bool) -> Callable[[], float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.05, **adamw)
    wrapper = wrapper_class(dtype='bfloat16', optimizer=optimizer)

    def step() -> float:
        model.train()
        torch.manual_seed(0)
        with wrapper.optim_context(model):
            loss = sum(value for name, value in model.loss(img, samples).items() if 'loss' in name)
        wrapper.update_params(loss)
        return loss.item()

    return step


def _predictions(bench: 'Bench', img: Tensor, rate: float) -> Row:
    from .rows import _labels_mmseg, _labels_ours, _same

    ours, mmseg = bench.ours.fuse(), bench.mmseg.eval()
    ours.test_cfg.mode = mmseg.test_cfg.mode = 'whole'

    def run_ours() -> Tensor:
        return _labels_ours(ours, img, autocast=True)

    def run_mmseg() -> Tensor:
        with torch.autocast(img.device.type, torch.bfloat16):
            return _labels_mmseg(mmseg, img)

    title = f'inference, {len(img)} images of {bench.side}, bfloat16'
    row = bench.run(title, _same(run_ours(), run_mmseg()), ours=run_ours, mmseg=run_mmseg)
    return _with_images_per_second(row, len(img), rate)


def _with_images_per_second(row: Row, batch: int, rate: float) -> Row:
    speeds = ', '.join(f'{name} {batch / found.median:.2f}' for name, found in row.results.items())
    row.matmul_gflops = rate
    row.agreement += f'; images per second: {speeds}; matrix product in bfloat16: {rate:.0f} GFLOP/s'
    return row


def attention(bench: 'Bench') -> list[Row]:
    """One layer's attention by each implementation: training and prediction. "ours" is what ``auto`` takes."""
    backbone = bench.config['backbone']
    grid = (bench.side // backbone['patch_size'],) * 2
    heads = backbone['num_heads']
    shape = torch.Size((_batch(bench), heads, 1 + grid[0] * grid[1], backbone['embed_dims'] // heads))
    dtype = torch.bfloat16 if _on_gpu(bench) else torch.float32
    rate = _half_rate(bench) if _on_gpu(bench) else None
    rows = []
    for training in (True, False):
        # Without a GPU torch has no gradients of flex_attention, and unfused it is no contestant in speed either.
        impls = ['sdpa', 'toeplitz', *(['flex'] if _on_gpu(bench) else [])]
        runs = {impl: trial(impl, shape, grid, dtype, torch.device(bench.device), training) for impl in impls}
        taken = _taken(bench, shape, grid, dtype, training)
        # Nothing can be compiled under the counter; the arithmetic is that of the plain form.
        with FlopCounterMode(display=False) as counter:
            runs['sdpa']()
        results = interleave(runs, bench.rounds, bench.device, gflop=counter.get_total_flops() / 1e9)
        results['ours'] = results.pop(taken)
        title = (
            f'attention {"training" if training else "prediction"} {tuple(shape)} {str(dtype).removeprefix("torch.")}'
        )
        rows.append(Row(title, results, f'ours is {taken}', rate))
    return rows


def _taken(bench: 'Bench', shape: torch.Size, grid: tuple[int, int], dtype: torch.dtype, training: bool) -> str:
    """What ``attn_impl='auto'`` takes for such tensors, on a GPU by a measurement of its own."""
    from mmseg_beit.models.layers.attention import _PATIENCE, RelativePosition, _fastest_impl

    position = RelativePosition(grid, shape[1]).to(bench.device)
    q = torch.empty(shape, dtype=dtype, device=bench.device)
    with torch.set_grad_enabled(training):
        for _ in range(1 if training or not _on_gpu(bench) else _PATIENCE + 1):
            taken = _fastest_impl(position, q, grid)
    return taken


def loss(bench: 'Bench') -> list[Row]:
    """Upsampling and cross-entropy of 150 classes, forward and backward: in one operation, by tiles, and in torch."""
    batch, side = _batch(bench), bench.side
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(batch, 150, side // 4, side // 4, generator=generator).to(bench.device).requires_grad_()
    labels = torch.randint(0, 150, (batch, side, side), generator=generator).to(bench.device)

    def differentiate(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return lambda: torch.autograd.grad(function(), small)[0]

    def by_tiles() -> Tensor:
        return torch.ops.mmseg_beit.upsampled_cross_entropy(small, labels, None, False, 255)[0]

    def in_torch() -> Tensor:
        big = F.interpolate(small, size=(side, side), mode='bilinear', align_corners=False)
        return F.cross_entropy(big, labels, ignore_index=255, reduction='sum')

    runs = dict(
        ours=differentiate(lambda: upsampled_cross_entropy(small, labels)[0]),
        torch=differentiate(in_torch),
    )
    if _on_gpu(bench):  # Elsewhere the tiles are ours.
        runs['tiles'] = differentiate(by_tiles)
    apart = (runs['ours']() - runs['torch']()).abs().max().item()
    return [bench.run(f'loss of {batch} images of {side}', f'largest difference of the gradients {apart:.1e}', **runs)]


def chosen() -> list[str]:
    """One line for each choice by measurement in this process."""
    return [f'{key[0]} {key[1:]}: {name}' for key, name in choices().items()]
