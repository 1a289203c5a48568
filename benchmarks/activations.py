"""``python -m benchmarks.activations``: what a training step on a GPU keeps for its backward pass, counted without one.

Runs the forward pass of our segmentor and of mmsegmentation's with fake CUDA tensors, which have sizes and dtypes but
no numbers, under autocast as both are trained, and adds up the tensors that autograd keeps. Gradients, optimizer states
and what kernels need for a moment come on top.
"""

import argparse
import importlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmseg_beit.errors import InputError, run_tool

from . import models

HAS_FAKE_GPU = torch.cuda.is_available() or torch.__version__ >= '2.11'
"""Whether this torch knows fake CUDA tensors: without a GPU older ones (2.7) end the process at the first operator."""

PARTS, REST = ('backbone', 'neck'), 'heads and losses'
_MODULES_OF_TRITON = 'mmseg_beit.models.losses.upsampled_cross_entropy', 'mmseg_beit.models.layers.logit_map'


def move_to_fake_gpu(model: nn.Module) -> None:
    """Gives a model parameters and buffers on a GPU that is not there; to be called inside a ``FakeTensorMode``."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = torch.empty_strided(parameter.shape, parameter.stride(), device='cuda')
                module._parameters[name] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device='cuda')


@contextmanager
def autocast_for_cuda(dtype: torch.dtype | None) -> Iterator[None]:
    """Autocast for CUDA where there is none, which ``torch.autocast`` refuses; ``None`` for float32."""
    before = torch.get_autocast_dtype('cuda')
    torch.set_autocast_dtype('cuda', dtype or before)
    torch.set_autocast_enabled('cuda', dtype is not None)
    try:
        yield
    finally:
        torch.set_autocast_enabled('cuda', False)
        torch.set_autocast_dtype('cuda', before)


def kept_bytes(model: nn.Module, batch: int, side: int, dtype: torch.dtype | None) -> Counter[str]:
    """Bytes that autograd keeps of one training step's forward pass, by the part of the model that made it keep them.

    Args:
        model: A segmentor in its training mode. Its tensors are replaced by fake ones.
        batch: Images.
        side: Their height and width in pixels.
        dtype: Of autocast, ``None`` for none.
    """
    kept: Counter[str] = Counter()
    part = REST
    seen: dict[int, torch.UntypedStorage] = {}

    def enter(name: str) -> None:
        nonlocal part
        part = name

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen[storage._cdata] = storage  # Kept, so that no other storage gets its address.
            kept[part] += storage.nbytes()
        return tensor

    with FakeTensorMode(), ExitStack() as stack:
        move_to_fake_gpu(model)
        for tensor in (*model.parameters(), *model.buffers()):
            seen[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        for name in PARTS:
            module = getattr(model, name)
            hooks = (
                module.register_forward_pre_hook(lambda *_, name=name: enter(name)),
                module.register_forward_hook(lambda *_: enter(REST), always_call=True),
            )
            stack.callback(lambda hooks=hooks: [hook.remove() for hook in hooks])
        for target, stand_in in _stand_ins():
            stack.enter_context(patch(target, stand_in))
        for module in _MODULES_OF_TRITON:
            stack.enter_context(patch.object(importlib.import_module(module), 'use_triton', lambda x: True))
        stack.enter_context(autocast_for_cuda(dtype))
        img = torch.empty(batch, 3, side, side, device='cuda')
        labels = torch.empty(batch, 1, side, side, dtype=torch.int64, device='cuda')
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            losses = model.loss(img, samples)
        del losses
    return kept


def _stand_ins() -> Iterator[tuple[str, object]]:
    """For what asks a GPU or reads numbers: the attention kernel that torch takes there, and mmseg's accuracy."""

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0) -> Tensor:
        bias = None if attn_mask is None else attn_mask.expand(len(q), -1, -1, -1)
        return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, bias, True, dropout_p)[0]

    def accuracy(pred: Tensor, target: Tensor, **_: object) -> Tensor:
        return pred.new_zeros(1)  # Autograd keeps nothing of it.

    yield 'torch.nn.functional.scaled_dot_product_attention', attention
    yield 'mmseg.models.decode_heads.decode_head.accuracy', accuracy


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.activations', description=__doc__)
    parser.add_argument('--size', choices=tuple(models.SIZES), default='base')
    parser.add_argument('--batch', type=int, default=16, help='images (default: 16)')
    parser.add_argument('--float32', action='store_true', help='without autocast; the default is bfloat16')
    parser.add_argument(
        '--with-cp', action='store_true', help='with activation checkpointing in our backbone; mmseg has none'
    )
    parser.add_argument('--tiny', action='store_true', help='a fraction of the widths and 64 pixels: does it run')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if not HAS_FAKE_GPU:
        raise InputError(
            f'torch {torch.__version__} has no fake CUDA tensors without a GPU: install torch 2.11 or newer'
        )
    if args.batch < 2:
        raise InputError(f'--batch {args.batch}: batch norm trains on 2 images or more')
    config = models.segmentor_config(args.size, args.tiny)
    ours = models.build_ours(config)
    ours.backbone.with_cp = args.with_cp
    weights = sum(parameter.numel() for parameter in ours.parameters())
    side, dtype = 64 if args.tiny else 512, None if args.float32 else torch.bfloat16
    kept = {
        name: kept_bytes(model.train(), args.batch, side, dtype)
        for name, model in (('mmseg', models.build_mmseg(config, ours)), ('ours', ours))
    }
    precision = 'float32' if args.float32 else 'bfloat16'
    table = Table('part', 'mmseg, GB', 'ours, GB', 'ours/mmseg', title=f'{args.batch} images of {side}, {precision}')
    for part in (*PARTS, REST):
        theirs, own = kept['mmseg'][part], kept['ours'][part]
        table.add_row(part, f'{theirs / 1e9:.2f}', f'{own / 1e9:.2f}', f'{own / theirs:.2f}' if theirs else '')
    theirs, own = kept['mmseg'].total(), kept['ours'].total()
    table.add_row('kept', f'{theirs / 1e9:.2f}', f'{own / 1e9:.2f}', f'{own / theirs:.2f}', end_section=True)
    state = 16 * weights  # Float32 weights, their gradients and AdamW's two averages.
    table.add_row(
        'and weights, gradients, AdamW',
        f'{(theirs + state) / 1e9:.2f}',
        f'{(own + state) / 1e9:.2f}',
        f'{(own + state) / (theirs + state):.2f}',
    )
    Console().print(table)
    return 0


if __name__ == '__main__':
    run_tool(main)
