"""Labelled pictures in ImageNet's layout: one sub-folder for each class.

Peers (torchvision, mmpretrain) number the classes of each folder by themselves, so that a validation folder without one
of the classes shifts all labels behind it. Here the classes of all splits come from one folder, and the mistakes that a
folder of pictures invites are one sentence each.
"""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from PIL import Image

from ..errors import InputError, MissingFileError, sentence
from ..registry import DATASETS
from .checks.files import is_file_truncated

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')
_FEWEST_DRAWS = 200  # below this number of draws a share of unreadable pictures says little
_TOLD = 5  # unreadable files that are named one by one


@DATASETS.register_module()
class ImageFolder(BaseDataset):
    """Pictures in ``FOLDER/CLASS/**/*``; a class's label is its place among the names of the class folders, from 0.

    Each item holds ``img_path`` and ``gt_label``; ``metainfo`` holds ``classes`` (K names, by label) and ``folders``
    (the K class folders).

    Unreadable pictures are left out: in test mode when the folder is listed (a glance at both ends of each file), in
    training when they are drawn, another picture taking their place. They are counted and told, and stop the run where
    there are too many.

    Args:
        data_root: Folder of the data set.
        data_prefix: ``img_path``: the split's folder within ``data_root``.
        class_folder: Folder within ``data_root`` whose sub-folders are the classes, so that all splits agree on them;
            by default the split's own. In a validation set name the training folder.
        class_names: Names to show instead of the folders': a sequence by label, or ``'imagenet'`` for ImageNet-1k's.
        unreadable_limit: Share of unreadable pictures above which the data set stops the run, 0..1.
        extensions: Endings of picture files, lower case.
        **kwargs: As :class:`mmengine.dataset.BaseDataset` takes them: ``pipeline``, ``test_mode``, ``indices``, ...

    Raises:
        MissingFileError: A folder is missing or holds no class folder or no picture.
        InputError: A split has a class that ``class_folder`` lacks, ``class_names`` does not fit, or too many pictures
            are unreadable.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: dict | None = None,
        class_folder: str | None = None,
        class_names: str | Sequence[str] | None = None,
        unreadable_limit: float = 0.05,
        extensions: Sequence[str] = EXTENSIONS,
        **kwargs: Any,
    ) -> None:
        if not 0 <= unreadable_limit <= 1:
            raise InputError(f'ImageFolder has unreadable_limit={unreadable_limit}: give a share from 0 to 1')
        if not data_root and not data_prefix:
            raise InputError('ImageFolder knows no folder: set data_root and data_prefix.img_path')
        self.class_folder = class_folder
        self.class_names = class_names
        self.unreadable_limit = unreadable_limit
        self.extensions = tuple(extensions)
        self._num_drawn = self._num_failed = 0
        data_prefix = dict(img_path='') if data_prefix is None else dict(data_prefix)
        # Joined as the base class joins, which makes an absolute path out of data_root alone for an empty prefix.
        data_prefix['img_path'] = os.path.expanduser(os.path.join(data_root, data_prefix.get('img_path', '')))
        super().__init__(data_root='', data_prefix=data_prefix, **kwargs | dict(ann_file='', lazy_init=True))
        self.data_root = data_root
        if not kwargs.get('lazy_init', False):
            self.full_init()

    def load_data_list(self) -> list[dict]:
        """Lists the pictures of each class, by class and name.

        Returns:
            One dict per picture: ``img_path`` and ``gt_label`` (0..K-1).
        """
        folder = self.data_prefix['img_path']
        own = _class_folders(folder, 'data_prefix.img_path')
        classes = own
        if self.class_folder is not None:
            reference = os.path.expanduser(os.path.join(self.data_root, self.class_folder))
            if not os.path.isdir(reference):
                raise MissingFileError(
                    f'folder {reference} does not exist: class_folder names the classes of {folder}; put the training '
                    'data there, or set class_folder=None to take the classes from the folder itself'
                )
            classes = _class_folders(reference, 'class_folder')
            if surplus := sorted(set(own) - set(classes)):
                raise InputError(
                    f'{folder} has {_some(surplus)} that {reference} lacks: remove {_these(surplus)}, or add training '
                    f'pictures of {_these(surplus)}'
                )
        self._metainfo['folders'] = tuple(classes)
        self._metainfo['classes'] = self._shown_names(classes)
        data_list, empty = [], []
        for label, name in enumerate(classes):
            files = sorted(self._pictures(os.path.join(folder, name)))
            data_list += [dict(img_path=path, gt_label=label) for path in files]
            if not files and name in own:
                empty.append(name)
        if not data_list:
            raise MissingFileError(
                f'the {len(own)} class folders of {folder} hold no picture: put files ending in '
                f'{", ".join(self.extensions[:3])}, ... there'
            )
        if empty:
            print_log(f'{folder} has no picture in {_some(empty)}', 'current', logging.WARNING)
        return self._readable(data_list) if self.test_mode else data_list

    def prepare_data(self, idx: int) -> Any:
        """Loads and transforms a picture; in training ``None`` for an unreadable one, for which another is drawn.

        Raises:
            InputError: It is unreadable and this is a test, or too many were unreadable so far.
        """
        self._num_drawn += 1
        try:
            return super().prepare_data(idx)
        except InputError as error:
            if self.test_mode:
                raise
            self._num_failed += 1
            if self._num_failed > self.unreadable_limit * max(self._num_drawn, _FEWEST_DRAWS):
                raise self._too_many(self._num_failed, self._num_drawn, sentence(error)) from None
            if self._num_failed <= _TOLD:
                what = f'{sentence(error)} (skipped; {self._num_failed} of {self._num_drawn} pictures drawn so far)'
                print_log(what, 'current', logging.WARNING)
            return None

    def _shown_names(self, folders: Sequence[str]) -> tuple[str, ...]:
        names = shown_names(self.class_names) or tuple(folders)
        if len(names) != len(folders):
            raise InputError(
                f'class_names of {self.data_prefix["img_path"]} has {len(names)} names for {len(folders)} class '
                'folders: give one name per folder, in their order, or leave class_names out'
            )
        return names

    def _pictures(self, folder: str) -> list[str]:
        found = []
        for root, folders, files in os.walk(folder, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith('.'))
            kept = (name for name in files if name.lower().endswith(self.extensions) and not name.startswith('.'))
            found += [os.path.join(root, name) for name in kept]
        return found

    def _readable(self, data_list: list[dict]) -> list[dict]:
        """The items without those whose files are visibly no whole picture."""
        with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
            flaws = list(pool.map(_flaw, (item['img_path'] for item in data_list)))
        bad = [(item['img_path'], flaw) for item, flaw in zip(data_list, flaws, strict=True) if flaw]
        if not bad:
            return data_list
        told = '; '.join(f'{path} {flaw}' for path, flaw in bad[:_TOLD]) + ('; ...' if len(bad) > _TOLD else '')
        if len(bad) > self.unreadable_limit * len(data_list):
            raise self._too_many(len(bad), len(data_list), told)
        print_log(
            f'{len(bad)} of {len(data_list):,} pictures in {self.data_prefix["img_path"]} are unreadable and left '
            f'out: {told}',
            'current',
            logging.WARNING,
        )
        return [item for item, flaw in zip(data_list, flaws, strict=True) if not flaw]

    def _too_many(self, count: int, total: int, told: str) -> InputError:
        return InputError(
            f'{count} of {total:,} pictures from {self.data_prefix["img_path"]} are unreadable ({told}), more than '
            f'unreadable_limit={self.unreadable_limit:g} allows: restore or remove them, or raise the limit'
        )


def shown_names(class_names: str | Sequence[str] | None) -> tuple[str, ...]:
    """What ``class_names`` of :class:`ImageFolder` stands for; empty for ``None``.

    Raises:
        InputError: It is a word other than ``'imagenet'``.
    """
    if class_names == 'imagenet':
        from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

        return tuple(IMAGENET_CATEGORIES)
    if isinstance(class_names, str):
        raise InputError(f"class_names={class_names!r} is unknown: give a sequence of names, or 'imagenet'")
    return tuple(class_names or ())


def _class_folders(folder: str, field: str) -> list[str]:
    """Names of the class folders in a folder, sorted as everywhere by code point."""
    if not os.path.isdir(folder):
        raise MissingFileError(
            f'folder {folder} does not exist: put the pictures there, or correct data_root and {field}'
        )
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith('.')]
    classes = sorted(entry.name for entry in visible if entry.is_dir())
    if not classes:
        folder = folder.rstrip('/')
        holds = 'is empty' if not visible else f'holds {len(visible)} files but no class sub-folder'
        raise MissingFileError(
            f'folder {folder} {holds}: labelled pictures lie in one sub-folder per class, {folder}/CLASS/*.jpg'
        )
    return classes


def _flaw(path: str) -> str | None:
    """Why a file is visibly no whole picture; None for one that looks sound."""
    try:
        with Image.open(path):
            pass
        return 'is cut short' if is_file_truncated(path) else None
    except FileNotFoundError:
        return 'leads nowhere'
    except Exception:  # what Pillow raises depends on the format and on the damage
        return 'is an empty file' if os.path.getsize(path) == 0 else 'is no readable picture'


def _some(names: Sequence[str]) -> str:
    noun = 'the class' if len(names) == 1 else f'{len(names)} classes'
    return f'{noun} {", ".join(names[:4])}{", ..." if len(names) > 4 else ""}'


def _these(names: Sequence[str]) -> str:
    return 'it' if len(names) == 1 else 'them'
