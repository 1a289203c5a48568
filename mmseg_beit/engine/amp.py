"""Mixed precision on every device."""

from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper as _AmpOptimWrapper
from mmengine.optim import OptimWrapper

from ..errors import InputError
from ..registry import OPTIM_WRAPPERS


def default_amp_dtype() -> str:
    """The half precision to use when none is asked for.

    Returns:
        ``'bfloat16'`` on a CPU and on GPUs that compute in it, else ``'float16'``.
    """
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        return 'float16'
    return 'bfloat16'


AMP_CHOICES = ('auto', 'bf16', 'fp16')


def amp_dtype(amp: str, device: str) -> torch.dtype:
    """What ``--amp`` means for predictions.

    Args:
        amp: One of :data:`AMP_CHOICES`; ``'auto'`` for :func:`default_amp_dtype`.
        device: Kind of the device, ``'cpu'`` or ``'cuda'``.

    Returns:
        The type of the products.

    Raises:
        InputError: Another value, or float16 on a CPU.
    """
    if amp not in AMP_CHOICES:
        raise InputError(f'amp={amp!r} is unknown: use one of {", ".join(AMP_CHOICES)}')
    if device == 'cpu':
        if amp == 'fp16':
            raise InputError('--amp fp16 needs a GPU: use --amp bf16')
        return torch.bfloat16
    return getattr(torch, {'bf16': 'bfloat16', 'fp16': 'float16'}.get(amp) or default_amp_dtype())


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(_AmpOptimWrapper):
    """mmengine's wrapper, which also runs bfloat16 on a CPU and without a loss scaler.

    bfloat16 has the exponent range of float32, so gradients do not underflow and scaling them only costs time.

    Args:
        loss_scale: Scale for float16, as mmengine's; not used for bfloat16.
        dtype: ``'bfloat16'`` or ``'float16'`` or the torch type; ``None`` for :func:`default_amp_dtype`.
        **kwargs: Those of :class:`mmengine.optim.OptimWrapper`.

    Raises:
        InputError: float16 is asked for where there is no GPU.
    """

    def __init__(
        self, loss_scale: str | float | dict = 'dynamic', dtype: str | torch.dtype | None = None, **kwargs: Any
    ) -> None:
        dtype = dtype or default_amp_dtype()
        if dtype not in ('bfloat16', torch.bfloat16):
            if not torch.cuda.is_available():
                raise InputError(f'optim_wrapper.dtype={dtype} needs a GPU and there is none: use --amp bf16')
            super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)
            return
        # mmengine's own constructor refuses machines without a GPU; a disabled scaler passes everything through.
        OptimWrapper.__init__(self, **kwargs)
        self.cast_dtype = torch.bfloat16
        self.loss_scaler = torch.amp.GradScaler(device='cpu', enabled=False)
        self._scale_update_param = None
