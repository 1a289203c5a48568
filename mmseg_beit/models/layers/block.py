"""The transformer block of BEiT: pre-norm attention and MLP, each with layer scale and stochastic depth.

Parameter names are mmsegmentation's (``ln1``, ``ln2``, ``attn``, ``ffn.layers``, ``gamma_1``, ``gamma_2``).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .attention import Attention, RelativePosition
from .gelu_linear import gelu_linear
from .linear import linear
from .position import Grid


class DropPath(nn.Module):
    """Stochastic depth (arXiv:1603.09382): drops whole samples of a residual branch and scales up the others.

    It draws what mmcv's does, so that a seeded run drops the same samples.

    Args:
        drop_prob: Probability of dropping a sample, 0..1; 0 outside training.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Float (B, ...) to the same shape."""
        factor = self.factor(x, x.dtype)
        return x if factor is None else x * factor

    def factor(self, x: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What samples (B, ...) are multiplied by: (B, 1, ...), 0 or 1 / (1 - p); ``None`` where all are kept."""
        if self.drop_prob == 0.0 or not self.training:
            return None
        keep_prob = 1.0 - self.drop_prob
        draw = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), dtype=dtype, device=x.device)
        return (keep_prob + draw).floor() / keep_prob

    def extra_repr(self) -> str:
        """The drop probability, for printing."""
        return f'drop_prob={self.drop_prob:g}'


class FeedForward(nn.Module):
    """MLP applied to each token.

    Args:
        embed_dims: Width D of input and output.
        hidden_dims: Width of the hidden layers.
        num_fcs: Linear layers, at least two.
        act_layer: Makes the activation module.
        drop_rate: Dropout after each linear layer, 0..1.
    """

    def __init__(
        self,
        embed_dims: int,
        hidden_dims: int,
        num_fcs: int = 2,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = embed_dims
        for _ in range(num_fcs - 1):
            layers.append(nn.Sequential(nn.Linear(width, hidden_dims), act_layer(), nn.Dropout(drop_rate)))
            width = hidden_dims
        self.layers = nn.Sequential(*layers, nn.Linear(width, embed_dims), nn.Dropout(drop_rate))

    @property
    def output_projection(self) -> nn.Linear:
        """The last linear layer."""
        return self.layers[-2]

    def forward(self, x_BND: Tensor) -> Tensor:
        """Float (B, N, D) to the same shape."""
        *stages, (first, act, inner_drop), last, drop = self.layers
        for stage in stages:
            x_BND = stage(x_BND)
        exact_gelu = type(act) is nn.GELU and act.approximate == 'none' and type(last) is nn.Linear
        if exact_gelu and not torch.is_grad_enabled():
            return drop(linear(last, inner_drop(linear(first, x_BND, gelu=True))))
        hidden = first(x_BND)
        # A compiler decides by itself what to keep.
        if exact_gelu and inner_drop.p == 0 and hidden.requires_grad and not torch.compiler.is_compiling():
            return drop(gelu_linear(hidden, last.weight, last.bias))
        return drop(last(inner_drop(act(hidden))))


class TransformerBlock(nn.Module):
    """x + gamma_1 attention(norm(x)), then x + gamma_2 mlp(norm(x)).

    Args:
        embed_dims: Width D.
        num_heads: Attention heads n.
        hidden_dims: Hidden width of the MLP.
        grid: (h, w) patches of the layer's own relative position table; ``None`` for no table.
        qv_bias: Learnable biases for query and value.
        attn_drop_rate: Dropout of the attention weights, 0..1.
        drop_path_rate: Stochastic depth of both branches, 0..1.
        init_values: Start value of the layer scales gamma (CaiT, arXiv:2103.17239); ``None`` for no layer scale.
        num_fcs: Linear layers of the MLP.
        norm_layer: Makes a normalisation of the given width.
        act_layer: Makes the activation module.
        attn_impl: How attention is computed, see :class:`~.attention.Attention`.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        hidden_dims: int,
        grid: Grid | None = None,
        qv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        init_values: float | None = 0.1,
        num_fcs: int = 2,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        attn_impl: str = 'auto',
    ) -> None:
        super().__init__()
        self.ln1 = norm_layer(embed_dims)
        self.attn = Attention(embed_dims, num_heads, grid, qv_bias, attn_drop_rate, impl=attn_impl)
        self.ln2 = norm_layer(embed_dims)
        self.ffn = FeedForward(embed_dims, hidden_dims, num_fcs, act_layer)
        self.drop_path = DropPath(drop_path_rate)
        if init_values is None:
            self.gamma_1 = self.gamma_2 = None
        else:
            self.gamma_1 = nn.Parameter(torch.full((embed_dims,), float(init_values)))
            self.gamma_2 = nn.Parameter(torch.full((embed_dims,), float(init_values)))

    def forward(self, x_BND: Tensor, grid: Grid, shared: RelativePosition | None = None) -> Tensor:
        """Float (B, N, D) to the same shape; arguments as in :class:`~.attention.Attention`."""
        x_BND = self._add(x_BND, self.gamma_1, self.attn(self.ln1(x_BND), grid, shared))
        return self._add(x_BND, self.gamma_2, self.ffn(self.ln2(x_BND)))

    def _add(self, x_BND: Tensor, gamma: Tensor | None, branch_BND: Tensor) -> Tensor:
        """Gives x + drop_path(gamma branch), on a GPU in one pass over the tokens instead of three."""
        if gamma is None:
            return x_BND + self.drop_path(branch_BND)
        if not x_BND.is_cuda:  # With the reference's rounding; there is a thousandth of a training step to gain.
            return x_BND + self.drop_path(gamma * branch_BND)
        factor = self.drop_path.factor(branch_BND, torch.promote_types(gamma.dtype, branch_BND.dtype))
        return torch.addcmul(x_BND, gamma if factor is None else gamma * factor, branch_BND)
