"""Multi-head self-attention with a relative position bias (BEiT, section 2.3).

Parameter names are mmsegmentation's (``qkv``, ``q_bias``, ``v_bias``, ``relative_position_bias_table``, ``proj``), so
its checkpoints load unchanged. The key has no bias: softmax over keys cancels it.

Shape suffixes: B images, N tokens (class token first), D width, n heads, d head width.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .choice import choose
from .dynamic import OpenGridBias
from .flex import flex_attend
from .hardware import multiplies_bfloat16_by_vectors
from .linear import linear, linear_of
from .position import NUM_CLS_ROWS, Grid, num_relative_positions, relative_position_bias, resize_relative_position_table
from .toeplitz_attention import attend, bias_blocks, toeplitz_attention
from .tracing import is_exporting, is_watched

ATTENTION_IMPLS = ('auto', 'sdpa', 'toeplitz', 'flex')

# On a GPU predictions go by the rule for this many calls with one shape (a BEiT-B makes 12 for a batch): compiling a
# kernel takes longer than a few pictures, each of a size of its own, could win back.
_PATIENCE = 600


class RelativePosition(nn.Module):
    """Holds a relative position table and gives its bias for any grid.

    In inference what was last made from the table is kept while neither weights nor grid change: the key holds the
    table's storage and version counter, which every in-place update (optimizer step, loading) advances. A training step
    makes its own.

    Args:
        grid: (h, w) patches the table is made for; ``None`` for no table.
        num_heads: Attention heads n.
    """

    def __init__(self, grid: Grid | None, num_heads: int) -> None:
        super().__init__()
        self.grid = grid
        if grid is not None:
            self.relative_position_bias_table = nn.Parameter(torch.zeros(num_relative_positions(grid), num_heads))
        self._kept: tuple[tuple, Any] | None = None
        self.open_bias: OpenGridBias | None = None
        """Set while a graph with open height and width is traced; makes the bias then."""

    @property
    def bias_needs_grad(self) -> bool:
        """Whether a backward pass will reach the table."""
        return torch.is_grad_enabled() and self.relative_position_bias_table.requires_grad

    def is_predicting(self, x: Tensor) -> bool:
        """Whether what is made from the table may be kept: no gradient is wanted, and no graph is being compiled."""
        return not (
            torch.compiler.is_compiling() or self.bias_needs_grad or (torch.is_grad_enabled() and x.requires_grad)
        )

    def table_for(self, grid: Grid, dtype: torch.dtype) -> Tensor:
        """Table (R, n) of ``dtype`` for an (h, w) grid. Differentiable."""
        return resize_relative_position_table(self.relative_position_bias_table, self.grid, grid).to(dtype)

    def bias_for(self, grid: Grid, dtype: torch.dtype) -> Tensor:
        """Bias (n, N, N) of ``dtype`` for an (h, w) grid. Differentiable; kept where no gradient is wanted."""
        if self.open_bias is not None:
            return self.open_bias(self.relative_position_bias_table.to(dtype), *grid)
        if self.bias_needs_grad or torch.compiler.is_compiling():
            return relative_position_bias(self.table_for(grid, dtype), grid)
        return self._keep('bias', grid, dtype, lambda table: relative_position_bias(table, grid))

    def blocks_for(self, grid: Grid, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What :func:`~.toeplitz_attention.attend` reads the bias of an (h, w) grid from. Kept, not differentiable."""

        def make(table: Tensor) -> tuple[Tensor, Tensor]:
            return bias_blocks(table, *grid), table[-NUM_CLS_ROWS:].clone()

        return self._keep('blocks', grid, dtype, make)

    def _keep(self, kind: str, grid: Grid, dtype: torch.dtype, make: Callable[[Tensor], Any]) -> Any:
        """``make`` of the table for a grid, kept until a key changes."""
        table = self.relative_position_bias_table
        version = None if table.is_inference() else table._version
        key = (kind, grid, dtype, table.device, id(table), table.data_ptr(), version)
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # Free the old one first.
            # A tensor born in inference mode could not take part in a later training step with a frozen table.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._kept = key, make(self.table_for(grid, dtype))
        return self._kept[1]

    def kept_tensors(self) -> list[Tensor]:
        """What is kept at present, see :func:`~.kept.held_bytes`."""
        return [] if self._kept is None else [*self._kept[1]] if isinstance(self._kept[1], tuple) else [self._kept[1]]

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles start without a kept bias."""
        return {**self.__dict__, '_kept': None}


class Attention(RelativePosition):
    """Self-attention over the tokens of an image, with its own relative position table or without one.

    Args:
        embed_dims: Width D, a multiple of ``num_heads``.
        num_heads: Heads n.
        grid: (h, w) patches of this layer's own relative position table; ``None`` for no table.
        qv_bias: Learnable biases for query and value.
        attn_drop_rate: Dropout of the attention weights, 0..1.
        proj_drop_rate: Dropout of the output, 0..1.
        impl: How scores meet their bias, all the same numbers to rounding. ``sdpa``: torch's
            ``scaled_dot_product_attention`` with the bias as a tensor. ``toeplitz``: our operator, which holds no N x N
            tensor, neither of bias nor of scores. ``flex``: torch's ``flex_attention``, which reads the table and never
            makes the bias; for GPUs (on a CPU torch offers it without gradients, for tests). ``auto``: on a CPU
            ``toeplitz``, with a few exceptions; on a GPU the faster one of ``flex`` and ``sdpa``, measured when a shape
            is first trained with or has been predicted with often, see :mod:`~.choice`. Where dropout is drawn, in
            exported graphs and without a table it is ``sdpa`` always.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        grid: Grid | None = None,
        qv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        impl: str = 'auto',
    ) -> None:
        super().__init__(grid, num_heads)
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.impl = impl
        if qv_bias:
            self.q_bias = nn.Parameter(torch.zeros(embed_dims))
            self.v_bias = nn.Parameter(torch.zeros(embed_dims))
        else:
            self.q_bias = self.v_bias = None
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=False)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop_rate)

    def forward(self, x_BND: Tensor, grid: Grid, shared: RelativePosition | None = None) -> Tensor:
        """Attends over all tokens.

        Args:
            x_BND: Float (B, N, D) with N = 1 + h w.
            grid: (h, w) patches of the images at hand.
            shared: The table of all layers, where this one has none of its own.

        Returns:
            Float (B, N, D).
        """
        qkv_bias = None
        if self.q_bias is not None:
            qkv_bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = linear_of(x_BND, self.qkv.weight, qkv_bias)
        q_BnNd, k_BnNd, v_BnNd = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

        position = self if self.grid is not None else shared
        dropout = self.attn_drop_rate if self.training else 0.0
        impl = 'sdpa'
        if position is not None and dropout == 0.0 and not is_exporting():
            impl = self.impl if self.impl != 'auto' else _fastest_impl(position, q_BnNd, grid)
            if impl == 'flex' and is_watched():
                impl = 'sdpa'
        if impl == 'toeplitz' and position.is_predicting(q_BnNd):
            out_BnNd = attend(q_BnNd, k_BnNd, v_BnNd, *position.blocks_for(grid, q_BnNd.dtype), *grid)
        elif impl == 'toeplitz':
            out_BnNd = toeplitz_attention(q_BnNd, k_BnNd, v_BnNd, position.table_for(grid, q_BnNd.dtype), *grid)
        elif impl == 'flex':
            out_BnNd = flex_attend(q_BnNd, k_BnNd, v_BnNd, position.table_for(grid, torch.float32), *grid)
        else:
            bias = None if position is None else position.bias_for(grid, q_BnNd.dtype).unsqueeze(0)
            out_BnNd = _sdpa(q_BnNd, k_BnNd, v_BnNd, bias, dropout)
        return self.proj_drop(linear(self.proj, out_BnNd.transpose(1, 2).flatten(2)))


def _sdpa(q_BnNd: Tensor, k_BnNd: Tensor, v_BnNd: Tensor, bias: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Attention by those of torch's kernels that can do what is asked."""
    if bias is None or not q_BnNd.is_cuda or is_exporting():
        return F.scaled_dot_product_attention(q_BnNd, k_BnNd, v_BnNd, attn_mask=bias, dropout_p=dropout)
    # NOTE(torch): since 2.11 cuDNN's kernel comes first on Hopper, though it has no gradient for a bias and raises
    # (seen in 2.11 and 2.14), and may give queries a gradient that is no number beside one (pytorch/pytorch#196678). In
    # prediction it makes a plan for each new number of tokens, which takes longer than a picture.
    if torch.is_grad_enabled() and bias.requires_grad and not q_BnNd.requires_grad:
        # NOTE(torch): where the bias alone takes a gradient, as behind frozen weights, the backward pass of the
        # memory-efficient kernel reads what the forward pass left out, and faults (pytorch/pytorch#148476).
        q_BnNd = q_BnNd.detach().requires_grad_()
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        return F.scaled_dot_product_attention(q_BnNd, k_BnNd, v_BnNd, attn_mask=bias, dropout_p=dropout)


def _fastest_impl(position: RelativePosition, q: Tensor, grid: Grid) -> str:
    """What ``auto`` means for one call.

    On a CPU torch's kernel has no gradient for a bias and falls back to naive products, which keep 200 MB a layer for
    BEiT-B at 512 x 512 and 2 images. In prediction it takes a twentieth less time than our operator and keeps 50 MB of
    bias a layer for it, where ours keeps 3; in bfloat16 by vectors ours takes two thirds of its time, on a matrix unit
    torch's is the one to take. With a frozen table its backward pass serves.
    """
    training = position.bias_needs_grad
    if q.device.type == 'cpu':
        frozen = torch.is_grad_enabled() and q.requires_grad and not training
        slow_half = q.dtype in (torch.bfloat16, torch.float16) and not training and not multiplies_bfloat16_by_vectors()
        return 'sdpa' if frozen or slow_half else 'toeplitz'
    if q.device.type != 'cuda' or torch.compiler.is_compiling():
        return 'sdpa'
    key = ('attention', tuple(q.shape), tuple(grid), q.dtype, 'training' if training else 'prediction', str(q.device))
    candidates = {impl: partial(trial, impl, q.shape, grid, q.dtype, q.device, training) for impl in ('flex', 'sdpa')}
    return choose(key, candidates, q.device, rule='sdpa', patience=0 if training else _PATIENCE)


def trial(
    impl: str, shape: torch.Size, grid: Grid, dtype: torch.dtype, device: torch.device, training: bool
) -> Callable[[], object]:
    """What a measurement runs: one implementation on random tensors laid out as :meth:`Attention.forward` has them.

    Args:
        impl: ``sdpa``, ``toeplitz`` or ``flex``.
        shape: (B, n, N, d) of the queries.
        grid: (h, w) patches, N = 1 + h w.
        dtype: Of queries, keys and values.
        device: Where they lie.
        training: Whether gradients for them and the table are taken; else the bias is made once, as a model keeps it.

    Returns:
        The function to time; it gives the output (B, n, N, d) and in training the gradients.
    """
    batch, heads, tokens, width = shape
    generator = torch.Generator(device).manual_seed(0)
    qkv = torch.randn(batch, tokens, 3, heads, width, dtype=dtype, device=device, generator=generator)
    position = RelativePosition(grid, heads).to(device)
    grad_BnNd = qkv[:, :, 0].clone().transpose(1, 2)
    table = nn.init.normal_(position.relative_position_bias_table, generator=generator)
    qkv.requires_grad_(training)
    table.requires_grad_(training)

    def run() -> tuple[Tensor, ...]:
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if impl == 'sdpa':
            out = _sdpa(q, k, v, position.bias_for(grid, dtype).unsqueeze(0))
        elif impl == 'flex':
            out = flex_attend(q, k, v, position.table_for(grid, torch.float32), *grid)
        else:
            out = toeplitz_attention(q, k, v, position.table_for(grid, dtype), *grid)
        return (out.detach(), *torch.autograd.grad(out, (qkv, table), grad_BnNd)) if training else (out,)

    if training:
        return run
    return torch.no_grad()(run)
