"""Loading of images and masks that names the file when it cannot be used.

Source: mmcv's ``LoadImageFromFile`` and mmseg's ``LoadAnnotations``, whose arguments, keys and values these keep.
Inside our scope they win under the same names.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile as _LoadImageFromFile
from mmengine.fileio import FileClient
from mmseg.datasets.transforms import LoadAnnotations as _LoadAnnotations

from ...errors import InputError
from ...registry import TRANSFORMS
from ..checks.files import check_same_size, decode_image, decode_mask, read_bytes
from ..checks.labels import IGNORED, NUM_VALUES, explain_bad_values, label_table


@TRANSFORMS.register_module()
class LoadImageFromFile(_LoadImageFromFile):
    """Loads a photograph; a file that is missing, cut short or no picture is one sentence with its name.

    The check costs a comparison of the file's last bytes.

    Required Keys:

    - img_path (str)

    Added Keys:

    - img (np.ndarray): BGR uint8 (H, W, 3), EXIF rotation applied; float32 with ``to_float32``.
    - img_shape, ori_shape (tuple[int, int]): H and W.
    """

    def transform(self, results: dict) -> dict | None:
        """Reads ``results['img_path']``.

        Returns:
            `results` with the added keys; None for an unreadable file with ``ignore_empty``.

        Raises:
            MissingFileError: There is no such file.
            InputError: It is cut short or no readable picture.
        """
        path = results['img_path']
        try:
            image = decode_image(self._read(path), path, self.color_type, self.imdecode_backend)
        except InputError:
            if self.ignore_empty:
                return None
            raise
        if self.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = image.shape[:2]
        results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> bytes:
        if self.file_client_args is not None:
            return FileClient.infer_client(self.file_client_args, path).get(path)
        return read_bytes(path, 'image', self.backend_args)


@TRANSFORMS.register_module()
class LoadAnnotations(_LoadAnnotations):
    """Loads an index mask and checks what mmseg takes for granted: kind of file, size and label values.

    Required Keys:

    - seg_map_path (str)
    - reduce_zero_label (bool)
    - seg_fields (list)
    - label_map (dict, optional): New label of an old one.
    - num_classes (int, optional): K, by which label values are checked; our data sets give it.
    - ori_shape, img_path (optional): Size and name of the picture, with which the mask's size is compared.

    Added Keys:

    - gt_seg_map (np.ndarray): uint8 (H, W), 0..K-1, 255 = ignore.

    Args:
        ignore_index: Label that the losses leave out; with another than 255 it is allowed in the masks too.
    """

    def __init__(self, *args, ignore_index: int = 255, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.ignore_index = ignore_index

    def _load_seg_map(self, results: dict) -> None:
        """Adds ``gt_seg_map``.

        Raises:
            MissingFileError: There is no such mask.
            InputError: It cannot be read, is a colour picture, has another size than the picture, or a label value that
                is no class; or this transform and the data set disagree on ``reduce_zero_label``.
        """
        path = results['seg_map_path']
        mask = decode_mask(read_bytes(path, 'mask', self.backend_args), path, self.imdecode_backend)
        if 'ori_shape' in results:
            check_same_size(mask.shape, results['ori_shape'], path, results.get('img_path') or 'given as an array')
        reduce_zero_label = results['reduce_zero_label']
        if self.reduce_zero_label not in (None, reduce_zero_label):
            raise InputError(
                f'reduce_zero_label is {self.reduce_zero_label} in LoadAnnotations but '
                f'{reduce_zero_label} in the dataset: set it in the dataset only'
            )
        table = label_table(reduce_zero_label, results.get('label_map'))
        self._check_labels(mask, table, results)
        if reduce_zero_label and not results.get('label_map') and mask.max() < IGNORED:
            results['gt_seg_map'] = mask - np.uint8(1)  # the table's values at a tenth of its time: 0 wraps to 255
        else:
            results['gt_seg_map'] = cv2.LUT(mask, table)
        results['seg_fields'].append('gt_seg_map')

    def _check_labels(self, mask: np.ndarray, table: np.ndarray, results: Mapping) -> None:
        if not (num_classes := results.get('num_classes')):
            return
        # Most masks hold classes only, seen in a twentieth of the histogram's time.
        plain = not results.get('label_map') and self.ignore_index == IGNORED
        if plain and mask.max() < num_classes + results['reduce_zero_label']:
            return
        present = cv2.calcHist([mask], [0], None, [NUM_VALUES], [0, NUM_VALUES]).ravel() > 0
        if said := explain_bad_values(
            present,
            table,
            num_classes,
            results['reduce_zero_label'],
            self.ignore_index,
            f'the pixels of mask {results["seg_map_path"]}',
        ):
            raise InputError(said)
