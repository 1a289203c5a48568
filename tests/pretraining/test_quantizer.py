"""The codebook by hand: choice, commitment, straight-through gradient, moving average, k-means, dead codes."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmseg_beit.errors import InputError
from mmseg_beit.models.pretraining import EMAVectorQuantizer
from mmseg_beit.models.pretraining.quantizer import usage


def axes(num_codes=2, dims=2, **kwargs):
    """A quantizer whose codes are the first axes."""
    quantizer = EMAVectorQuantizer(num_codes, dims, kmeans_init=False, restart_below=0.0, **kwargs)
    quantizer.embedding.weight.copy_(torch.eye(num_codes, dims))
    return quantizer


def test_takes_the_code_of_the_smallest_angle_whatever_the_length():
    tokens = torch.tensor([[[5.0, 4.0], [0.01, 0.02], [1.0, -3.0]]])
    quantized, _, codes = axes().eval()(tokens)
    assert codes.tolist() == [[0, 1, 0]]
    torch.testing.assert_close(quantized, torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]]))


def test_commitment_is_the_mean_squared_difference():
    # (0.6, 0.8) against the code (0, 1): (0.36 + 0.04) / 2 numbers.
    _, loss, _ = axes(commitment=3.0).eval()(torch.tensor([[[3.0, 4.0]]]))
    assert loss.item() == pytest.approx(3 * 0.2)


def test_gradient_passes_straight_through_the_choice():
    """What follows the quantizer sends its gradient to the normalised token as if nothing had been replaced."""
    token = torch.tensor([[[3.0, 4.0]]], requires_grad=True)
    quantized, _, _ = axes().eval()(token)
    (quantized * torch.tensor([1.0, 0.0])).sum().backward()
    # d(x / |x|) / dx = (I - n n') / |x|, its first row with n = (0.6, 0.8), |x| = 5.
    torch.testing.assert_close(token.grad, torch.tensor([[[0.64 / 5, -0.48 / 5]]]))


def test_codes_have_no_gradient():
    assert not list(axes().parameters())


def test_moving_average_by_hand():
    """Two tokens choose the first axis, one the second: a code moves a tenth of the way, then to length 1."""
    quantizer = axes(decay=0.9).train()
    tokens = F.normalize(torch.tensor([[[1.0, 0.0], [1.0, 0.5], [0.6, 0.8]]]), dim=-1)
    quantizer(tokens)
    mean = F.normalize(tokens[0, 0] + tokens[0, 1], dim=0)
    moved = 0.9 * torch.tensor([1.0, 0.0]) + 0.1 * mean
    other = 0.9 * torch.tensor([0.0, 1.0]) + 0.1 * torch.tensor([0.6, 0.8])
    expected = torch.stack([moved / moved.norm(), other / other.norm()])
    torch.testing.assert_close(quantizer.embedding.weight, expected)
    torch.testing.assert_close(quantizer.cluster_size, torch.tensor([0.2, 0.1]))
    assert quantizer.num_batches_tracked == 1


def test_a_code_that_nothing_chose_stays():
    quantizer = axes(3, 3, decay=0.5).train()
    quantizer(torch.tensor([[[1.0, 0.1, 0.0]]]))
    torch.testing.assert_close(quantizer.embedding.weight[1:], torch.eye(3)[1:])


def test_evaluation_changes_nothing():
    quantizer = axes().train()
    quantizer(torch.randn(2, 5, 2))
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer.eval()(torch.randn(2, 5, 2))
    assert all(torch.equal(before[name], tensor) for name, tensor in quantizer.state_dict().items())


def test_dead_codes_take_the_place_of_tokens():
    quantizer = axes(4, 8)
    quantizer.restart_below = 0.1
    quantizer.cluster_size.fill_(0.0)
    quantizer.cluster_size[:2] = 10.0
    tokens = F.normalize(torch.rand(1, 20, 8) + 5 * torch.eye(8)[0], dim=-1)  # all near the first code
    quantizer.train()(tokens)
    alive, restarted = quantizer.embedding.weight[:2], quantizer.embedding.weight[2:]
    torch.testing.assert_close(alive[1], torch.eye(8)[1])
    for code in restarted:
        assert (tokens[0] @ code).max() > 1 - 1e-6
    mean = (0.99 * 20 + 0.01 * 20) / 4
    torch.testing.assert_close(quantizer.cluster_size[2:], torch.full((2,), mean))


def test_a_dead_code_has_time_before_it_is_restarted_again():
    quantizer = axes(2, 2, decay=0.9)
    quantizer.restart_below = 0.1
    token = torch.tensor([[[1.0, 0.0]]])
    quantizer.train()
    # Its share falls by 0.9 a step: below a tenth of the mean after ceil(log(0.1) / log(0.9)) steps or a few less, as
    # the mean changes as well.
    steps = 0
    quantizer.cluster_size.fill_(0.5)
    while torch.equal(quantizer.embedding.weight[1], torch.tensor([0.0, 1.0])):
        quantizer(token)
        steps += 1
    assert 20 <= steps <= math.ceil(math.log(0.1) / math.log(0.9)) + 8


def test_kmeans_finds_clusters():
    """Three directions with noise, three codes: the codes end on the directions."""
    centres = F.normalize(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), dim=-1)
    tokens = F.normalize(centres.repeat(50, 1) + 0.05 * torch.randn(150, 3), dim=-1)
    quantizer = EMAVectorQuantizer(3, 3, decay=0.0, restart_below=0.01)
    assert not quantizer.is_ready
    for _ in range(3):
        quantizer.train()(tokens[None])
    assert quantizer.is_ready
    nearest = (quantizer.embedding.weight @ centres.t()).max(dim=0)
    assert nearest.values.min() > 0.99
    assert sorted(nearest.indices.tolist()) == [0, 1, 2]


def test_the_same_start_and_restarts_every_time():
    tokens = [torch.randn(1, 40, 4) for _ in range(3)]

    def run():
        quantizer = EMAVectorQuantizer(16, 4, restart_below=0.5, decay=0.5).train()
        for batch in tokens:
            quantizer(batch)
        return quantizer.embedding.weight

    first = run()
    torch.manual_seed(123)
    assert torch.equal(first, run())


def test_float32_under_autocast():
    with torch.autocast('cpu', dtype=torch.bfloat16):
        quantized, loss, _ = axes().train()(torch.randn(1, 4, 2, dtype=torch.bfloat16))
    assert quantized.dtype == loss.dtype == torch.float32


def test_usage_and_perplexity():
    assert usage(torch.tensor([0, 1, 2, 3]), 4) == (1.0, pytest.approx(4.0))
    assert usage(torch.tensor([[5, 5], [5, 5]]), 8) == (0.125, pytest.approx(1.0))


@pytest.mark.parametrize('bad', [dict(num_codes=1), dict(decay=1.0), dict(restart_below=1.0)])
def test_bad_arguments_are_one_sentence(bad):
    with pytest.raises(InputError, match=r'at least 2|must be in'):
        EMAVectorQuantizer(**bad)


@pytest.mark.parity
def test_follows_mmpretrains_quantizer():
    """Codes, loss, gradient and five updates are mmpretrain's."""
    from mmpretrain.models.utils.vector_quantizer import NormEMAVectorQuantizer

    peer = NormEMAVectorQuantizer(16, 8, beta=1.0, decay=0.9, kmeans_init=False).train()
    ours = EMAVectorQuantizer(16, 8, decay=0.9, kmeans_init=False, restart_below=0.0).train()
    ours.load_state_dict(peer.state_dict(), strict=False)
    for _ in range(5):
        picture = torch.randn(2, 8, 5, 5, requires_grad=True)
        theirs, their_loss, their_codes = peer(picture)
        weight = torch.randn_like(theirs)
        ((theirs * weight).sum() + their_loss).backward()
        tokens = picture.detach().flatten(2).transpose(1, 2).requires_grad_()
        mine, loss, codes = ours(tokens)
        ((mine * weight.flatten(2).transpose(1, 2)).sum() + loss).backward()
        assert torch.equal(codes.flatten(), their_codes)
        torch.testing.assert_close(mine, theirs.flatten(2).transpose(1, 2))
        torch.testing.assert_close(loss, their_loss)
        torch.testing.assert_close(tokens.grad, picture.grad.flatten(2).transpose(1, 2))
        torch.testing.assert_close(ours.embedding.weight, peer.embedding.weight.data)
        torch.testing.assert_close(ours.cluster_size, peer.cluster_size)
