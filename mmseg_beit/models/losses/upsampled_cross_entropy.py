"""Bilinear upsampling, cross-entropy and accuracy in one operation that never holds full-size logits.

For 150 classes at 512 x 512 the upsampled logits are 157 MB an image, and torch keeps their log-softmax as well. Here a
tile of pixels is upsampled at a time; the gradient with respect to the small logits is taken in the same pass, since
the loss is a sum over pixels. On a GPU where Triton works, kernels do the same without even a tile, see
:mod:`~mmseg_beit.models.losses.triton_cross_entropy`.

Shape suffixes: B images, K classes, h x w logits, H x W labels, R x C pixels of a tile.
"""

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers.interpolation import band, interpolation_matrix
from ..layers.triton_support import use_triton

# Upsampled logits of one tile: 4 MB in float32 fit a CPU's cache; on a GPU few large launches are better.
_CHUNK_LOGITS = {'cpu': 1 << 20, 'other': 1 << 26}


def upsampled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    align_corners: bool = False,
    ignore_index: int = 255,
    class_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of bilinearly upsampled logits, summed over pixels, and how many pixels are right.

    Args:
        logits: Float (B, K, h, w).
        labels: Int64 (B, H, W), 0..K-1, or ``ignore_index``.
        align_corners: Of the upsampling.
        ignore_index: Label of pixels that count for nothing.
        class_weight: Float (K,), weight of each class; ``None`` for 1.

    Returns:
        The sum of the pixels' weighted cross-entropies, float32 scalar, differentiable once with respect to ``logits``;
        and the number of pixels that are not ignored and whose label has the highest logit, int64 scalar.

    Raises:
        IndexError: A label is neither a class nor ``ignore_index``. On a GPU, where the check would wait for the
            device, the loss is not a number instead, or the device refuses the index.
    """
    if not labels.is_cuda and not torch.compiler.is_compiling():
        _check_labels(labels, logits.shape[1], ignore_index)
    operator = _kernel_cross_entropy if use_triton(logits) else _cross_entropy
    # Autocast would run the products inside in half precision.
    with torch.autocast(logits.device.type, enabled=False):
        loss, correct, _ = operator(logits, labels, class_weight, align_corners, ignore_index)
    return loss, correct


def _check_labels(labels: Tensor, num_classes: int, ignore_index: int) -> None:
    invalid = (labels != ignore_index) & ((labels < 0) | (labels >= num_classes))
    if bool(invalid.any()):
        raise IndexError(
            f'label {int(labels[invalid][0])} is neither one of the {num_classes} classes nor {ignore_index} (ignored)'
        )


@torch.library.custom_op('mmseg_beit::upsampled_cross_entropy', mutates_args=())
def _cross_entropy(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, align_corners: bool, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed loss, number of right pixels, and the loss's gradient, float32 (B, K, h, w)."""
    num_classes, h, w = logits.shape[1:]
    height, width = labels.shape[1:]
    device = logits.device
    row_tiles = _tiles(h, height, align_corners, num_classes, device)
    col_tiles = _tiles(w, width, align_corners, num_classes, device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    grad = torch.zeros(logits.shape[0], h, w, num_classes, device=device)
    # Classes last: softmax then runs along memory.
    small_BhwK = logits.detach().permute(0, 2, 3, 1).float().contiguous()
    for (out_y, in_y, rows), (out_x, in_x, cols) in product(row_tiles, col_tiles):
        for image, label, image_grad in zip(small_BhwK, labels[:, out_y, out_x], grad, strict=True):
            tall = torch.tensordot(rows, image[in_y, in_x], dims=1)  # (R, w', K)
            log_probs = F.log_softmax(torch.matmul(cols, tall), dim=-1)  # (R, C, K)
            valid = label != ignore_index
            target = label.where(valid, 0).unsqueeze(-1)
            picked = log_probs.gather(-1, target).squeeze(-1)
            weight = valid.float() if class_weight is None else class_weight.float()[target.squeeze(-1)] * valid
            loss -= (picked * weight).sum(dtype=torch.float64)
            correct += ((picked == log_probs.amax(-1)) & valid).sum()
            pixel_grad = log_probs.exp_()
            pixel_grad.scatter_add_(-1, target, picked.new_full((), -1.0).expand_as(target))
            pixel_grad *= weight.unsqueeze(-1)
            image_grad[in_y, in_x] += torch.tensordot(rows.t(), torch.matmul(cols.t(), pixel_grad), dims=1)
    return loss.float(), correct, grad.permute(0, 3, 1, 2).contiguous()


def _tiles(
    src: int, dst: int, align_corners: bool, num_classes: int, device: torch.device
) -> list[tuple[slice, slice, Tensor]]:
    """Cuts one axis into tiles: pixels of the tile, small pixels they are made of, and the matrix between the two."""
    matrix = interpolation_matrix(src, dst, align_corners)
    side = max(math.isqrt(_CHUNK_LOGITS.get(device.type, _CHUNK_LOGITS['other']) // num_classes), 1)
    tiles = []
    for start in range(0, dst, side):
        rows = matrix[start : start + side]
        first, last = band(rows)
        tiles.append((slice(start, start + len(rows)), slice(first, last), rows[:, first:last].to(device)))
    return tiles


@_cross_entropy.register_fake
def _(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, align_corners: bool, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    exact = torch.float32
    return (
        logits.new_empty((), dtype=exact),
        logits.new_empty((), dtype=torch.int64),
        torch.empty(logits.shape, dtype=exact, device=logits.device),
    )


def _setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.dtype = inputs[0].dtype
    ctx.save_for_backward(output[2])


def _backward(ctx, grad_loss: Tensor, *_: Tensor) -> tuple:
    (grad,) = ctx.saved_tensors
    return (grad * grad_loss).to(ctx.dtype), None, None, None, None


_cross_entropy.register_autograd(_backward, setup_context=_setup_context)


@torch.library.custom_op('mmseg_beit::kernel_cross_entropy', mutates_args=())
def _kernel_cross_entropy(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, align_corners: bool, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed loss, number of right pixels, and the pixels' log-sum-exp, float32 (B, H, W)."""
    from .triton_cross_entropy import forward

    with torch.cuda.device_of(logits):
        return forward(logits, labels, class_weight, align_corners, ignore_index)


@_kernel_cross_entropy.register_fake
def _(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, align_corners: bool, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    exact = torch.float32
    return (
        logits.new_empty((), dtype=exact),
        logits.new_empty((), dtype=torch.int64),
        logits.new_empty(labels.shape, dtype=exact),
    )


@torch.library.custom_op('mmseg_beit::kernel_cross_entropy_backward', mutates_args=())
def _kernel_cross_entropy_backward(
    grad_loss: Tensor,
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    logsumexp: Tensor,
    align_corners: bool,
    ignore_index: int,
) -> Tensor:
    """The logits' gradient, (B, K, h, w) of their dtype."""
    from .triton_cross_entropy import backward

    with torch.cuda.device_of(logits):
        return backward(grad_loss, logits, labels, class_weight, logsumexp, align_corners, ignore_index)


@_kernel_cross_entropy_backward.register_fake
def _(
    grad_loss: Tensor,
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    logsumexp: Tensor,
    align_corners: bool,
    ignore_index: int,
) -> Tensor:
    return torch.empty_like(logits)


def _kernel_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, labels, class_weight, ctx.align_corners, ctx.ignore_index = inputs
    ctx.save_for_backward(logits, labels, class_weight, output[2])


def _kernel_backward(ctx, grad_loss: Tensor, *_: Tensor) -> tuple:
    grad = _kernel_cross_entropy_backward(grad_loss, *ctx.saved_tensors, ctx.align_corners, ctx.ignore_index)
    return grad, None, None, None, None


_kernel_cross_entropy.register_autograd(_kernel_backward, setup_context=_kernel_context)
