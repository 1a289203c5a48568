"""Batch norm over all processes on a CPU, where PyTorch's ``SyncBatchNorm`` refuses to run."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; what flows back is summed as well, as every process used the sum."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        total = x.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad


class CPUSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose mean and variance are those of the images of all processes together.

    Two reductions, of the mean and of the squared distances from it: the variance keeps its digits. Autograd goes
    through both. It replaces ``nn.SyncBatchNorm`` in runs of several processes on a CPU, which are for tests and small
    experiments: it is exact, not fast.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``x``.

        Args:
            x: float (B, C, ...).

        Returns:
            float (B, C, ...).
        """
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            use_batch = self.training or self.running_mean is None
            momentum = self._momentum() if use_batch else 0.0
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, use_batch, momentum, self.eps
            )
        self._check_input_dim(x)
        others = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        values = x.float()  # statistics in float32 under autocast too
        total = torch.tensor([values.numel() / values.shape[1]])
        dist.all_reduce(total)
        mean = _SumOverProcesses.apply(values.sum(others)) / total
        centred = values - mean.view(shape)
        var = _SumOverProcesses.apply(centred.square().sum(others)) / total
        self._update_running(mean.detach(), var.detach() * total / (total - 1))
        normalised = centred * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(x.dtype)

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f'batch norm takes (B, C, ...), not {tuple(x.shape)}')

    def _momentum(self) -> float:
        if not self.track_running_stats:
            return 0.0
        self.num_batches_tracked.add_(1)
        return self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, var: Tensor) -> None:
        momentum = self._momentum()
        if self.track_running_stats:
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var, momentum)


def replace_sync_batch_norm(model: nn.Module) -> int:
    """Replaces every ``nn.SyncBatchNorm`` in a model, which is changed, by :class:`CPUSyncBatchNorm`.

    Returns:
        How many were replaced.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.SyncBatchNorm)]
    for layer in layers:
        # Same parameters, buffers and names; only the forward differs.
        layer.__class__ = CPUSyncBatchNorm
    return len(layers)
