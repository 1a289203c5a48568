"""Our Triton kernels on the CPU, by Triton's interpreter; ``test_triton_kernels.py`` runs this file.

It stands apart because ``TRITON_INTERPRET=1`` must be set before Triton is imported.
"""

import os

import pytest
import torch
import torch.nn.functional as F

from mmseg_beit.models.layers import logit_map
from mmseg_beit.models.layers.interpolation import interpolation_matrix
from mmseg_beit.models.layers.logit_map import LogitMap, Piece
from mmseg_beit.models.losses import upsampled_cross_entropy

assert os.environ.get('TRITON_INTERPRET') == '1', 'run by test_triton_kernels.py'


def make_batch(num_classes, small, size, dtype=torch.float32):
    logits = (torch.randn(2, num_classes, *small) * 3).to(dtype).requires_grad_()
    labels = torch.randint(0, num_classes, (2, *size))
    labels[torch.rand(labels.shape) < 0.2] = 255
    return logits, labels


def plain(logits, labels, align_corners, class_weight=None):
    big = F.interpolate(logits.float(), size=labels.shape[1:], mode='bilinear', align_corners=align_corners)
    loss = F.cross_entropy(big, labels, weight=class_weight, ignore_index=255, reduction='sum')
    return loss, (big.argmax(1) == labels).sum()


def run(function, logits, *args, **kwargs):
    logits.grad = None
    loss, correct = function(logits, *args, **kwargs)
    (0.5 * loss).backward()
    return loss.detach(), correct, logits.grad


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(('num_classes', 'small', 'size', 'weighted'), [
    (5, (2, 3), (5, 9), True),
    (19, (3, 2), (3, 4), False),  # More classes than one block holds.
    pytest.param(3, (5, 6), (3, 4), False, marks=pytest.mark.slow),
    pytest.param(3, (1, 1), (3, 2), True, marks=pytest.mark.slow),
    pytest.param(3, (2, 34), (2, 67), False, marks=pytest.mark.slow),  # More pixels than one block holds.
])  # fmt: skip
def test_loss_accuracy_and_gradient_equal_torch(num_classes, small, size, weighted, align_corners):
    logits, labels = make_batch(num_classes, small, size)
    weight = torch.rand(num_classes) if weighted else None
    expected = run(plain, logits, labels, align_corners, weight)
    actual = run(upsampled_cross_entropy, logits, labels, align_corners, class_weight=weight)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_memory_order_of_the_logits_does_not_matter():
    logits, labels = make_batch(5, (2, 3), (4, 5))
    expected = run(upsampled_cross_entropy, logits, labels)
    # The loss reads any strides: channels last, and a cut from larger maps.
    for other in (
        logits.detach().contiguous(memory_format=torch.channels_last),
        F.pad(logits.detach(), (0, 3, 2, 0))[:, :, 2:, :3],
    ):
        actual = run(upsampled_cross_entropy, other.requires_grad_(), labels)
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.slow
def test_half_precision_logits_get_gradients_of_their_dtype():
    logits, labels = make_batch(5, (2, 3), (4, 5), torch.bfloat16)
    exact = logits.detach().float().requires_grad_()
    loss, correct, grad = run(upsampled_cross_entropy, logits, labels)
    exact_loss, exact_correct, exact_grad = run(plain, exact, labels, False)
    assert grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, exact_loss)
    assert correct == exact_correct
    torch.testing.assert_close(grad.float(), exact_grad, rtol=0.01, atol=0.01)


@pytest.mark.slow
def test_everything_ignored_is_zero():
    logits, labels = make_batch(5, (2, 3), (4, 5))
    loss, correct, grad = run(upsampled_cross_entropy, logits, torch.full_like(labels, 255))
    assert loss == 0
    assert correct == 0
    assert not grad.any()


@pytest.mark.parametrize('label', [-1, 5])
def test_a_label_that_is_no_class_makes_the_loss_not_a_number(label):
    logits, labels = make_batch(5, (2, 3), (4, 5))
    labels[0, 0, 0] = label
    # A GPU is not waited for; the operator is called as it is there, without the check.
    loss, *_ = torch.ops.mmseg_beit.kernel_cross_entropy(logits, labels, None, False, 255)
    assert loss.isnan()


@pytest.mark.slow
def test_library_checks_of_the_operators():
    logits, labels = make_batch(5, (2, 3), (4, 5))
    torch.library.opcheck(torch.ops.mmseg_beit.kernel_cross_entropy.default, (logits, labels, None, False, 255))


def tiles_labels(picture, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(logit_map, 'use_triton', lambda x: False)
        return picture.labels()


@pytest.mark.parametrize('num_classes', [3, pytest.param(70, marks=pytest.mark.slow)])
def test_labels_of_a_chain_of_steps_equal_those_of_tiles(num_classes, monkeypatch):
    small = torch.randn(3, 5, num_classes)
    rows, cols = interpolation_matrix(3, 10, False), interpolation_matrix(5, 20, True)
    cut = LogitMap([Piece(small, rows, cols)]).crop(1, 2, 8, 17).flip(horizontal=True)
    for picture in (cut.flip(horizontal=False).resize(5, 9, False), cut.resize(2, 35, True)):
        assert torch.equal(picture.labels(), picture.logits().argmax(0))
        assert torch.equal(picture.labels(), tiles_labels(picture, monkeypatch))


def test_labels_of_overlapping_windows_equal_those_of_tiles(monkeypatch):
    rows, cols = interpolation_matrix(2, 4, False), interpolation_matrix(4, 8, False)
    pieces = []
    for top in (0, 2):
        for left in (0, 3, 5):
            placed_rows, placed_cols = torch.zeros(6, 2), torch.zeros(13, 4)
            placed_rows[top : top + 4] = rows / 2
            placed_cols[left : left + 8] = cols / 3
            pieces.append(Piece(torch.randn(2, 4, 4), placed_rows, placed_cols))
    for picture in (LogitMap(pieces), LogitMap(pieces).resize(5, 11, False)):
        assert torch.equal(picture.labels(), tiles_labels(picture, monkeypatch))


def test_the_lowest_of_equal_classes_wins():
    picture = LogitMap([Piece(torch.zeros(1, 1, 70), torch.eye(1), torch.eye(1))])
    assert picture.labels().tolist() == [[0]]
