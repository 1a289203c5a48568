"""MSRC v2: 591 natural photographs with 23 classes (Shotton et al., TextonBoost, ECCV 2006), in ADE20K's layout."""

from ..registry import DATASETS
from .base import BaseSegDataset


@DATASETS.register_module()
class MSRCDataset(BaseSegDataset):
    """Photographs ``*.jpg`` with index masks ``*.png``: 0 unlabelled, 1..23 the classes in ``METAINFO``'s order.

    The palette is the colour code of Microsoft Research's own masks. About a quarter of the pixels is unlabelled.

    Args:
        img_suffix: Of the photographs.
        seg_map_suffix: Of the masks.
        reduce_zero_label: Turns 0 into ignored and 1..23 into 0..22.
        **kwargs: As :class:`~.base.BaseSegDataset` takes them.
    """

    METAINFO = {
        'classes': (
            'building', 'grass', 'tree', 'cow', 'horse', 'sheep', 'sky', 'mountain', 'aeroplane', 'water', 'face',
            'car', 'bicycle', 'flower', 'sign', 'bird', 'book', 'chair', 'road', 'cat', 'dog', 'body', 'boat',
        ),
        'palette': [
            [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128], [128, 128, 128],
            [64, 0, 0], [192, 0, 0], [64, 128, 0], [192, 128, 0], [64, 0, 128], [192, 0, 128], [64, 128, 128],
            [192, 128, 128], [0, 64, 0], [128, 64, 0], [0, 192, 0], [128, 64, 128], [0, 192, 128], [128, 192, 128],
            [64, 64, 0], [192, 64, 0],
        ],
    }  # fmt: skip

    def __init__(
        self, img_suffix: str = '.jpg', seg_map_suffix: str = '.png', reduce_zero_label: bool = True, **kwargs: object
    ) -> None:
        super().__init__(
            img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, reduce_zero_label=reduce_zero_label, **kwargs
        )
