"""Attention with a relative position bias on a CPU, without an N x N tensor that outlives a tile.

The bias of an (h, w) grid is Toeplitz in y, and each of its blocks is Toeplitz in x. With the keys in reverse order all
of it can be read from (w, (2h - 1) w) numbers a head by strides: the bias of the queries in row y of the grid is a
window of h w columns that begins at y w. For BEiT-B at 512 x 512 these are 3 MB a layer instead of 50 MB, so they
stay in the caches and can be kept for every layer.

Both passes run over tiles of scores, a few rows of queries of a few heads, as library calls: the window of the bias
copied, the product added, the softmax in place. The backward pass makes the weights of a tile again (as FlashAttention
does, arXiv:2205.14135, section 3.1) and adds the scores' gradient to the window it came from: no scatter.

Shape suffixes: B images, n heads, N tokens, d head width, r the tokens in reverse order (the class token last).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .position import NUM_CLS_ROWS

# Scores of one tile in bytes. Measured, BEiT-B, one layer forward on two cores: 512 x 512 in float32 24.3 ms with 4 MB
# and 24.6 ms with 8 MB, in bfloat16 16.2 and 15.7; 1024 x 1024 in float32 393 ms with 8 MB, 435 ms with 16.
_TILE_BYTES = 8 << 20


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
    return _attend(q_BnNd, k_BnNd, v_BnNd, table, h, w)


def attend(q_BnNd: Tensor, k_BnNd: Tensor, v_BnNd: Tensor, blocks: Tensor, cls_rows: Tensor, h: int, w: int) -> Tensor:
    """:func:`toeplitz_attention` from prepared parts of the table. Not differentiable.

    Args:
        q_BnNd: As there.
        k_BnNd: As there.
        v_BnNd: As there.
        blocks: (n, w, (2h - 1) w) from :func:`bias_blocks`.
        cls_rows: (3, n), the table's last rows.
        h: Patches in height.
        w: Patches in width.
    """
    out_BnNd = _empty_out(q_BnNd)
    k_Bnrd, v_Bnrd = k_BnNd.flip(2), v_BnNd.flip(2)
    scratch = _new_scratch(q_BnNd, h, w)
    for image, heads, rows in _tiles(q_BnNd, h, w):
        tokens = _tokens(rows, w)
        key, value = k_Bnrd[image, heads], v_Bnrd[image, heads]
        weights = _weights(q_BnNd[image, heads, tokens], key, blocks, cls_rows, heads, rows, scratch)
        out_BnNd[image, heads, tokens] = torch.bmm(weights, value)
    out_BnNd[:, :, :1] = _cls_weights(q_BnNd, k_Bnrd, cls_rows) @ v_Bnrd
    return out_BnNd


def bias_blocks(table: Tensor, h: int, w: int) -> Tensor:
    """What the bias between patches is read from: (R, n) to (n, w, (2h - 1) w).

    Row x is the place of a query in its row of the grid. Column (D, X) has D = y_query + (h - 1 - y_key) and
    X = w - 1 - x_key: for a query in row y the reversed keys are the columns from y w on.
    """
    offsets = table[:-NUM_CLS_ROWS].t().reshape(-1, 2 * h - 1, 2 * w - 1)
    return offsets.unfold(2, w, 1).transpose(1, 2).contiguous().view(-1, w, (2 * h - 1) * w)


def reduce_blocks(grad_blocks: Tensor, h: int, w: int) -> Tensor:
    """Adjoint of :func:`bias_blocks`, without the class token's rows: (n, w, (2h - 1) w) to (R - 3, n)."""
    heads = len(grad_blocks)
    grad_offsets = grad_blocks.new_zeros(heads, 2 * h - 1, 2 * w - 1)
    for x, of_x in enumerate(grad_blocks.view(heads, w, 2 * h - 1, w).unbind(1)):
        grad_offsets[:, :, x : x + w] += of_x
    return grad_offsets.flatten(1).t()


@torch.library.custom_op('mmseg_beit::toeplitz_attention', mutates_args=())
def _attend(q: Tensor, k: Tensor, v: Tensor, table: Tensor, h: int, w: int) -> Tensor:
    return attend(q, k, v, bias_blocks(table, h, w), table[-NUM_CLS_ROWS:], h, w)


def _empty_out(q: Tensor) -> Tensor:
    batch, heads, tokens, width = q.shape
    # Tokens before heads in memory: the output projection then reads (B, N, D) without a copy.
    return q.new_empty(batch, tokens, heads, width).transpose(1, 2)


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, table: Tensor, h: int, w: int) -> Tensor:
    return _empty_out(q)


@torch.library.custom_op('mmseg_beit::toeplitz_attention_backward', mutates_args=())
def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, out: Tensor, h: int, w: int
) -> tuple[Tensor, Tensor]:
    """Gradients of query, key and value together, (B, N, 3, n, d), and of the table, (R, n)."""
    grad_qkv, grad_table = _empty_grads(grad, q, k, v, table, out, h, w)
    grad_q, grad_k, grad_v = grad_qkv.permute(2, 0, 3, 1, 4).unbind(0)
    scale, patches = q.shape[-1] ** -0.5, h * w
    # Sums of up to a million terms are kept in float32 at least.
    exact = torch.promote_types(q.dtype, torch.float32)
    blocks, cls_rows = bias_blocks(table, h, w), table[-NUM_CLS_ROWS:]
    grad_blocks, grad_cls_rows = torch.zeros_like(blocks, dtype=exact), torch.zeros_like(cls_rows, dtype=exact)
    k_Bnrd, v_Bnrd = k.flip(2), v.flip(2)
    # The row sums of weights times their gradient, without the weights.
    delta = (grad * out).sum(-1, keepdim=True, dtype=exact)

    # The class token's query first: it fills the sums that the tiles add to.
    weights, query, grad_out = _cls_weights(q, k_Bnrd, cls_rows), q[:, :, :1], grad[:, :, :1]
    grad_scores = (grad_out @ v_Bnrd.transpose(2, 3)).sub_(delta[:, :, :1]).mul_(weights)
    grad_q[:, :, :1] = (grad_scores @ k_Bnrd).mul_(scale)
    grad_k_Bnrd = (grad_scores.transpose(2, 3) @ query).mul_(scale)
    grad_v_Bnrd = weights.transpose(2, 3) @ grad_out
    grad_cls_rows[0] = grad_scores[..., :patches].sum((0, 2, 3), dtype=exact)
    grad_cls_rows[2] = grad_scores[..., patches].sum((0, 2), dtype=exact)

    scratch, grad_scratch = _new_scratch(q, h, w), _new_scratch(q, h, w)
    for image, heads, rows in _tiles(q, h, w):
        tokens = _tokens(rows, w)
        key, value = k_Bnrd[image, heads], v_Bnrd[image, heads]
        query, grad_out = q[image, heads, tokens], grad[image, heads, tokens]
        weights = _weights(query, key, blocks, cls_rows, heads, rows, scratch)
        grad_v_Bnrd[image, heads].baddbmm_(weights.transpose(1, 2), grad_out)
        grad_scores = grad_scratch[: weights.shape[0], : weights.shape[1]]
        torch.bmm(grad_out, value.transpose(1, 2), out=grad_scores)
        grad_scores.sub_(delta[image, heads, tokens]).mul_(weights)
        grad_q[image, heads, tokens] = torch.bmm(grad_scores, key).mul_(scale)
        grad_k_Bnrd[image, heads].baddbmm_(grad_scores.transpose(1, 2), query, alpha=scale)
        by_row = grad_scores.unflatten(1, (-1, w))
        for y, of_row in zip(range(rows.start, rows.stop), by_row.unbind(1), strict=True):
            grad_blocks[heads, :, y * w : y * w + patches] += of_row[..., :patches]
        grad_cls_rows[1, heads] += grad_scores[..., patches].sum(1, dtype=exact)
    grad_k.copy_(grad_k_Bnrd.flip(2))
    grad_v.copy_(grad_v_Bnrd.flip(2))
    torch.cat([reduce_blocks(grad_blocks, h, w), grad_cls_rows], out=grad_table)
    return grad_qkv, grad_table


@_attend_backward.register_fake
def _empty_grads(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, out: Tensor, h: int, w: int
) -> tuple[Tensor, Tensor]:
    batch, heads, tokens, width = q.shape
    return q.new_empty(batch, tokens, 3, heads, width), table.new_empty(table.shape)


def _tile_size(q: Tensor, h: int, w: int) -> tuple[int, int]:
    """Heads and rows of the grid in a tile: whole heads where they fit, else rows of one head."""
    heads, tokens = q.shape[1:3]
    row_bytes = w * tokens * q.itemsize
    return min(max(_TILE_BYTES // (h * row_bytes), 1), heads), min(max(_TILE_BYTES // row_bytes, 1), h)


def _new_scratch(q: Tensor, h: int, w: int) -> Tensor:
    """Room for the scores (c, R, N) of a tile."""
    heads, rows = _tile_size(q, h, w)
    return q.new_empty(heads, rows * w, q.shape[2])


def _tiles(q: Tensor, h: int, w: int) -> Iterator[tuple[int, slice, slice]]:
    """(image, heads, rows of the grid) of each tile."""
    heads, rows = _tile_size(q, h, w)
    for image in range(q.shape[0]):
        for head in range(0, q.shape[1], heads):
            for y in range(0, h, rows):
                yield image, slice(head, min(head + heads, q.shape[1])), slice(y, min(y + rows, h))


def _tokens(rows: slice, w: int) -> slice:
    """The tokens of some rows of patches."""
    return slice(1 + rows.start * w, 1 + rows.stop * w)


def _weights(
    query: Tensor, key: Tensor, blocks: Tensor, cls_rows: Tensor, heads: slice, rows: slice, scratch: Tensor
) -> Tensor:
    """Attention weights (c, R, N) of one tile, in `scratch`: queries (c, R, d), keys (c, N, d) in reverse order."""
    count, num_queries, width = query.shape
    w, num_columns = blocks.shape[1:]
    patches = key.shape[1] - 1
    scores = scratch[:count, :num_queries]
    shape, strides = (count, num_queries // w, w, patches), (w * num_columns, w, num_columns, 1)
    window = blocks.as_strided(shape, strides, blocks.storage_offset() + heads.start * strides[0] + rows.start * w)
    scores.unflatten(1, (-1, w))[..., :patches] = window
    scores[..., patches] = cls_rows[1, heads, None]
    scores.baddbmm_(query, key.transpose(1, 2), alpha=width**-0.5)
    return torch.softmax(scores, dim=-1, out=scores)


def _cls_weights(q: Tensor, k_Bnrd: Tensor, cls_rows: Tensor) -> Tensor:
    """Attention weights of the class token's query, (B, n, 1, N)."""
    scores = (q[:, :, :1] @ k_Bnrd.transpose(2, 3)).mul_(q.shape[-1] ** -0.5)
    scores[..., :-1] += cls_rows[0, :, None, None]
    scores[..., -1] += cls_rows[2, :, None]
    return scores.softmax(-1)


def _setup_context(ctx, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.h, ctx.w = inputs
    ctx.save_for_backward(*tensors, output)


def _backward(ctx, grad: Tensor) -> tuple:
    grad_qkv, grad_table = _attend_backward(grad, *ctx.saved_tensors, ctx.h, ctx.w)
    grad_q, grad_k, grad_v = grad_qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return grad_q, grad_k, grad_v, grad_table, None, None


_attend.register_autograd(_backward, setup_context=_setup_context)
