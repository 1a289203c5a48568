"""Attention with a relative position table that keeps no N x N tensor between forward and backward pass.

The forward pass is torch's fused CPU kernel where it serves, else plain products. The backward pass makes the attention
weights of a few (image, head) pairs at a time again from query, key, bias and the kept log-sum of each row (as
FlashAttention does, arXiv:2205.14135, section 3.1), and sums the scores' gradient straight into the table's.

Shape suffixes: B images, n heads, N tokens, d head width.
"""

import torch
from torch import Tensor

from .position import expand_table, reduce_bias

# Scores of one chunk: 4 MB in float32, which a CPU's outer cache holds through the six passes over them.
_CHUNK_SCORES = 1 << 20


def toeplitz_attention(q_BnNd: Tensor, k_BnNd: Tensor, v_BnNd: Tensor, table: Tensor, h: int, w: int) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias(table)) v over an (h, w) grid and a class token. Differentiable once.

    Args:
        q_BnNd: Float queries (B, n, N, d), N = 1 + h w.
        k_BnNd: Keys, likewise.
        v_BnNd: Values, likewise.
        table: Relative position table (R, n) of the grid, of the same dtype.
        h: Patches in height.
        w: Patches in width.

    Returns:
        Float (B, n, N, d), laid out in memory as (B, N, n, d).
    """
    return _attend(q_BnNd, k_BnNd, v_BnNd, table, h, w)[0]


@torch.library.custom_op('mmseg_beit::toeplitz_attention', mutates_args=())
def _attend(q: Tensor, k: Tensor, v: Tensor, table: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Output (B, n, N, d) and the log-sum-exp of each row of scores, float32 (B, n, N)."""
    out, logsumexp = _empty_outputs(q, k, v, table, h, w)
    scale = q.shape[-1] ** -0.5
    bias = expand_table(table, h, w)
    if q.device.type == 'cpu' and q.dtype in (torch.float32, torch.bfloat16):
        fused_out, fused_logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, False, attn_mask=bias.unsqueeze(0), scale=scale
        )
        out.copy_(fused_out)
        logsumexp.copy_(fused_logsumexp)
        return out, logsumexp
    for images, head in _chunks(q):
        scores = torch.matmul(q[images, head], k[images, head].transpose(1, 2)).mul_(scale).add_(bias[head])
        rows = scores.logsumexp(-1)
        logsumexp[images, head] = rows.to(logsumexp.dtype)
        out[images, head] = torch.matmul(scores.sub_(rows.unsqueeze(-1)).exp_(), v[images, head])
    return out, logsumexp


@_attend.register_fake
def _empty_outputs(q: Tensor, k: Tensor, v: Tensor, table: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    batch, heads, tokens, width = q.shape
    exact = torch.promote_types(q.dtype, torch.float32)
    # Tokens before heads in memory: the output projection then reads (B, N, D) without a copy.
    out = q.new_empty(batch, tokens, heads, width).transpose(1, 2)
    return out, q.new_empty(batch, heads, tokens, dtype=exact)


@torch.library.custom_op('mmseg_beit::toeplitz_attention_backward', mutates_args=())
def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, out: Tensor, logsumexp: Tensor, h: int, w: int
) -> tuple[Tensor, Tensor]:
    """Gradients of query, key and value together, (B, N, 3, n, d), and of the table, (R, n)."""
    grad_qkv, grad_table = _empty_grads(grad, q, k, v, table, out, logsumexp, h, w)
    grad_q, grad_k, grad_v = grad_qkv.permute(2, 0, 3, 1, 4).unbind(0)
    scale = q.shape[-1] ** -0.5
    # The row sums of weights times their gradient, without the weights.
    delta = (grad * out).sum(-1, dtype=logsumexp.dtype)
    grad_bias = q.new_empty(q.shape[2], q.shape[2], dtype=logsumexp.dtype)
    last_head = -1
    for images, head in _chunks(q):
        if head != last_head:
            if last_head >= 0:
                grad_table[:, last_head] = reduce_bias(grad_bias.unsqueeze(0), h, w)[:, 0]
            grad_bias.zero_()
            bias = expand_table(table[:, head : head + 1], h, w)
            last_head = head
        query = q[images, head] * scale
        key, value, grad_out = k[images, head].contiguous(), v[images, head].contiguous(), grad[images, head]
        weights = torch.baddbmm(bias, query, key.transpose(1, 2))
        weights = weights.sub_(logsumexp[images, head].unsqueeze(-1)).exp_()
        grad_v[images, head] = torch.bmm(weights.transpose(1, 2), grad_out)
        grad_scores = torch.bmm(grad_out, value.transpose(1, 2))
        grad_scores = grad_scores.sub_(delta[images, head].unsqueeze(-1)).mul_(weights)
        grad_q[images, head] = torch.bmm(grad_scores, key).mul_(scale)
        grad_k[images, head] = torch.bmm(grad_scores.transpose(1, 2), query)
        for image_grad in grad_scores:
            grad_bias += image_grad
    grad_table[:, last_head] = reduce_bias(grad_bias.unsqueeze(0), h, w)[:, 0]
    return grad_qkv, grad_table


@_attend_backward.register_fake
def _empty_grads(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, out: Tensor, logsumexp: Tensor, h: int, w: int
) -> tuple[Tensor, Tensor]:
    batch, heads, tokens, width = q.shape
    return q.new_empty(batch, tokens, 3, heads, width), torch.empty_like(table)


def _chunks(q: Tensor) -> list[tuple[slice, int]]:
    """(images, head) pairs, head by head, whose scores together stay within the chunk."""
    batch, heads, tokens, _ = q.shape
    size = max(_CHUNK_SCORES // tokens**2, 1)
    return [(slice(start, start + size), head) for head in range(heads) for start in range(0, batch, size)]


def _setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.h, ctx.w = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx, grad: Tensor, _: Tensor) -> tuple:
    grad_qkv, grad_table = _attend_backward(grad, *ctx.saved_tensors, ctx.h, ctx.w)
    grad_q, grad_k, grad_v = grad_qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return grad_q, grad_k, grad_v, grad_table, None, None


_attend.register_autograd(_backward, setup_context=_setup_context)
