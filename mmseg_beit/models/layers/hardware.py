"""What the processor at hand can do."""

from functools import lru_cache

import torch


@lru_cache
def multiplies_bfloat16_by_vectors() -> bool:
    """Whether the CPU multiplies bfloat16 in vector units (AVX-512 BF16) and has no matrix unit (AMX).

    The rules for bfloat16 on a CPU were measured there. A matrix unit is so much faster at plain products that saving
    some of them would not pay.
    """
    has_matrix_unit = getattr(torch.cpu, '_is_amx_tile_supported', lambda: True)()
    return getattr(torch.cpu, '_is_avx512_bf16_supported', lambda: False)() and not has_matrix_unit
