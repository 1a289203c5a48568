"""Vector quantization with an l2-normalised codebook that follows its members by a moving average (BEiT v2, 3.1).

The codebook is not trained by gradients: each code moves towards the mean direction of the tokens that chose it. Tokens
receive their gradient straight through the choice, and are drawn to their codes by the commitment loss.

Every statistic is summed over processes before it is used, so N processes do what one does with the joint batch, and
the codebook is the same in all of them without broadcasts. Draws come from a generator seeded by the number of batches
seen, equal in all processes and after resuming. In evaluation nothing changes.

Buffer names are mmpretrain's (``embedding.weight``, ``embedding.initted``, ``cluster_size``).
NOTE(reference): the official and mmpretrain's quantizers also move ``cluster_size`` in evaluation; here it stays. They
never restart a dead code; ``restart_below=0`` is that behaviour.

Shape suffixes: T tokens of all images, K codes, d their width.
"""

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, all_reduce
from torch import Tensor, nn

from ...errors import InputError

_CHUNK = 16384  # Tokens compared with the codebook at a time: 0.5 GB for 8192 codes in float32.


class Codebook(nn.Module):
    """Holds the codes.

    Args:
        num_codes: K.
        dims: Width d of a code.
        kmeans_init: Starts as zeros, to be filled from the first batch; else as random unit vectors.
    """

    def __init__(self, num_codes: int, dims: int, kmeans_init: bool = True) -> None:
        super().__init__()
        weight = torch.zeros(num_codes, dims) if kmeans_init else F.normalize(torch.randn(num_codes, dims), dim=-1)
        self.register_buffer('weight', weight)
        self.register_buffer('initted', torch.tensor([0.0 if kmeans_init else 1.0]))


class EMAVectorQuantizer(nn.Module):
    """Replaces tokens by their nearest codes.

    Args:
        num_codes: Codes K.
        dims: Width d of a code.
        decay: Weight of the past in the moving averages, 0..1.
        commitment: Weight of the commitment loss.
        kmeans_init: Starts the codebook by spherical k-means on the first batch.
        kmeans_iters: Its iterations.
        restart_below: A code whose moving average of uses falls below this share of the mean over all codes is dead and
            takes the place of a random token of the batch; 0 for never.

    Raises:
        InputError: An argument is out of its range.
    """

    def __init__(
        self,
        num_codes: int = 8192,
        dims: int = 32,
        decay: float = 0.99,
        commitment: float = 1.0,
        kmeans_init: bool = True,
        kmeans_iters: int = 10,
        restart_below: float = 0.01,
    ) -> None:
        super().__init__()
        if num_codes < 2 or dims < 1:
            raise InputError(f'a codebook of {num_codes} codes of {dims} numbers is too small: use at least 2 codes')
        if not 0 <= decay < 1 or not 0 <= restart_below < 1:
            raise InputError(f'quantizer: decay={decay} and restart_below={restart_below} must be in [0, 1)')
        self.num_codes = num_codes
        self.decay = decay
        self.commitment = commitment
        self.kmeans_iters = kmeans_iters
        self.restart_below = restart_below
        self.embedding = Codebook(num_codes, dims, kmeans_init)
        self.register_buffer('cluster_size', torch.zeros(num_codes))
        # The name under which checkpoints may hold an integer.
        self.register_buffer('num_batches_tracked', torch.tensor(0, dtype=torch.long))

    @property
    def is_ready(self) -> bool:
        """Whether there is a codebook: trained, loaded or begun at random."""
        return bool(self.embedding.initted)

    def forward(self, z_BNd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantizes tokens; in training also moves the codebook.

        Args:
            z_BNd: Float (B, N, d), of any length each.

        Returns:
            The codes in the tokens' places, float32 (B, N, d), with the tokens' gradient; the commitment loss, a
            scalar; and the indices, int64 (B, N), 0..K-1.
        """
        with torch.autocast(z_BNd.device.type, enabled=False):
            z_BNd = F.normalize(z_BNd.float(), dim=-1)
            tokens_Td = z_BNd.detach().flatten(0, 1)
            if self.training and not self.is_ready:
                self._start(tokens_Td)
            codes_T = self.nearest(tokens_Td)
            # Before the codebook moves: the loss compares with the codes that were chosen.
            quantized_BNd = self.embedding.weight[codes_T].view_as(z_BNd)
            loss = self.commitment * F.mse_loss(z_BNd, quantized_BNd)
            if self.training:
                self._follow(tokens_Td, codes_T)
            return z_BNd + (quantized_BNd - z_BNd).detach(), loss, codes_T.view(z_BNd.shape[:2])

    @torch.no_grad()
    def nearest(self, tokens_Td: Tensor) -> Tensor:
        """Indices of the nearest codes, int64 (T,), of float32 unit tokens (T, d)."""
        # Among unit vectors the nearest is the one of the largest product.
        codebook_dK = self.embedding.weight.t()
        return torch.cat([(part @ codebook_dK).argmax(dim=1) for part in tokens_Td.split(_CHUNK)])

    @torch.no_grad()
    def _follow(self, tokens_Td: Tensor, codes_T: Tensor) -> None:
        """One step of the moving averages."""
        counts_K, sums_Kd = _totals(tokens_Td, codes_T, self.num_codes)
        weight = self.embedding.weight
        means_Kd = F.normalize(sums_Kd / counts_K.clamp(min=1)[:, None], dim=-1)
        means_Kd = torch.where(counts_K[:, None] > 0, means_Kd, weight)
        weight.copy_(F.normalize(weight * self.decay + means_Kd * (1 - self.decay), dim=-1))
        self.cluster_size.mul_(self.decay).add_(counts_K, alpha=1 - self.decay)
        self.num_batches_tracked += 1
        if self.restart_below > 0:
            self._restart(tokens_Td)

    def _restart(self, tokens_Td: Tensor) -> None:
        mean = self.cluster_size.mean()
        dead = (self.cluster_size < self.restart_below * mean).nonzero().flatten()
        if len(dead):  # The same in every process: all take part in the gathering.
            self.embedding.weight[dead] = self._draw(_of_all_processes(tokens_Td), len(dead))
            # A whole mean use as credit: a code that nothing chooses is dead again after log(restart_below) /
            # log(decay) steps, 458 by default.
            self.cluster_size[dead] = mean

    def _start(self, tokens_Td: Tensor) -> None:
        """Spherical k-means on the batch of all processes."""
        tokens_Td = _of_all_processes(tokens_Td)
        centres_Kd = self._draw(tokens_Td, self.num_codes)
        self.embedding.weight.copy_(centres_Kd)
        for _ in range(self.kmeans_iters):
            # Every process has all tokens here, so nothing is summed over processes.
            codes_T = self.nearest(tokens_Td)
            counts_K, sums_Kd = _local_totals(tokens_Td, codes_T, self.num_codes)
            means_Kd = torch.where(counts_K[:, None] > 0, sums_Kd, self.embedding.weight)
            self.embedding.weight.copy_(F.normalize(means_Kd, dim=-1))
            self.cluster_size.copy_(counts_K)
        self.embedding.initted.fill_(1.0)

    def _draw(self, tokens_Td: Tensor, count: int) -> Tensor:
        """Random tokens (count, d), each once while there are enough."""
        generator = torch.Generator().manual_seed(int(self.num_batches_tracked))
        total = len(tokens_Td)
        if total >= count:
            chosen = torch.randperm(total, generator=generator)[:count]
        else:
            chosen = torch.randint(total, (count,), generator=generator)
        return tokens_Td[chosen.to(tokens_Td.device)]


def usage(codes: Tensor, num_codes: int) -> tuple[float, float]:
    """How much of a codebook some tokens use.

    Args:
        codes: Int64, any shape, 0..K-1.
        num_codes: K.

    Returns:
        Share of the codes that occur, 0..1; and the perplexity, 1..K: K if all occur equally often.
    """
    share_K = torch.bincount(codes.flatten(), minlength=num_codes).double() / max(codes.numel(), 1)
    entropy = -torch.special.xlogy(share_K, share_K).sum()
    return float((share_K > 0).double().mean()), float(entropy.exp())


def _local_totals(tokens_Td: Tensor, codes_T: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    counts_K = torch.bincount(codes_T, minlength=num_codes).to(tokens_Td.dtype)
    sums_Kd = tokens_Td.new_zeros(num_codes, tokens_Td.shape[1]).index_add_(0, codes_T, tokens_Td)
    return counts_K, sums_Kd


def _totals(tokens_Td: Tensor, codes_T: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Uses of each code (K,) and sums of the tokens that chose it (K, d), over all processes, in one reduction."""
    counts_K, sums_Kd = _local_totals(tokens_Td, codes_T, num_codes)
    both = torch.cat([counts_K[:, None], sums_Kd], dim=1)
    all_reduce(both)
    return both[:, 0], both[:, 1:]


def _of_all_processes(tokens_Td: Tensor) -> Tensor:
    return torch.cat(all_gather(tokens_Td.contiguous()))
