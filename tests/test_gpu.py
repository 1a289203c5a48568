"""What runs on a GPU, on a GPU: kernels, attention, training steps, predictions, compilation, benchmark rows.

Skipped without a CUDA device. The kernels' arithmetic is tested without one in ``tests/models/test_triton_kernels.py``,
the choice by measurement in ``tests/models/test_choice.py``.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import models
from benchmarks.__main__ import main
from mmseg_beit.engine.amp import AmpOptimWrapper
from mmseg_beit.models.layers import Attention, num_relative_positions, relative_position_bias
from mmseg_beit.models.layers.choice import choices, forget_choices
from mmseg_beit.models.layers.triton_support import use_triton
from mmseg_beit.models.losses import upsampled_cross_entropy

pytestmark = pytest.mark.gpu

DEVICE = 'cuda'


@pytest.fixture(autouse=True)
def float32_products_and_no_choices():
    """Products in float32 proper, not TF32, so that numbers can be compared; each test measures anew."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    forget_choices()
    yield
    torch.backends.cudnn.allow_tf32 = allowed
    forget_choices()


@pytest.fixture
def config():
    return models.segmentor_config('base', tiny=True)


def make_batch(config, device=DEVICE):
    side = config['data_preprocessor']['size'][0]
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 150, (2, 1, side, side), generator=generator)
    labels[:, :, :9] = 255
    img = torch.randn(2, 3, side, side, generator=generator).to(device)
    return img, [SegDataSample(gt_sem_seg=PixelData(data=label.to(device))) for label in labels]


def total(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


def test_kernels_are_in_use():
    assert use_triton(torch.zeros(1, device=DEVICE))


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(('small', 'size'), [((32, 32), (128, 128)), ((33, 47), (131, 90)), ((9, 7), (5, 4))])
@pytest.mark.parametrize('weighted', [False, True])
def test_loss_accuracy_and_gradient_equal_torch(small, size, align_corners, weighted):
    logits = (3 * torch.randn(2, 150, *small)).to(DEVICE).requires_grad_()
    labels = torch.randint(0, 150, (2, *size))
    labels[torch.rand(labels.shape) < 0.2] = 255
    labels = labels.to(DEVICE)
    weight = torch.rand(150).to(DEVICE) if weighted else None
    big = F.interpolate(logits, size=size, mode='bilinear', align_corners=align_corners)
    expected = F.cross_entropy(big, labels, weight=weight, ignore_index=255, reduction='sum')
    (expected_grad,) = torch.autograd.grad(expected, logits)
    loss, correct = upsampled_cross_entropy(logits, labels, align_corners, class_weight=weight)
    (grad,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=1e-5)
    assert abs(int(correct) - int((big.argmax(1) == labels).sum())) <= 1  # A tie may go either way.


def test_loss_gives_the_same_bits_at_every_run():
    logits = torch.randn(2, 150, 32, 32, device=DEVICE, requires_grad=True)
    labels = torch.randint(0, 150, (2, 128, 128), device=DEVICE)
    runs = []
    for _ in range(2):
        loss, _ = upsampled_cross_entropy(logits, labels)
        runs.append((loss.detach(), *torch.autograd.grad(loss, logits)))
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)


def test_loss_holds_no_logits_of_full_size():
    logits = torch.randn(2, 150, 64, 64, device=DEVICE, requires_grad=True)
    labels = torch.randint(0, 150, (2, 512, 512), device=DEVICE)
    upsampled_cross_entropy(logits, labels)[0].backward()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    upsampled_cross_entropy(logits, labels)[0].backward()
    # The gradient, 5 MB, and a few numbers for each pixel; the full-size logits alone are 315 MB.
    assert torch.cuda.max_memory_allocated() - before < 40e6


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(('made_for', 'grid'), [((14, 14), (14, 14)), ((14, 14), (9, 13))])
def test_flex_equals_sdpa(made_for, grid, dtype):
    results = []
    for impl in ('sdpa', 'flex'):
        torch.manual_seed(0)
        attention = Attention(128, 2, made_for, impl=impl).to(DEVICE)
        with torch.no_grad():
            attention.relative_position_bias_table.normal_()
        x = torch.randn(2, 1 + grid[0] * grid[1], 128, device=DEVICE, requires_grad=True)
        with torch.autocast('cuda', dtype=dtype, enabled=dtype != torch.float32):
            out = attention(x, grid)
        out.float().backward(torch.linspace(-1, 1, out.numel(), device=DEVICE).view_as(out))
        results.append([out.detach().float(), x.grad, *(p.grad for p in attention.parameters())])
    close = 1e-5 if dtype == torch.float32 else 0.03
    for expected, actual in zip(*results, strict=True):
        assert (actual - expected).norm() <= close * expected.norm()


def test_the_bias_suits_the_memory_efficient_kernel():
    grid, dtype = (9, 13), torch.bfloat16
    q, k, v = torch.randn(3, 2, 2, 118, 64, device=DEVICE, dtype=dtype, requires_grad=True)
    table = torch.randn(num_relative_positions(grid), 2, device=DEVICE, dtype=dtype, requires_grad=True)
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        bias = relative_position_bias(table, grid).unsqueeze(0)
        F.scaled_dot_product_attention(q, k, v, attn_mask=bias).sum().backward()
    assert table.grad.isfinite().all()


def test_a_training_step_equals_the_cpus(config):
    """Float32: losses, and the gradients of all parameters in their norm."""
    results = []
    for device in ('cpu', DEVICE):
        model = models.build_ours(config).to(device).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d) or hasattr(module, 'drop_prob'):
                module.eval()
        loss = total(model.loss(*make_batch(config, device)))
        loss.backward()
        grads = [p.grad.cpu().flatten() for p in model.parameters() if p.grad is not None]
        results.append((loss.detach().cpu(), torch.cat(grads)))
    (loss, grad), (other_loss, other_grad) = results
    torch.testing.assert_close(other_loss, loss, rtol=1e-5, atol=1e-5)
    # A ReLU at its edge may fall either way.
    assert (other_grad - grad).norm() < 5e-3 * grad.norm()


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_mixed_precision_trains_and_measures_its_choices(config, dtype):
    config['backbone']['with_cp'] = True
    model = models.build_ours(config).to(DEVICE).train()
    wrapper = AmpOptimWrapper(dtype=dtype, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True))
    img, samples = make_batch(config)
    losses = []
    for _ in range(8):
        with wrapper.optim_context(model):
            loss = total(model.loss(img, samples))
        wrapper.update_params(loss)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert {key[0] for key in choices()} == {'attention', 'convolution'}


def test_a_step_does_not_wait_for_the_gpu(config):
    model = models.build_ours(config).to(DEVICE).train()
    img, samples = make_batch(config)
    total(model.loss(img, samples)).backward()  # Builds kernels, keeps matrices, measures.
    torch.cuda.set_sync_debug_mode('error')
    try:
        total(model.loss(img, samples)).backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_labels_equal_the_cpus(config, mode):
    model = models.build_ours(config).eval()
    model.test_cfg.mode = mode
    img = torch.randn(1, 3, 96, 120)
    with torch.no_grad():
        expected = model.predict(img)[0].pred_sem_seg.data
        actual = model.to(DEVICE).predict(img.to(DEVICE))[0].pred_sem_seg.data
    assert actual.is_cuda
    assert (actual.cpu() == expected).float().mean() > 0.999


def test_compiled_network_equals_the_eager_one(config):
    model = models.build_ours(config).to(DEVICE).train()
    img, _ = make_batch(config)
    grads = []
    for run in (model._forward, torch.compile(model._forward, fullgraph=True)):
        torch.manual_seed(1)
        model.eval().zero_grad()
        run(img).square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert (grads[1] - grads[0]).norm() < 5e-3 * grads[0].norm()


def test_benchmark_rows(tmp_path):
    rows = ['backbone', 'head', 'inference', 'training', 'amp', 'attention', 'loss']
    assert main([*rows, '--tiny', '--device', 'cuda', '--rounds', '1', '--out', str(tmp_path)]) == 0
    (report,) = tmp_path.glob('*.json')
    data = json.loads(report.read_text())
    assert all(found['seconds'][0] > 0 for row in data['rows'] for found in row['results'].values())
