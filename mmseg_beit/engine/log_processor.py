"""The lines a person reads while training, validation or a test runs."""

import datetime

from mmengine.runner import LogProcessor as _LogProcessor
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop

from ..registry import LOG_PROCESSORS


@LOG_PROCESSORS.register_module()
class LogProcessor(_LogProcessor):
    """mmengine's log values in short lines with the time left; arguments are mmengine's.

    ``iter   100/160000  loss 3.2145 (decode.loss_ce 2.3010, aux.loss_ce 0.9135)  acc 33.1  lr 3.00e-05  0.41 s/iter
    left 18:20:11``
    """

    def get_log_after_iter(self, runner: Runner, batch_idx: int, mode: str) -> tuple[dict, str]:
        """The values and the line of one iteration, of ``mode`` ``train``, ``val`` or ``test``."""
        tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        if self.log_with_hierarchy:  # names carry prefixes then: mmengine's own line reads them
            return tag, line
        if mode == 'train':
            return tag, self._train_line(runner, batch_idx, tag)
        total = len(getattr(runner, f'{mode}_dataloader'))
        seconds = runner.message_hub.get_scalar(f'{mode}/time').mean(self.window_size)
        return tag, f'{mode}  {batch_idx + 1:>{len(str(total))}}/{total}  {seconds:.3g} s/batch  {_left(runner)}'

    def get_log_after_epoch(
        self, runner: Runner, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict, str]:
        """The values and the line at the end of validation or a test."""
        tag, line = super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)
        if self.log_with_hierarchy:
            return tag, line
        numbers = {name: value for name, value in tag.items() if isinstance(value, float) and 'time' not in name}
        figures = [f'{name} {value:.4g}' for name, value in numbers.items()]
        training = mode == 'val' and isinstance(runner._train_loop, BaseLoop)
        where = f' at iteration {runner.iter}' if training else ''
        total = len(getattr(runner, f'{mode}_dataloader').dataset)
        return tag, f'{mode}{where}: {"  ".join(figures)}  ({total} images)'

    def _train_line(self, runner: Runner, batch_idx: int, tag: dict) -> str:
        if self.by_epoch:
            steps = len(runner.train_dataloader)
            head = f'epoch {runner.epoch + 1}/{runner.max_epochs}  {batch_idx + 1:>{len(str(steps))}}/{steps}'
        else:
            head = f'iter {runner.iter + 1:>{len(str(runner.max_iters))}}/{runner.max_iters}'
        parts = [f'{name} {tag[name]:.4f}' for name in tag if 'loss' in name and name != 'loss']
        loss = f'loss {tag["loss"]:.4f}' if 'loss' in tag else ''
        words = [head, loss + (f' ({", ".join(parts)})' if len(parts) > 1 else '')]
        words += [f'{name} {tag[name]:.1f}' for name in tag if 'acc' in name]
        words += [f'{name} {tag[name]:.3g}' for name in ('grad_norm',) if name in tag]
        # With layer decay `lr` is the first group's, the smallest; `base_lr` is the head's.
        words += [f'lr {tag[name]:.2e}' for name in ('base_lr', 'lr') if name in tag][:1]
        if 'time' in tag:
            words.append(f'{tag["time"]:.3g} s/iter (data {tag.get("data_time", 0.0):.2g})')
        words.append(_left(runner))
        if 'memory' in tag:
            words.append(f'{tag["memory"]} MiB')
        return '  '.join(word for word in words if word)


def _left(runner: Runner) -> str:
    seconds = runner.message_hub.runtime_info.get('eta')
    return '' if seconds is None else f'left {datetime.timedelta(seconds=round(seconds))}'
