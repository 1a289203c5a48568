"""What is made once: from a frozen tensor, kept as long as that lives and stays the same, or from a few numbers."""

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from .tracing import is_watched

Made = TypeVar('Made')
Arguments = ParamSpec('Arguments')

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


def constant(
    maxsize: int,
) -> Callable[[Callable[Arguments, Made]], Callable[Arguments, Made]]:
    """Lets a function remember the tensors that follow from its arguments, which must be hashable.

    Whoever asks first, they are ordinary tensors: usable in training after a call in inference mode, on the CPU unless
    the function names a device. Nothing is remembered in graphs and under dispatch modes: of fake tensors, say.

    Args:
        maxsize: How many results are kept.
    """

    def decorate(function: Callable[Arguments, Made]) -> Callable[Arguments, Made]:
        @lru_cache(maxsize)
        def make(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Made:
            with torch.inference_mode(mode=False), torch.device('cpu'):
                return function(*args, **kwargs)

        @wraps(function)
        def remembered(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Made:
            # The first question must be the compiler's, which knows the answer.
            if torch.compiler.is_compiling() or is_watched():
                return function(*args, **kwargs)
            return make(*args, **kwargs)

        return remembered

    return decorate


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
