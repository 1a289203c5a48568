"""Checks of a data set before training: folders and names, files, sizes, labels.

:func:`check_dataset` stops with one sentence, :func:`scan_dataset` reports everything. Both look at what the data set's
own pipeline would load, and neither writes beside the data.
"""

from collections.abc import Iterator, Mapping

from mmengine.registry import DefaultScope
from mmseg.datasets import BaseSegDataset

from ...errors import InputError, MissingFileError
from ...registry import DATASETS
from .labels import IGNORED
from .report import DataReport
from .scan import MODES, scan_dataset

__all__ = ['MODES', 'DataReport', 'build_dataset', 'check_dataset', 'leaf_datasets', 'scan_dataset']


def check_dataset(
    dataset,
    num_classes: int | None = None,
    mode: str = 'full',
    cache_dir: str | None = None,
    ignore_index: int = IGNORED,
    num_workers: int | None = None,
    progress: bool = False,
) -> list[DataReport]:
    """Checks a data set, and those within a concatenated or repeated one.

    Args:
        dataset: A built data set or its config.
        num_classes: Classes of the model; by default as many as the data set names.
        mode: ``'full'`` decodes every mask, ``'headers'`` only opens the files, ``'off'`` builds the data set, which
            checks folders and names.
        cache_dir: Folder (a work directory) to remember sound data in, so that an unchanged data set takes a second.
        ignore_index: Label that the losses leave out.
        num_workers: Threads; by default one per core, at most 32.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        One report per data set; none with ``'off'``.

    Raises:
        MissingFileError: A folder, an image or a mask is missing.
        InputError: A file cannot be used, sizes differ, labels are no classes, or the data set names another number of
            classes than `num_classes`; also for an unknown `mode`.
    """
    if mode not in MODES:
        raise InputError(f"data check mode '{mode}' is unknown: use one of {', '.join(MODES)}")
    if isinstance(dataset, Mapping):
        dataset = build_dataset(dataset)
    reports = []
    for leaf in leaf_datasets(dataset):
        _check_num_classes(leaf, num_classes)
        if mode != 'off':
            reports.append(scan_dataset(leaf, num_classes, mode, cache_dir, ignore_index, num_workers, progress))
            reports[-1].raise_problems()
    return reports


def build_dataset(cfg: Mapping):
    """Builds a data set within our scope.

    Args:
        cfg: Its config, as in ``train_dataloader.dataset``.

    Raises:
        MissingFileError: A folder that it lists is missing, also in data sets that do not check it themselves.
    """
    with DefaultScope.overwrite_default_scope('mmseg_beit'):
        try:
            return DATASETS.build(cfg)
        except FileNotFoundError as error:
            path = error.filename or getattr(error.__cause__ or error.__context__, 'filename', None)
            if isinstance(error, InputError) or path is None:
                raise
            raise MissingFileError(
                f'{path} does not exist: put the data there, or correct data_root and data_prefix in the dataset'
            ) from error


def leaf_datasets(dataset) -> Iterator[BaseSegDataset]:
    """The folder data sets within a data set: itself, or those that it joins, repeats or balances."""
    if isinstance(dataset, BaseSegDataset):
        yield dataset
    for inner in getattr(dataset, 'datasets', [getattr(dataset, 'dataset', None)]):
        if inner is not None:
            yield from leaf_datasets(inner)


def _check_num_classes(dataset: BaseSegDataset, num_classes: int | None) -> None:
    named = len(dataset.metainfo.get('classes') or [])
    if num_classes and named and named != num_classes:
        raise InputError(
            f'the model has num_classes={num_classes} but {type(dataset).__name__} '
            f'{dataset.data_prefix.get("img_path")} names {named} classes: set num_classes={named} in '
            'model.decode_head and model.auxiliary_head, or correct metainfo.classes'
        )
