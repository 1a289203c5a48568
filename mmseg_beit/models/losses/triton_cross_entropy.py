"""Triton kernels of the upsampled cross-entropy: logits stay at their own resolution in memory, in both directions.

Forward, a program takes a run of pixels of one row, interpolates their logits a few classes at a time and keeps a
running maximum and sum (the online softmax, arXiv:1805.02867); per pixel only the log-sum-exp is written. Backward, a
program takes a run of *logits* of one row and gathers from the pixels that read them: no atomic additions, so the same
gradient at every run. All arithmetic is float32, whatever the logits are.

Shape suffixes: B images, K classes, h x w logits, H x W labels.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..layers.interpolation import interpolation_reads
from ..layers.kept import constant

# Pixels (backward: logits) and classes of one program: about 100 registers a thread, so that several share a processor.
_FORWARD_BLOCK = (32, 16)
_BACKWARD_BLOCK = (32, 16)


class _Axis(NamedTuple):
    """One axis of the upsampling, on the device: what pixels read, and by which pixels a logit is read."""

    left: Tensor
    """int32 (H,): the left one of the two logits that a pixel reads."""
    fraction: Tensor
    """float32 (H,): the weight of the right one."""
    first: Tensor
    """int32 (h,): the first pixel that may read a logit."""
    end: Tensor
    """int32 (h,): one past the last such pixel."""
    reach: int
    """The most pixels of any logit."""


@constant(maxsize=64)
def _axis(src: int, dst: int, align_corners: bool, device: torch.device) -> _Axis:
    left, fraction = interpolation_reads(src, dst, align_corners)
    logits = torch.arange(src)
    # Positions ascend: the readers of a logit are those with left == logit - 1 or left == logit.
    first = torch.searchsorted(left, logits - 1)
    end = torch.searchsorted(left, logits, right=True)
    reach = int((end - first).max())
    return _Axis(*(x.to(device) for x in (left.int(), fraction, first.int(), end.int())), reach)


@triton.jit
def _interpolate(top_left, top_right, bottom_left, bottom_right, down, right):
    """In the order of torch's kernel."""
    top = (1.0 - right) * top_left + right * top_right
    bottom = (1.0 - right) * bottom_left + right * bottom_right
    return (1.0 - down) * top + down * bottom


@triton.jit
def _pixel_weights(label, class_weight, num_classes, ignore_index, HAS_WEIGHT: tl.constexpr):
    """The weight of each pixel: 0 where ignored, not a number where the label is no class."""
    wrong = (label != ignore_index) & ((label < 0) | (label >= num_classes))
    counted = (label != ignore_index) & (wrong == 0)
    if HAS_WEIGHT:
        weight = tl.load(class_weight + label, mask=counted, other=0.0).to(tl.float32)
    else:
        weight = tl.where(counted, 1.0, 0.0)
    return tl.where(wrong, float('nan'), weight)


@triton.jit
def forward_kernel(
    logits, labels, class_weight, losses, hits, logsumexp, rows_left, rows_fraction, cols_left, cols_fraction,
    num_classes, h, w, height, width, ignore_index, stride_b, stride_k, stride_y, stride_x,
    HAS_WEIGHT: tl.constexpr, PIXELS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Loss and right pixels of each run of pixels, (B, H, runs), and each pixel's log-sum-exp (B, H, W)."""
    y = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    x = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = x < width
    top = tl.load(rows_left + y)
    down = tl.load(rows_fraction + y)
    bottom = tl.minimum(top + 1, h - 1)
    left = tl.load(cols_left + x, mask=inside, other=0)
    to_right = tl.load(cols_fraction + x, mask=inside, other=0.0)[:, None]
    right = tl.minimum(left + 1, w - 1)
    pixel = (image * height + y) * width + x
    label = tl.load(labels + pixel, mask=inside, other=ignore_index)
    image_logits = logits + image * stride_b
    at_top_left = image_logits + (top * stride_y + left * stride_x)[:, None]
    at_top_right = image_logits + (top * stride_y + right * stride_x)[:, None]
    at_bottom_left = image_logits + (bottom * stride_y + left * stride_x)[:, None]
    at_bottom_right = image_logits + (bottom * stride_y + right * stride_x)[:, None]

    highest = tl.full([PIXELS], float('-inf'), tl.float32)
    total = tl.zeros([PIXELS], tl.float32)
    picked = tl.zeros([PIXELS], tl.float32)
    for start in range(0, num_classes, CLASSES):
        k = start + tl.arange(0, CLASSES)
        mask = inside[:, None] & (k < num_classes)[None, :]
        at = (k * stride_k)[None, :]
        logit = _interpolate(
            tl.load(at_top_left + at, mask=mask, other=0.0).to(tl.float32),
            tl.load(at_top_right + at, mask=mask, other=0.0).to(tl.float32),
            tl.load(at_bottom_left + at, mask=mask, other=0.0).to(tl.float32),
            tl.load(at_bottom_right + at, mask=mask, other=0.0).to(tl.float32),
            down, to_right,
        )  # fmt: skip
        # Picked from the same values that the maximum is taken of, so that a right pixel is equal to it bit for bit.
        picked += tl.sum(tl.where(k[None, :] == label[:, None], logit, 0.0), axis=1)
        logit = tl.where((k < num_classes)[None, :], logit, float('-inf'))
        higher = tl.maximum(highest, tl.max(logit, axis=1))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(logit - higher[:, None]), axis=1)
        highest = higher
    pixel_logsumexp = highest + tl.log(total)
    tl.store(logsumexp + pixel, pixel_logsumexp, mask=inside)

    weight = _pixel_weights(label, class_weight, num_classes, ignore_index, HAS_WEIGHT)
    counted = inside & (label != ignore_index)
    loss = tl.where(counted, (pixel_logsumexp - picked) * weight, 0.0)
    hit = counted & (label >= 0) & (label < num_classes) & (picked >= highest)
    run = (image * height + y) * tl.num_programs(0) + tl.program_id(0)
    tl.store(losses + run, tl.sum(loss, axis=0))
    tl.store(hits + run, tl.sum(hit.to(tl.int32), axis=0))


@triton.jit
def backward_kernel(
    grad_loss, logits, labels, class_weight, logsumexp, grad,
    rows_left, rows_fraction, rows_first, rows_end, cols_left, cols_fraction, cols_first, cols_end,
    num_classes, h, w, height, width, ignore_index, reach, stride_b, stride_k, stride_y, stride_x,
    grad_stride_b, grad_stride_k, grad_stride_y, grad_stride_x,
    HAS_WEIGHT: tl.constexpr, LOGITS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """The loss's gradient with respect to the logits: softmax minus label, gathered through the interpolation."""
    class_blocks = tl.cdiv(num_classes, CLASSES)
    k = (tl.program_id(0) % class_blocks) * CLASSES + tl.arange(0, CLASSES)
    j = (tl.program_id(0) // class_blocks) * LOGITS + tl.arange(0, LOGITS)
    i = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    inside = j < w
    mask = inside[:, None] & (k < num_classes)[None, :]
    # The logit and its eight neighbours, all that the pixels around it read.
    block = logits + image * stride_b + (k * stride_k)[None, :]
    above, below = tl.maximum(i - 1, 0) * stride_y, tl.minimum(i + 1, h - 1) * stride_y
    at_left = (tl.maximum(j - 1, 0) * stride_x)[:, None]
    at_middle = (j * stride_x)[:, None]
    at_right = (tl.minimum(j + 1, w - 1) * stride_x)[:, None]
    middle = i * stride_y
    above_left = tl.load(block + above + at_left, mask=mask, other=0.0).to(tl.float32)
    above_middle = tl.load(block + above + at_middle, mask=mask, other=0.0).to(tl.float32)
    above_right = tl.load(block + above + at_right, mask=mask, other=0.0).to(tl.float32)
    middle_left = tl.load(block + middle + at_left, mask=mask, other=0.0).to(tl.float32)
    middle_middle = tl.load(block + middle + at_middle, mask=mask, other=0.0).to(tl.float32)
    middle_right = tl.load(block + middle + at_right, mask=mask, other=0.0).to(tl.float32)
    below_left = tl.load(block + below + at_left, mask=mask, other=0.0).to(tl.float32)
    below_middle = tl.load(block + below + at_middle, mask=mask, other=0.0).to(tl.float32)
    below_right = tl.load(block + below + at_right, mask=mask, other=0.0).to(tl.float32)

    first_x = tl.load(cols_first + j, mask=inside, other=0)
    end_x = tl.load(cols_end + j, mask=inside, other=0)
    total = tl.zeros([LOGITS, CLASSES], tl.float32)
    for y in range(tl.load(rows_first + i), tl.load(rows_end + i)):
        down = tl.load(rows_fraction + y)
        # A pixel's upper logit is this one or the one above; at the lower end the next is the same.
        from_here = tl.load(rows_left + y) == i
        weight_y = tl.where(from_here, 1.0 - down + tl.where(i == h - 1, down, 0.0), down)
        to_above = tl.where(from_here, 0.0, 1.0 - down)
        to_middle = tl.where(from_here, 1.0 - down, down)
        to_below = tl.where(from_here, down, 0.0)
        left = to_above * above_left + to_middle * middle_left + to_below * below_left
        center = to_above * above_middle + to_middle * middle_middle + to_below * below_middle
        right = to_above * above_right + to_middle * middle_right + to_below * below_right
        row = (image * height + y) * width
        for step in range(reach):
            x = first_x + step
            reads = x < end_x
            to_right = tl.load(cols_fraction + x, mask=reads, other=0.0)
            starts_here = tl.load(cols_left + x, mask=reads, other=0) == j
            label = tl.load(labels + row + x, mask=reads, other=ignore_index)
            # exp(-inf) = 0: pixels that are not there add nothing.
            pixel_logsumexp = tl.load(logsumexp + row + x, mask=reads, other=float('inf'))
            weight = _pixel_weights(label, class_weight, num_classes, ignore_index, HAS_WEIGHT)
            weight_x = tl.where(starts_here, 1.0 - to_right + tl.where(j == w - 1, to_right, 0.0), to_right)
            scale = tl.where(reads, weight_y * weight_x * weight, 0.0)
            logit = (
                tl.where(starts_here, 0.0, 1.0 - to_right)[:, None] * left
                + tl.where(starts_here, 1.0 - to_right, to_right)[:, None] * center
                + tl.where(starts_here, to_right, 0.0)[:, None] * right
            )
            share = tl.exp(logit - pixel_logsumexp[:, None]) - tl.where(k[None, :] == label[:, None], 1.0, 0.0)
            total += scale[:, None] * share
    total *= tl.load(grad_loss)
    at = image * grad_stride_b + i * grad_stride_y + (j * grad_stride_x)[:, None] + (k * grad_stride_k)[None, :]
    tl.store(grad + at, total.to(grad.dtype.element_ty), mask=mask)


def forward(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, align_corners: bool, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments of :func:`~.upsampled_cross_entropy.upsampled_cross_entropy`.

    Returns:
        The summed loss (float32 scalar; not a number where a label is neither a class nor ignored), the number of right
        pixels (int64 scalar), and the pixels' log-sum-exp, float32 (B, H, W).
    """
    batch, num_classes, h, w = logits.shape
    height, width = labels.shape[1:]
    pixels, classes = _FORWARD_BLOCK
    runs = triton.cdiv(width, pixels)
    losses = logits.new_empty(batch, height, runs, dtype=torch.float32)
    hits = logits.new_empty(batch, height, runs, dtype=torch.int32)
    logsumexp = logits.new_empty(batch, height, width, dtype=torch.float32)
    rows, cols = _axis(h, height, align_corners, logits.device), _axis(w, width, align_corners, logits.device)
    labels = labels.contiguous()
    forward_kernel[(runs, height, batch)](
        logits, labels, class_weight, losses, hits, logsumexp, rows.left, rows.fraction, cols.left, cols.fraction,
        num_classes, h, w, height, width, ignore_index, *logits.stride(),
        HAS_WEIGHT=class_weight is not None, PIXELS=pixels, CLASSES=classes,
    )  # fmt: skip
    return losses.sum(dtype=torch.float64).float(), hits.sum(), logsumexp


def backward(
    grad_loss: Tensor,
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    logsumexp: Tensor,
    align_corners: bool,
    ignore_index: int,
) -> Tensor:
    """Gradient (B, K, h, w) of the logits, in their dtype, from that of the loss (scalar)."""
    batch, num_classes, h, w = logits.shape
    height, width = labels.shape[1:]
    num_logits, classes = _BACKWARD_BLOCK
    grad = torch.empty_like(logits)
    rows, cols = _axis(h, height, align_corners, logits.device), _axis(w, width, align_corners, logits.device)
    grid = (triton.cdiv(w, num_logits) * triton.cdiv(num_classes, classes), h, batch)
    backward_kernel[grid](
        grad_loss, logits, labels.contiguous(), class_weight, logsumexp, grad,
        rows.left, rows.fraction, rows.first, rows.end, cols.left, cols.fraction, cols.first, cols.end,
        num_classes, h, w, height, width, ignore_index, cols.reach, *logits.stride(), *grad.stride(),
        HAS_WEIGHT=class_weight is not None, LOGITS=num_logits, CLASSES=classes,
    )  # fmt: skip
    return grad
