"""Upsampled cross-entropy and accuracy against mmseg's head, loss and accuracy: values and gradients."""

import warnings

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.structures import SegDataSample

from mmseg_beit.models.losses import UpsampledLossMixin, upsampled_cross_entropy
from mmseg_beit.models.losses import upsampled_cross_entropy as fused


class Head(UpsampledLossMixin, FCNHead):
    """A head with our loss."""


@pytest.fixture(params=['one tile', 'many tiles'])
def tiles(request, monkeypatch):
    if request.param == 'many tiles':
        monkeypatch.setitem(fused.__globals__['_CHUNK_LOGITS'], 'cpu', 6 * 5**2)


def make_head(cls, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # mmseg warns of its own default of avg_non_ignore.
        return cls(in_channels=4, channels=4, num_convs=0, concat_input=False, num_classes=6, **kwargs)


def batch(size, ignored=0.2):
    torch.manual_seed(0)
    labels = torch.randint(0, 6, (3, 1, *size))
    labels[torch.rand(labels.shape) < ignored] = 255
    return [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]


@pytest.mark.parity
@pytest.mark.usefixtures('tiles')
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size', [(16, 24), (13, 30), (3, 4)])
@pytest.mark.parametrize('loss', [
    dict(),
    dict(avg_non_ignore=True, loss_weight=0.4),
    dict(class_weight=[0.5, 1.0, 2.0, 0.0, 1.5, 3.0]),
], ids=['default', 'avg_non_ignore', 'class_weight'])  # fmt: skip
def test_loss_accuracy_and_gradient_equal_mmseg(size, align_corners, loss):
    results = []
    for cls in (FCNHead, Head):
        head = make_head(cls, align_corners=align_corners, loss_decode=dict(type='CrossEntropyLoss', **loss))
        logits = (torch.randn(3, 6, 4, 6, generator=torch.Generator().manual_seed(1)) * 3).requires_grad_()
        try:
            losses = head.loss_by_feat(logits, batch(size))
        except IndexError:
            if cls is not FCNHead or 'class_weight' not in loss:
                raise
            pytest.skip('this mmseg looks up the class weight of ignored pixels, which have none')
        (2 * losses['loss_ce']).backward()
        results.append((losses['loss_ce'], losses['acc_seg'], logits.grad))
    for expected, actual in zip(*results, strict=True):
        assert actual.shape == expected.shape
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures('tiles')
def test_everything_ignored_is_zero_and_finite():
    head = make_head(Head, loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True))
    logits = torch.randn(3, 6, 4, 6, requires_grad=True)
    losses = head.loss_by_feat(logits, batch((8, 8), ignored=1.1))
    losses['loss_ce'].backward()
    assert losses['loss_ce'] == 0
    assert not logits.grad.any()


def test_another_loss_takes_mmsegs_way():
    head = make_head(Head, loss_decode=dict(type='DiceLoss'))
    losses = head.loss_by_feat(torch.randn(3, 6, 4, 6), batch((8, 8), ignored=0))
    assert set(losses) == {'loss_dice', 'acc_seg'}


def test_half_precision_logits_get_gradients_of_their_dtype():
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in batch((8, 12))])
    exact = torch.randn(3, 6, 4, 6, requires_grad=True)
    half = exact.detach().bfloat16().requires_grad_()
    for logits in (exact, half):
        upsampled_cross_entropy(logits, labels)[0].backward()
    assert half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half.grad.float(), exact.grad, rtol=0.02, atol=0.05)


def test_label_out_of_range():
    labels = torch.full((1, 4, 4), 6)
    with pytest.raises(IndexError, match=r'label 6 is neither one of the 6 classes nor 255 \(ignored\)'):
        upsampled_cross_entropy(torch.randn(1, 6, 2, 2), labels)


def test_library_checks_of_the_operator():
    labels = torch.randint(0, 6, (1, 4, 6))
    logits = torch.randn(1, 6, 2, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.mmseg_beit.upsampled_cross_entropy.default, (logits, labels, None, False, 255))


def test_autocast_leaves_the_inside_in_float32():
    logits, labels = torch.randn(1, 5, 4, 4), torch.randint(0, 5, (1, 9, 9))
    losses = []
    for half in (False, True):
        leaf = logits.clone().requires_grad_()
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=half):
            loss, _ = fused(leaf, labels)
        loss.backward()
        losses.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)
