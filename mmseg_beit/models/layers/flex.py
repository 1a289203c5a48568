"""Attention with a relative position table through torch's ``flex_attention``: no N x N tensor in either direction.

The score function reads the table by the offset of query and key, so the bias never exists. On a GPU it is compiled
into one kernel for each direction; the table's gradient is summed by atomic additions there, so its last bits differ
between runs. On a CPU torch runs it unfused and forward only: for tests.

Shape suffixes: B images, n heads, N tokens, d head width.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from ...errors import InputError
from .kept import constant
from .position import NUM_CLS_ROWS


def flex_attend(q_BnNd: Tensor, k_BnNd: Tensor, v_BnNd: Tensor, table: Tensor, h: int, w: int) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias(table)) v over an (h, w) grid and a class token. Differentiable once, on CUDA.

    Args:
        q_BnNd: Float queries (B, n, N, d), N = 1 + h w.
        k_BnNd: Keys, likewise.
        v_BnNd: Values, likewise.
        table: Relative position table (R, n) of the grid; float32 whatever the others are, so that its gradient is
            summed in float32.
        h: Patches in height.
        w: Patches in width.

    Returns:
        Float (B, n, N, d).

    Raises:
        InputError: A gradient is wanted where torch has none, which is on a CPU.
    """
    # The class token's rows first: their places then hold for every grid, which a compiled kernel needs not know.
    table_nR = torch.cat([table[-NUM_CLS_ROWS:], table[:-NUM_CLS_ROWS]]).t().contiguous()
    places = _places(h, w, q_BnNd.device)
    compiled = q_BnNd.is_cuda and not torch.compiler.is_compiling()
    try:
        return (_compiled() if compiled else _attend)(q_BnNd, k_BnNd, v_BnNd, table_nR, *places)
    except NotImplementedError as error:
        if q_BnNd.is_cuda:
            raise
        raise InputError(
            "backbone.attn_impl='flex' trains on a GPU only, torch has no gradients for it here: set attn_impl='auto'"
        ) from error


def _attend(q: Tensor, k: Tensor, v: Tensor, table_nR: Tensor, query_place: Tensor, key_place: Tensor) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    def add_bias(score: Tensor, image: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = torch.where(key == 0, 1, query_place[query] - key_place[key])
        row = torch.where(query == 0, (key == 0).to(row.dtype) * 2, row)
        return score + table_nR[head, row]

    return flex_attention(q, k, v, score_mod=add_bias)


@lru_cache
def _compiled() -> Callable[..., Tensor]:
    # Sizes that change turn into symbols at the second one, so a stream of grids costs two compilations, not many.
    return torch.compile(_attend)


@constant(maxsize=64)
def _places(h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """int32 (N,) for queries and for keys, whose difference is the row of a patch offset behind the class token's."""
    y = torch.arange(h, dtype=torch.int32, device=device).unsqueeze(1)
    x = torch.arange(w, dtype=torch.int32, device=device)
    place = torch.nn.functional.pad((y * (2 * w - 1) + x).flatten(), (1, 0))
    # Offset (0, 0) stands in the middle of the table.
    return place + (NUM_CLS_ROWS + (h - 1) * (2 * w - 1) + w - 1), place
