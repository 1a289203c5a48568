"""Folding what follows a convolution into it, for inference, and taking it back.

A batch norm that uses its running statistics scales and shifts each channel: it becomes part of a small convolution
before it. Behind a larger kernel it becomes a scale and a shift in place, which take no longer than the bias that the
folded convolution would add, and no second copy of weights that are most of a head's. A 1x1 convolution of a map that a
transposed convolution has just made becomes part of that one (BEiT's pyramid ends its two finer levels so, and UPerHead
begins them with a 1x1 convolution: a tenth of the head's products).

On a CPU, weights whose products are taken before a resizing are laid out in memory as those products read them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import UPerHead
from mmseg.models.necks import Feature2Pyramid
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers.taps import in_order_of_taps
from ..layers.tracing import is_exporting


class ChannelAffine(nn.Module):
    """A batch norm with running statistics as a scale and a shift of each channel, in place where nothing forbids it.

    Args:
        norm: The batch norm.
        dtype: Of scale and shift.
    """

    def __init__(self, norm: _BatchNorm, dtype: torch.dtype) -> None:
        super().__init__()
        scale, shift = _scale_and_shift(norm)
        self.register_buffer('scale', scale.to(dtype)[:, None, None])
        self.register_buffer('shift', shift.to(dtype)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Float (B, C, H, W) to the same; ``x`` is overwritten in prediction."""
        scale, shift = self.scale.to(x.dtype), self.shift.to(x.dtype)
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_exporting():
            return torch.addcmul(shift, x, scale)
        return torch.addcmul(shift, x, scale, out=x)


class Fusible:
    """Gives a module ``fuse()`` and ``unfuse()``. Stands before the module's class in the bases.

    The fused module gives the same numbers to rounding with fewer passes over its maps. The original tensors are kept
    beside those that replace them, so that ``unfuse()`` restores every bit. A fused module saves its original state,
    and going to training or loading a state unfuses it.
    """

    _originals: list[tuple[nn.Module, str, object]] | None = None
    _frozen: list[tuple[nn.Parameter, bool, tuple[int, ...]]]

    @property
    def is_fused(self) -> bool:
        """Whether the module is in its folded form."""
        return self._originals is not None

    @torch.no_grad()
    def fuse(self) -> 'Fusible':
        """Folds batch norms and 1x1 convolutions in place, puts the module in evaluation mode, and returns it."""
        if self.is_fused:
            return self
        self.eval()
        self._originals, self._frozen = [], []
        for module in list(self.modules()):
            if isinstance(module, ConvModule):
                self._fuse_conv_module(module)
            elif type(module) is nn.Sequential:
                self._fuse_sequential(module)
        if isinstance(getattr(self, 'neck', None), Feature2Pyramid):
            self._fuse_pyramid(self.neck, getattr(self, 'decode_head', None))
        for conv in [conv for module in self.modules() for conv in getattr(module, 'convs_of_resized', list)()]:
            self._lay_out(conv.weight)
        self._loading_hook = self._register_load_state_dict_pre_hook(self._unfuse_before_loading)
        return self

    def unfuse(self) -> 'Fusible':
        """Restores the original tensors and returns the module; it stays in evaluation mode."""
        for module, name, value in reversed(self._originals or []):
            setattr(module, name, value)
        if self.is_fused:
            self._loading_hook.remove()
            for weight, requires_grad, strides in reversed(self._frozen):  # A weight may be there twice.
                if weight.stride() != strides:
                    plain = torch.empty_strided(weight.shape, strides, dtype=weight.dtype, device=weight.device)
                    weight.data = plain.copy_(weight.data)
                weight.requires_grad_(requires_grad)
        self._originals = None
        return self

    def kept_tensors(self) -> list[Tensor]:
        """The original tensors of a fused module."""
        return [value for _, _, value in self._originals or [] if isinstance(value, Tensor)]

    def train(self, mode: bool = True) -> nn.Module:
        if mode:
            self.unfuse()
        return super().train(mode)

    def state_dict(self, *args, **kwargs) -> dict[str, Tensor]:
        with self._unfused():
            return super().state_dict(*args, **kwargs)

    def _apply(self, *args, **kwargs) -> nn.Module:
        with self._unfused():  # Moving or converting takes the originals along.
            return super()._apply(*args, **kwargs)

    @contextmanager
    def _unfused(self) -> Iterator[None]:
        was_fused = self.is_fused
        self.unfuse()
        try:
            yield
        finally:
            if was_fused:
                self.fuse()

    def _unfuse_before_loading(self, *args) -> None:
        self.unfuse()

    def _replace(self, module: nn.Module, name: str, value: object) -> None:
        self._originals.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    def _lay_out(self, weight: nn.Parameter) -> None:
        if weight.device.type != 'cpu':  # Elsewhere the plain convolution may be chosen, whose libraries have layouts.
            return
        self._freeze(weight)
        weight.data = in_order_of_taps(weight.data)

    def _freeze(self, weight: nn.Parameter) -> None:
        """What is made from a frozen weight, such as its bfloat16 form, is made once (see ``kept``)."""
        self._frozen.append((weight, weight.requires_grad, weight.stride()))
        weight.requires_grad_(False)

    def _set_conv(self, conv: nn.Module, weight: Tensor, bias: Tensor) -> None:
        self._replace(conv, 'weight', nn.Parameter(weight, requires_grad=False))
        self._replace(conv, 'bias', nn.Parameter(bias, requires_grad=False))

    def _fuse_norm(self, conv: nn.Module, norm: _BatchNorm) -> None:
        scale, bias = _scale_and_shift(norm)
        bias = bias if conv.bias is None else bias + conv.bias.double() * scale
        shape = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
        dtype = conv.weight.dtype
        self._set_conv(conv, (conv.weight.double() * scale.view(shape)).to(dtype), bias.to(dtype))

    def _fuse_conv_module(self, module: ConvModule) -> None:
        in_order = module.order.index('norm') == module.order.index('conv') + 1
        if not (module.with_norm and in_order and _foldable(module.conv, module.norm)) or module.with_spectral_norm:
            return
        if max(module.conv.kernel_size) > 1:
            self._freeze(module.conv.weight)
            self._replace(module, module.norm_name, ChannelAffine(module.norm, module.conv.weight.dtype))
        else:
            self._fuse_norm(module.conv, module.norm)
            self._replace(module, 'with_norm', False)

    def _fuse_sequential(self, sequence: nn.Sequential) -> None:
        for i in range(len(sequence) - 1):
            if _foldable(sequence[i], sequence[i + 1]):
                self._fuse_norm(sequence[i], sequence[i + 1])
                self._replace(sequence, str(i + 1), nn.Identity())

    def _fuse_pyramid(self, neck: Feature2Pyramid, head: nn.Module | None) -> None:
        """Folds the head's lateral convolutions into the transposed ones that make their maps."""
        if not isinstance(head, UPerHead):
            return
        # The neck's upsampled levels, finest first; the others are not made by a convolution.
        makers = [getattr(neck, name, None) for name in ('upsample_4x', 'upsample_2x')]
        lasts = [maker[-1] for maker in makers if maker is not None]
        for lateral, level in zip(head.lateral_convs, head.in_index[:-1], strict=True):
            plain = type(lateral.conv) is nn.Conv2d and lateral.order[0] == 'conv'
            if not 0 <= level < len(lasts) or head.in_index.count(level) > 1 or not plain:
                continue
            last = lasts[level]
            weight_om = lateral.conv.weight.double().flatten(1)
            weight = torch.einsum('cmyx,om->coyx', last.weight.double(), weight_om)
            bias = weight.new_zeros(len(weight_om)) if last.bias is None else weight_om @ last.bias.double()
            bias = bias if lateral.conv.bias is None else bias + lateral.conv.bias.double()
            dtype = last.weight.dtype
            self._set_conv(last, weight.to(dtype), bias.to(dtype))
            self._replace(lateral, 'conv', nn.Identity())
            if isinstance(getattr(lateral, 'activate', None), nn.ReLU):  # The neck's map is now this module's own.
                self._replace(lateral.activate, 'inplace', True)


def _scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """What a batch norm with its running statistics does to each channel, float64 (C,) each."""
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale.detach(), (shift if norm.bias is None else shift + norm.bias.double()).detach()


def _foldable(conv: nn.Module, norm: nn.Module) -> bool:
    plain = type(conv) in (nn.Conv2d, nn.ConvTranspose2d) and conv.groups == 1
    return plain and isinstance(norm, _BatchNorm) and norm.running_mean is not None
