"""Our decode heads against mmseg's with the same random weights."""

import copy

import pytest
import torch
from mmseg.models.decode_heads import FCNHead as MMSegFCNHead
from mmseg.models.decode_heads import SETRUPHead as MMSegSETRUPHead
from mmseg.models.decode_heads import UPerHead as MMSegUPerHead

from mmseg_beit.models.decode_heads import FCNHead, SETRUPHead, UPerHead
from mmseg_beit.registry import MODELS

NORM = dict(type='BN', requires_grad=True)
UPER_SIZES = {
    'square': [(16, 16), (8, 8), (4, 4), (2, 2)],
    'wide': [(12, 20), (6, 10), (3, 5), (1, 2)],
    'odd': [(13, 17), (7, 9), (4, 5), (2, 3)],
}


def _randomise(head):
    """Gives every parameter and batch norm statistic a random value."""
    for name, value in head.state_dict().items():
        if name.endswith('running_var'):
            value.uniform_(0.5, 2.0)
        elif value.is_floating_point():
            value.add_(torch.randn_like(value) * 0.1)
    return head


def _pair(ours, theirs, **kwargs):
    theirs = _randomise(theirs(**kwargs))
    ours = ours(**kwargs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def _uper(ours=UPerHead, theirs=MMSegUPerHead, **kwargs):
    args = dict(in_channels=[8, 9, 10, 11], in_index=[0, 1, 2, 3], channels=12, num_classes=5, norm_cfg=NORM)
    return _pair(ours, theirs, **{**args, **kwargs})


def _close(ours, theirs, tolerance=1e-5):
    scale = theirs.abs().max()
    assert (ours - theirs).abs().max() <= tolerance * scale + 1e-12


def _compare(ours, theirs, inputs, tolerance=1e-5):
    """Outputs, gradients of inputs and parameters, and buffers after the pass."""
    outputs, grads = [], []
    for head in (ours, theirs):
        leaves = [x.detach().requires_grad_() for x in inputs]
        torch.manual_seed(1)
        out = head.forward(leaves)
        torch.manual_seed(2)
        parameters = [p for p in head.parameters() if p.requires_grad]
        grads.append(
            torch.autograd.grad(out, [*leaves, *parameters], torch.randn(out.shape).to(out), allow_unused=True)
        )
        outputs.append(out)
    _close(outputs[0], outputs[1], tolerance)
    for our_grad, their_grad in zip(*grads, strict=True):
        assert (our_grad is None) == (their_grad is None)
        if their_grad is not None:
            _close(our_grad, their_grad, tolerance)
    for our_buffer, their_buffer in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(our_buffer, their_buffer, rtol=tolerance, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('sizes', UPER_SIZES.values(), ids=UPER_SIZES)
def test_uper_head_equals_mmseg(sizes, align_corners, training):
    ours, theirs = _uper(align_corners=align_corners)
    ours.train(training), theirs.train(training)
    inputs = [torch.randn(2, c, *size) for c, size in zip(ours.in_channels, sizes, strict=True)]
    # In float64, where no activation near zero changes sides by rounding.
    _compare(ours.double(), theirs.double(), [x.double() for x in inputs])
    _close(ours.float().eval().forward(inputs), theirs.float().eval().forward(inputs))


@pytest.mark.parity
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('num_convs, up_scale, kernel_size', [(4, 2, 3), (2, 4, 3), (1, 4, 1), (2, 2, 1)])
def test_setr_up_head_equals_mmseg(num_convs, up_scale, kernel_size, align_corners, training):
    ours, theirs = _pair(
        SETRUPHead,
        MMSegSETRUPHead,
        in_channels=8,
        channels=6,
        num_classes=5,
        num_convs=num_convs,
        up_scale=up_scale,
        kernel_size=kernel_size,
        align_corners=align_corners,
        dropout_ratio=0.5,
        norm_cfg=NORM,
    )
    ours.train(training), theirs.train(training)
    _compare(ours.double(), theirs.double(), [torch.randn(2, 8, 3, 5).double()])
    inputs = [torch.randn(2, 8, 5, 3)]
    _close(ours.float().eval().forward(inputs), theirs.float().eval().forward(inputs))


@pytest.mark.parity
@pytest.mark.parametrize('num_convs, concat_input', [(0, False), (1, False), (2, True)])
def test_fcn_head_equals_mmseg(num_convs, concat_input):
    channels = 8 if num_convs == 0 else 6
    ours, theirs = _pair(
        FCNHead,
        MMSegFCNHead,
        in_channels=8,
        channels=channels,
        num_classes=5,
        num_convs=num_convs,
        concat_input=concat_input,
        norm_cfg=NORM,
    )
    _compare(ours.double(), theirs.double(), [torch.randn(2, 8, 7, 5).double()])


def test_heads_win_in_our_scope():
    for cls in (UPerHead, SETRUPHead, FCNHead):
        assert MODELS.get(cls.__name__) is cls


def test_unusual_convolutions_keep_the_plain_way():
    ours, theirs = _uper(
        conv_cfg=dict(type='Conv2d', padding_mode='circular'), norm_cfg=None, act_cfg=dict(type='GELU')
    )
    inputs = [torch.randn(1, c, *size) for c, size in zip(ours.in_channels, UPER_SIZES['odd'], strict=True)]
    _compare(ours.eval(), theirs.eval(), inputs)


def test_heads_are_copied_with_their_weights():
    ours, _ = _uper()
    inputs = [torch.randn(1, c, *size) for c, size in zip(ours.in_channels, UPER_SIZES['odd'], strict=True)]
    torch.testing.assert_close(copy.deepcopy(ours).eval().forward(inputs), ours.eval().forward(inputs))


@pytest.mark.parity
@pytest.mark.parametrize('training', [True, False])
def test_uper_head_with_many_channels_equals_mmseg_in_float32(training):
    # Wide and fine enough for the Winograd form. With ReLU any rounding flips a few activations near zero, whose
    # gradients then differ whole: an activation without a kink shows the arithmetic alone.
    args = dict(in_channels=[128] * 4, channels=128, dropout_ratio=0.0, act_cfg=dict(type='GELU'))
    ours, theirs = _uper(**args)
    sizes = [(48, 52), (24, 26), (12, 13), (6, 7)]
    inputs = [torch.randn(2, 128, *size) for size in sizes]
    results = []
    for head in (ours, theirs):
        head.train(training)
        leaves = [x.detach().requires_grad_() for x in inputs]
        out = head.forward(leaves)
        torch.manual_seed(1)
        parameters = [p for p in head.parameters() if p.requires_grad]
        results.append([out, *torch.autograd.grad(out, [*leaves, *parameters], torch.randn(out.shape))])
    errors = [((a - b).norm() / b.norm()).item() for a, b in zip(*results, strict=True)]
    assert max(errors) <= 1e-5


@pytest.mark.parametrize('cls', [UPerHead, SETRUPHead])
def test_heads_compile_without_graph_breaks(cls):
    head, inputs = _head_and_inputs(cls)
    assert torch._dynamo.explain(head.forward)(inputs).graph_break_count == 0


@pytest.mark.parametrize('cls', [UPerHead, SETRUPHead])
def test_exported_heads_hold_plain_operators_only(cls):
    head, inputs = _head_and_inputs(cls)
    program = torch.export.export(head, (inputs,))
    assert 'mmseg_beit' not in str(program.graph)
    torch.testing.assert_close(program.module()(inputs), head.forward(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('cls', [UPerHead, SETRUPHead])
def test_heads_train_under_autocast(cls):
    head, inputs = _head_and_inputs(cls)
    exact = head.forward(inputs)
    with torch.autocast('cpu', torch.bfloat16):
        out = head.forward(inputs)
    assert (out - exact).norm() <= 0.03 * exact.norm()
    head.train()
    with torch.autocast('cpu', torch.bfloat16):
        out = head.forward(inputs)
    out.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def _head_and_inputs(cls):
    if cls is UPerHead:
        head = _uper()[0]
        return head.eval(), [torch.randn(2, c, *s) for c, s in zip(head.in_channels, UPER_SIZES['odd'], strict=True)]
    args = dict(in_channels=8, in_index=0, channels=6, num_classes=5, num_convs=2, up_scale=4, norm_cfg=NORM)
    return _pair(SETRUPHead, MMSegSETRUPHead, **args)[0].eval(), [torch.randn(2, 8, 5, 3)]
