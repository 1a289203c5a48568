"""What is made from a frozen tensor, kept as long as that lives and stays the same."""

from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

Made = TypeVar('Made')

_KEPT = WeakTensorKeyDictionary()


def kept(tensor: Tensor, name: Hashable, make: Callable[[], Made]) -> Made:
    """``make()``, remembered where ``tensor`` takes no gradient, as the tensors of ``fuse()`` do.

    The memory goes with the tensor: folded tensors end when a model is unfused. A change in place makes it anew; moving
    a model (``to``) changes storage and device, loading changes the version counter.

    Args:
        tensor: What the result depends on, and nothing else that changes.
        name: Tells the results of one tensor apart.
        make: Makes the result; runs without gradients.

    Returns:
        The result. Do not write into it.
    """
    if tensor.requires_grad or torch.compiler.is_compiling():
        return make()
    version = (tensor.device, tensor.data_ptr(), None if tensor.is_inference() else tensor._version)
    results = _KEPT.setdefault(tensor, {})
    if name not in results or results[name][0] != version:
        # A tensor born in inference mode could not take part in a later training step.
        with torch.inference_mode(mode=False), torch.no_grad():
            results[name] = version, make()
    return results[name][1]


def held_bytes(model: nn.Module) -> int:
    """Bytes of all tensors that a model holds: parameters, buffers, and what its layers keep to save work.

    A module tells the latter by a method ``kept_tensors``.
    """
    held = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        held += module.kept_tensors() if hasattr(module, 'kept_tensors') else []
    for tensor in list(held):
        held += [leaf for leaf in tree_leaves(list(_KEPT.get(tensor, {}).values())) if isinstance(leaf, Tensor)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in held}
    return sum(storages.values())
