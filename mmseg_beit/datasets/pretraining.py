"""Folders of pictures without labels, for pre-training."""

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ..errors import InputError, MissingFileError, sentence
from ..registry import DATASETS

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
_TOLD = 10  # Unreadable pictures that are named one by one; after that, every hundredth.


@DATASETS.register_module()
class UnlabelledImages(BaseDataset):
    """All pictures below a folder.

    A picture that cannot be read is replaced by another at random, counted and named in the log; training stops when
    their share passes a limit. The count covers the workers of one process; each process counts the pictures it meets.

    Args:
        data_root: Folder.
        data_prefix: ``img_path``: folder below it, in which sub-folders are looked through too.
        max_unreadable: Share of the folder's pictures, 0..1, that may be unreadable; one may always be.
        pipeline: Transforms; each gets ``img_path``.
        **kwargs: What else mmengine's ``BaseDataset`` takes.

    Raises:
        MissingFileError: There is no such folder, or no picture in it.
        InputError: Too many pictures cannot be read.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: dict | None = None,
        max_unreadable: float = 0.01,
        pipeline: Sequence = (),
        **kwargs: Any,
    ) -> None:
        if not 0 <= max_unreadable <= 1:
            raise InputError(f'max_unreadable={max_unreadable} is a share of all pictures: use 0 to 1')
        self.max_unreadable = max_unreadable
        super().__init__(
            data_root=data_root, data_prefix=data_prefix or dict(img_path=''), pipeline=list(pipeline), **kwargs
        )

    def full_init(self) -> None:
        """Lists the folder, once."""
        super().full_init()
        if not hasattr(self, '_unreadable'):
            # Shared with the workers, which are other processes.
            self._unreadable = torch.zeros(len(self), dtype=torch.uint8).share_memory_()

    def load_data_list(self) -> list[dict[str, str]]:
        """One dict with ``img_path`` per picture, sorted."""
        folder = self.data_prefix.get('img_path') or self.data_root or '.'
        if not os.path.isdir(folder):
            raise MissingFileError(
                f'image folder {folder} does not exist: put the pictures there, or correct data_root and '
                f'data_prefix.img_path in the dataset'
            )
        paths = sorted(_pictures(folder))
        if not paths:
            raise MissingFileError(
                f'image folder {folder} holds no picture ({", ".join(IMAGE_SUFFIXES)}), not in sub-folders either: put '
                f'the pictures there, or correct data_prefix.img_path'
            )
        return [dict(img_path=path) for path in paths]

    @property
    def unreadable(self) -> list[str]:
        """Pictures that could not be read so far."""
        return [self.get_data_info(i)['img_path'] for i in self._unreadable.nonzero().flatten().tolist()]

    def prepare_data(self, idx: int) -> Any:
        """A picture through the pipeline; ``None`` if it cannot be read, so that another is taken.

        Raises:
            InputError: Too many cannot be read.
        """
        try:
            return super().prepare_data(idx)
        except InputError as error:
            self._take_down(idx, error)
            return None

    def _take_down(self, idx: int, error: InputError) -> None:
        if self._unreadable[idx]:
            return
        self._unreadable[idx] = 1
        count, total = int(self._unreadable.sum()), len(self)
        if count > max(1, self.max_unreadable * total):
            raise InputError(
                f'{count} of {total} pictures cannot be read, more than max_unreadable={self.max_unreadable:g} allows '
                f'(the last: {sentence(error)}): replace or remove them, or raise max_unreadable'
            ) from None  # a worker's chained error would reach the user with its traceback
        if count <= _TOLD or count % 100 == 0:
            print_log(f'picture left out, {count} of {total} so far: {sentence(error)}', 'current', logging.WARNING)


def _pictures(folder: str) -> Iterator[str]:
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith('.')]
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.'):
                yield os.path.join(root, name)
