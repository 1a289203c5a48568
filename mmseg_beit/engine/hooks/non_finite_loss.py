"""Stops a training run whose loss is no longer a number."""

import math
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...errors import InputError
from ...registry import HOOKS


class NonFiniteLossError(InputError):
    """The loss became NaN or infinite; raised by all processes together."""

    in_all_processes = True


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Ends training when a loss is NaN or infinite, before a checkpoint of the spoilt weights can be written.

    The figures of an iteration are averaged over the processes first, in one reduction: a loss that is not finite
    anywhere is not finite everywhere, so all processes stop together; and what is logged is the loss of the whole step,
    not of the first process's share. Gradients that overflow in float16 are no concern of this hook: the loss scaler
    skips those steps. A loss is unscaled, and where it overflows no scale helps.
    """

    # Before the hook that records the figures, of which it is the source (VERY_HIGH).
    priority = 'HIGHEST'

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Averages the figures of an iteration, in place, and looks at its losses.

        Raises:
            NonFiniteLossError: One of them, in any process, is NaN or infinite.
        """
        if not outputs:
            return
        # Stacked, so that a GPU is waited for once.
        values = torch.stack([torch.as_tensor(value).detach().float().mean() for value in outputs.values()])
        all_reduce(values, op='mean')
        outputs.update(zip(outputs, values.tolist(), strict=True))
        bad = [name for name, value in outputs.items() if 'loss' in name and not math.isfinite(value)]
        if bad:
            raise NonFiniteLossError(self._sentence(runner, bad))

    @staticmethod
    def _sentence(runner: Runner, names: list[str]) -> str:
        rates = runner.optim_wrapper.get_lr()
        rate = max(value for values in rates.values() for value in values)
        checkpoint = runner.message_hub.runtime_info.get('last_ckpt')
        last = f'the last good checkpoint is {checkpoint}' if checkpoint else 'no checkpoint had been written yet'
        return (
            f'the loss is not finite at iteration {runner.iter + 1} ({", ".join(names)}; '
            f'learning rate {rate:.3g}): {last}; '
            f'lower optim_wrapper.optimizer.lr, lengthen the warm-up, or train without --amp or with --amp bf16'
        )
