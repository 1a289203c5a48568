"""Multi-head self-attention with a relative position bias (BEiT, section 2.3), and where that bias is kept.

Parameter names are mmsegmentation's (``qkv``, ``q_bias``, ``v_bias``, ``relative_position_bias_table``, ``proj``), so
its checkpoints load unchanged. The key has no bias: softmax over keys cancels it.

Shape suffixes: B images, N tokens (class token first), D width, n heads, d head width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .position import Grid, num_relative_positions, relative_position_bias, resize_relative_position_table


class KeptBias:
    """Builds the bias of a table for a grid and keeps the last one while neither weights nor grid change.

    Kept only where no gradient reaches the table; a training step builds its own. The key holds the table's storage and
    version counter, which every in-place update (optimizer step, loading) advances. Copies and pickles start empty.
    """

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._bias: Tensor | None = None

    def __call__(self, table: Tensor, table_grid: Grid, grid: Grid, dtype: torch.dtype) -> Tensor:
        """Bias (n, N, N) of ``dtype`` for ``grid``, from a table (R, n) made for ``table_grid``."""
        needs_grad = torch.is_grad_enabled() and table.requires_grad
        if needs_grad or torch.compiler.is_compiling():
            return self._build(table, table_grid, grid, dtype)
        version = None if table.is_inference() else table._version
        key = (grid, dtype, table.device, id(table), table.data_ptr(), version)
        if key != self._key:
            self._bias = None  # Free the old one first.
            # A tensor born in inference mode could not take part in a later training step with a frozen table.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._bias = self._build(table, table_grid, grid, dtype)
            self._key = key
        return self._bias

    @staticmethod
    def _build(table: Tensor, table_grid: Grid, grid: Grid, dtype: torch.dtype) -> Tensor:
        table = resize_relative_position_table(table, table_grid, grid)
        return relative_position_bias(table.to(dtype), grid)

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptBias, ()


class SharedRelativePositionBias(nn.Module):
    """One relative position table for all layers, as in pre-training.

    Args:
        grid: (h, w) patches the table is made for.
        num_heads: Attention heads n.
    """

    def __init__(self, grid: Grid, num_heads: int) -> None:
        super().__init__()
        self.grid = grid
        self.relative_position_bias_table = nn.Parameter(torch.zeros(num_relative_positions(grid), num_heads))
        self._kept = KeptBias()

    def forward(self, grid: Grid, dtype: torch.dtype) -> Tensor:
        """Bias (n, N, N) of ``dtype`` for an (h, w) grid."""
        return self._kept(self.relative_position_bias_table, self.grid, grid, dtype)


class Attention(nn.Module):
    """Self-attention over the tokens of an image, with its own relative position table or without one.

    Args:
        embed_dims: Width D, a multiple of ``num_heads``.
        num_heads: Heads n.
        grid: (h, w) patches of this layer's own relative position table; ``None`` for no table.
        qv_bias: Learnable biases for query and value.
        attn_drop_rate: Dropout of the attention weights, 0..1.
        proj_drop_rate: Dropout of the output, 0..1.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        grid: Grid | None = None,
        qv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.grid = grid
        self.attn_drop_rate = attn_drop_rate
        if qv_bias:
            self.q_bias = nn.Parameter(torch.zeros(embed_dims))
            self.v_bias = nn.Parameter(torch.zeros(embed_dims))
        else:
            self.q_bias = self.v_bias = None
        if grid is not None:
            self.relative_position_bias_table = nn.Parameter(torch.zeros(num_relative_positions(grid), num_heads))
            self._kept = KeptBias()
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=False)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop_rate)

    def forward(self, x_BND: Tensor, grid: Grid, shared_bias: Tensor | None = None) -> Tensor:
        """Attends over all tokens.

        Args:
            x_BND: Float (B, N, D) with N = 1 + h w.
            grid: (h, w) patches of the images at hand.
            shared_bias: Float (n, N, N) added to the scores of every layer; ``None`` for none.

        Returns:
            Float (B, N, D).
        """
        qkv_bias = None
        if self.q_bias is not None:
            qkv_bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x_BND, self.qkv.weight, qkv_bias)
        q_BnNd, k_BnNd, v_BnNd = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

        bias = shared_bias
        if self.grid is not None:
            own = self._kept(self.relative_position_bias_table, self.grid, grid, q_BnNd.dtype)
            bias = own if bias is None else bias + own
        out_BnNd = F.scaled_dot_product_attention(
            q_BnNd,
            k_BnNd,
            v_BnNd,
            attn_mask=None if bias is None else bias.unsqueeze(0),
            dropout_p=self.attn_drop_rate if self.training else 0.0,
        )
        return self.proj_drop(self.proj(out_BnNd.transpose(1, 2).flatten(2)))
