"""What models with frozen parts share: keeping the parts out of checkpoints, and comparing codebook sizes."""

from typing import Any

from torch import Tensor, nn

from ...errors import InputError


def leave_out_of_state(model: nn.Module, prefix: str) -> None:
    """Keeps a frozen part of a model out of its state dict, in saving and in loading.

    Args:
        model: The model, changed.
        prefix: Begins the names of the part, such as ``teacher.``.
    """

    def drop(module: nn.Module, state_dict: dict, before: str, metadata: Any) -> None:
        for name in [name for name in state_dict if name.startswith(before + prefix)]:
            del state_dict[name]

    def forgive(module: nn.Module, incompatible: Any) -> None:
        missing = incompatible.missing_keys
        missing[:] = [name for name in missing if not name.startswith(prefix) and f'.{prefix}' not in name]

    model._register_state_dict_hook(drop)
    model.register_load_state_dict_post_hook(forgive)


def check_num_codes(weight: Tensor | None, num_codes: int, source: str) -> None:
    """Compares a tokenizer's file with its config.

    Args:
        weight: The tensor with one row per code; ``None`` where the file has none.
        num_codes: What the config says.
        source: Names the file.

    Raises:
        InputError: They differ.
    """
    if weight is not None and len(weight) != num_codes:
        raise InputError(
            f'tokenizer {source} has {len(weight)} codes but the config says {num_codes}: set num_codes={len(weight)} '
            f'in the tokenizer and num_embed={len(weight)} in the head'
        )
