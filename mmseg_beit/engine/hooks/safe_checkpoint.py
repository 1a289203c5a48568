"""Checkpoints of which one is whole at any moment, and which are read without unpickling objects."""

import os
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ...registry import HOOKS
from ..resuming import LAST, remove_leftovers, replacing, restore_histories, to_plain


@HOOKS.register_module(name=['CheckpointHook', 'SafeCheckpointHook'])
class SafeCheckpointHook(CheckpointHook):
    """mmengine's checkpoint hook, arguments and file names unchanged, with three differences.

    - A checkpoint that is no longer kept is deleted after the new one is there and ``last_checkpoint`` names it, not
      before: with ``max_keep_ckpts=1`` mmengine's own hook deletes the only one and then begins to write. The same
      holds for the best checkpoint. (Each file appears whole by the work of the runner,
      :class:`mmseg_beit.apis.runner.BEiTRunner`.)
    - ``last_checkpoint`` is replaced in one step.
    - The file holds tensors and plain Python values only, so that ``torch.load(weights_only=True)`` reads it.
    """

    def before_train(self, runner: Runner) -> None:
        """Clears away what a killed run left half-written."""
        super().before_train(runner)
        if is_main_process() and os.path.isdir(self.out_dir):
            remove_leftovers(self.out_dir)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Makes every value plain."""
        checkpoint.update(to_plain(checkpoint))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turns stored log histories back into mmengine's."""
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = restore_histories(checkpoint['message_hub'])

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = []
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        with replacing(Path(runner.work_dir) / LAST) as temporary:
            temporary.write_text(self.last_ckpt)
        for old in outdated:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        single = getattr(self, 'best_ckpt_path', None)
        several = dict(getattr(self, 'best_ckpt_path_dict', {}))
        # The base class deletes the paths it knows before it writes: it is told of none.
        self.best_ckpt_path = None
        self.best_ckpt_path_dict = dict.fromkeys(several)
        super()._save_best_checkpoint(runner, metrics)
        former = []
        if single and self.best_ckpt_path not in (None, single):
            former.append(single)
        self.best_ckpt_path = self.best_ckpt_path or single
        for metric, path in several.items():
            if path and self.best_ckpt_path_dict[metric] not in (None, path):
                former.append(path)
            self.best_ckpt_path_dict[metric] = self.best_ckpt_path_dict[metric] or path
        for path in former:
            if is_main_process() and self.file_backend.isfile(path):
                self.file_backend.remove(path)
