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
from ..checks.files import check_same_size, decode_image, decode_mask, jpeg_size, read_bytes
from ..checks.labels import IGNORED, NUM_VALUES, explain_bad_values, label_table


@TRANSFORMS.register_module()
class LoadImageFromFile(_LoadImageFromFile):
    """Loads a photograph; a file that is missing, cut short or no picture is one sentence with its name.

    The check costs a comparison of the file's last bytes.

    Required Keys:

    - img_path (str)

    Added Keys:

    - img (np.ndarray): BGR uint8 (H, W, 3), EXIF rotation applied; float32 with ``to_float32``.
    - img_shape, ori_shape (tuple[int, int]): H and W of the picture in memory, and in the file.
    - jpeg_reduction (int): 2, 4 or 8 where a JPEG was decoded at that fraction of its sides.

    Args:
        enough_for: Largest (long, short) sides that the ``Resize`` or ``RandomResize`` behind this one asks for: (4096,
            1024) for a scale of (2048, 512) and ratios up to 2. JPEG files of twice that and more are decoded at 1/2,
            1/4 or 1/8 of their sides, in a fraction of the time; the pixels differ a little from those of a whole
            decoding. ``None``, the default, decodes whole files. For colour pictures by OpenCV.

    Raises:
        InputError: ``enough_for`` is no pair of sides, or comes with another ``color_type`` than ``'color'`` or another
            backend than ``'cv2'``.
    """

    def __init__(self, *args, enough_for: tuple[int, int] | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if enough_for is not None and not (np.shape(enough_for) == (2,) and min(enough_for) > 0):
            raise InputError(
                f'enough_for={enough_for!r} of LoadImageFromFile must be two sides in pixels: (long, short)'
            )
        self.enough_for = None if enough_for is None else tuple(sorted(enough_for, reverse=True))
        if enough_for is not None and (self.color_type, self.imdecode_backend) != ('color', 'cv2'):
            raise InputError(
                f'enough_for={enough_for} of LoadImageFromFile reduces colour pictures read by OpenCV only: leave out '
                f'color_type={self.color_type!r} and imdecode_backend={self.imdecode_backend!r}, or enough_for'
            )

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
            content = self._read(path)
            reduction, size = self._reduction(content)
            image = decode_image(content, path, self.color_type, self.imdecode_backend, reduction)
        except InputError:
            if self.ignore_empty:
                return None
            raise
        if self.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = image.shape[:2]
        results['ori_shape'] = image.shape[:2]
        if reduction > 1:
            results['ori_shape'], results['jpeg_reduction'] = size, reduction
        return results

    def _reduction(self, content: bytes) -> tuple[int, tuple[int, int] | None]:
        """By what to divide the sides of a picture while decoding it, and its size (H, W) where that was looked up."""
        if self.enough_for is None or (size := jpeg_size(content)) is None:
            return 1, None
        # As a resize that keeps the ratio scales it.
        scale = min(wanted / side for wanted, side in zip(self.enough_for, sorted(size, reverse=True), strict=True))
        return next((reduction for reduction in (8, 4, 2) if scale * reduction <= 1), 1), size

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
    - jpeg_reduction, img_shape (optional): Of a picture at a fraction of its sides; the mask gets its size.

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
        if 'jpeg_reduction' in results:  # The label at the middle of what became a pixel.
            size = results['img_shape'][::-1]
            results['gt_seg_map'] = cv2.resize(results['gt_seg_map'], size, interpolation=cv2.INTER_NEAREST_EXACT)
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
