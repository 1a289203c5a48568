"""Looks at the data before the first step."""

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmseg.models.decode_heads.decode_head import BaseDecodeHead

from ...errors import InputError
from ...registry import HOOKS
from . import MODES, check_dataset, leaf_datasets
from .report import DataReport


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Stops a run whose data cannot be used, before weights are loaded and anything is written.

    The main process looks at the training, validation or test data of the run; the others wait for its verdict and stop
    with it. Sound data is remembered in the work directory (``data_check.json``), so that the next start takes about a
    second.

    Args:
        mode: ``'full'`` decodes every mask; ``'headers'`` opens every file, without looking at labels; ``'off'``
            leaves it to the loading transforms, which say the same in the middle of the run.
        num_workers: Threads; by default one per core, at most 32.
    """

    priority = 'VERY_HIGH'

    def __init__(self, mode: str = 'full', num_workers: int | None = None) -> None:
        if mode not in MODES:
            raise InputError(f"DataCheckHook has mode='{mode}': use one of {', '.join(MODES)}")
        self.mode = mode
        self.num_workers = num_workers

    def before_run(self, runner: Runner) -> None:
        """Checks the data of the loops that this run has built.

        Raises:
            InputError: What :func:`mmseg_beit.datasets.checks.check_dataset` says, in all processes.
        """
        if self.mode == 'off':
            return
        failure = None
        if is_main_process():
            try:
                self._check(runner)
            # The other processes wait: whatever happened, they must hear of it.
            except Exception as error:
                failure = error
        told = [(isinstance(failure, InputError), f'{failure}') if failure else None]
        broadcast_object_list(told)
        if told[0] is None:
            return
        if failure is None:
            mistake, message = told[0]
            failure = InputError(message) if mistake else RuntimeError(message)
        failure.in_all_processes = True
        raise failure

    def _check(self, runner: Runner) -> None:
        heads = [module for module in runner.model.modules() if isinstance(module, BaseDecodeHead)]
        ignore_index = heads[0].ignore_index if heads else 255
        checked = set()
        for stage in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{stage}_loop')
            for dataset in leaf_datasets(loop.dataloader.dataset) if isinstance(loop, BaseLoop) else ():
                folders = (dataset.ann_file, *dataset.data_prefix.values())
                if folders in checked:  # the same data for validation and test
                    continue
                checked.add(folders)
                (report,) = check_dataset(
                    dataset, None, self.mode, runner.work_dir, ignore_index, self.num_workers, progress=True
                )
                _tell(runner, stage, report)


def _tell(runner: Runner, stage: str, report: DataReport) -> None:
    how = 'unchanged since they were checked' if report.remembered else f'checked in {report.seconds:.1f} s'
    runner.logger.info(f'{stage} data: {report.num_images:,} images, {report.num_masks:,} masks, {how}')
    for doubt in report.doubts:
        runner.logger.warning(doubt)
