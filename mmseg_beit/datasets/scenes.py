"""The rendered scenes (``mmseg_beit.scenes``, ``tools/make_scenes.py``) as a data set in ADE20K's terms."""

from mmseg_beit.registry import DATASETS

from .base import ADE20KDataset


@DATASETS.register_module()
class ScenesDataset(ADE20KDataset):
    """``data/scenes``: ADE20K's folder layout, 150 classes and palette, of which the renderer draws twelve.

    Masks hold 0 for unlabelled and ADE20K's index 1..150 otherwise, so ``reduce_zero_label`` is on by default. Classes
    that never occur get no IoU and do not count in the mean.
    """
