"""The rendered scenes (``mmseg_beit.scenes``, ``tools/make_scenes.py``) as a data set in ADE20K's terms."""

from ..registry import DATASETS
from ..scenes.labels import LABELS
from .base import ADE20KDataset


@DATASETS.register_module()
class ScenesDataset(ADE20KDataset):
    """``data/scenes``: ADE20K's layout, mask values and palette; by default the twelve classes that the renderer draws.

    The masks hold 0 for unlabelled and ADE20K's index 1..150 otherwise. Loading turns them into 0..11, in the order of
    :data:`mmseg_beit.scenes.LABELS`, and 0 into ignored. For a model of all 150 classes pass ADE20K's names:
    ``metainfo=dict(classes=ADE20KDataset.METAINFO['classes'])``.

    Args:
        metainfo: As mmseg takes it; ``classes`` is any choice of ADE20K's names.
        **kwargs: As ``ADE20KDataset`` takes them.
    """

    DEFAULT_METAINFO = dict(classes=tuple(LABELS))

    def __init__(self, metainfo: dict | None = None, **kwargs: object) -> None:
        super().__init__(metainfo={**self.DEFAULT_METAINFO, **(metainfo or {})}, **kwargs)
