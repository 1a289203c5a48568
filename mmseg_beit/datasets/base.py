"""mmseg's folder data sets with the checks of folders and names that a user's mistake needs.

Source: mmseg's ``BaseSegDataset`` and ``ADE20KDataset``. They list an image folder by suffix and take the masks
for granted: a missing folder is a bare ``FileNotFoundError``, a missing mask shows in the middle of training, and
pictures of another suffix are left out without a word.
"""

import logging

from mmengine.logging import print_log
from mmseg.datasets import ADE20KDataset as _ADE20KDataset
from mmseg.datasets import BaseSegDataset as _BaseSegDataset

from ..registry import DATASETS
from .checks.listing import check_folders, check_names
from .transforms import resize_on_demand


class CheckedListing:
    """Mixin, before a ``BaseSegDataset``: checks folders and names while listing, and gives each item its class count.

    A resize before a crop is done for the crop alone, see :mod:`.transforms.resizing`.

    Raises:
        MissingFileError: A folder or the list of names is missing, there is no image, or one of a pair is missing.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        resize_on_demand(self.pipeline.transforms)

    def load_data_list(self) -> list[dict]:
        """Lists the pairs as mmseg does.

        Returns:
            One dict per image; beside mmseg's keys ``num_classes``, by which our ``LoadAnnotations`` checks labels.
        """
        check_folders(self)
        data_list = super().load_data_list()
        for doubt in check_names(self, data_list):
            print_log(doubt, logger='current', level=logging.WARNING)
        self.listing_checked = True
        classes = self._metainfo.get('classes')
        if classes:
            for item in data_list:
                item['num_classes'] = len(classes)
        return data_list


@DATASETS.register_module()
class BaseSegDataset(CheckedListing, _BaseSegDataset):
    """Folder of images and folder of index masks with the same names; see mmseg's class for the arguments."""


@DATASETS.register_module()
class ADE20KDataset(CheckedListing, _ADE20KDataset):
    """ADE20K scene parsing, 150 classes stored as 1..150 with 0 for "other"; see mmseg's class for the arguments."""
