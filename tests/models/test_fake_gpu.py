"""The networks' way over a GPU, walked with fake CUDA tensors: no operator meets tensors of two devices.

Fake tensors have shapes, dtypes and devices but no numbers. Autograd needs the device itself, so this is forward only.
"""

import importlib
from collections.abc import Iterator

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.activations import HAS_FAKE_GPU, autocast_for_cuda, move_to_fake_gpu
from benchmarks.models import segmentor_config
from mmseg_beit.registry import MODELS

pytestmark = pytest.mark.skipif(not HAS_FAKE_GPU, reason='this torch has no fake CUDA tensors without a GPU')


@pytest.fixture(params=[None, torch.bfloat16])
def precision(request) -> Iterator[None]:
    with autocast_for_cuda(request.param):
        yield


def make_model(head: str) -> nn.Module:
    config = segmentor_config('base', tiny=True)
    if head == 'SETRUPHead':
        config['decode_head'] = dict(
            type=head, in_channels=32, channels=16, in_index=3, num_classes=150, num_convs=2, norm_cfg=dict(type='BN'),
            align_corners=False,
        )  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmseg_beit'):
        return MODELS.build(config)


@pytest.mark.usefixtures('precision')
@pytest.mark.parametrize('kernels', [False, True])
@pytest.mark.parametrize('head', ['UPerHead', 'SETRUPHead'])
def test_training(head, kernels, monkeypatch):
    loss = importlib.import_module('mmseg_beit.models.losses.upsampled_cross_entropy')
    monkeypatch.setattr(loss, 'use_triton', lambda x: kernels)
    model = make_model(head).train()
    with FakeTensorMode():
        move_to_fake_gpu(model)
        img = torch.empty(2, 3, 64, 64, device='cuda')
        labels = torch.empty(2, 1, 64, 64, dtype=torch.int64, device='cuda')
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
        for value in model.loss(img, samples).values():
            assert value.device.type == 'cuda'
            assert value.dtype == torch.float32


@pytest.mark.usefixtures('precision')
@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('head', ['UPerHead', 'SETRUPHead'])
def test_prediction(head, fused):
    model = make_model(head).eval()
    if fused:
        model.fuse()
    with FakeTensorMode(), torch.no_grad():
        move_to_fake_gpu(model)
        small, rows, cols = model._small_logits(torch.empty(2, 3, 72, 104, device='cuda'))
        assert small.device.type == 'cuda'
        assert small.dtype == torch.float32
        assert rows.device.type == cols.device.type == 'cpu'
        assert (rows.shape[1], cols.shape[1]) == small.shape[1:3]


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_layout_of_feature_maps(dtype):
    """Channels last in half precision, as cuDNN's kernels read them."""
    model = make_model('UPerHead').eval()
    with FakeTensorMode(), autocast_for_cuda(dtype):
        move_to_fake_gpu(model)
        maps = model.backbone(torch.empty(2, 3, 64, 64, device='cuda'))
        fused = model.decode_head(model.neck(maps))
    for m in maps:
        assert m.is_contiguous(memory_format=torch.channels_last if dtype else torch.contiguous_format)
    assert fused.shape == (2, 150, 16, 16)


@pytest.mark.parametrize('head', ['UPerHead', 'SETRUPHead'])
def test_channels_last_changes_no_number(head, monkeypatch):
    """What a GPU's layout does to values and gradients, here on the CPU."""
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        monkeypatch.setattr('mmseg_beit.models.backbones.beit._layout_of_maps', lambda x, layout=layout: layout)
        torch.manual_seed(0)
        model = make_model(head).eval()
        out = model.decode_head(model.extract_feat(torch.randn(2, 3, 64, 64)))
        out.square().mean().backward()
        results.append([out.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    scale = max(grad.abs().max() for grad in results[0][1:])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=float(1e-5 * scale))
