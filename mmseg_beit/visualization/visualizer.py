"""The visualizer that ``tools/test.py --show-dir`` and validation draw with: our overlays in place of mmseg's."""

from collections.abc import Mapping

import mmcv
import numpy as np
from mmengine.dist import master_only
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer as MMSegSegLocalVisualizer

from ..registry import VISUALIZERS
from .legend import add_legend, add_title, legend_entries
from .overlay import blend, check_opacity
from .palette import class_palette


@VISUALIZERS.register_module()
class SegLocalVisualizer(MMSegSegLocalVisualizer):
    """Draws ground truth and prediction side by side, with one legend that gives both shares.

    Takes mmseg's arguments. Differences: ``alpha`` is 0.5 by default; ignored pixels keep the photograph; class names
    stand in a legend instead of on the picture; a data set without palette gets distinct colours.

    Args:
        name: Under which mmengine finds the instance again.
        *args: As mmseg's visualizer takes them.
        classes: Names, until the runner sets the data set's.
        palette: RGB colours of the classes, 0..255.
        dataset_name: A data set that mmseg knows, instead of `classes` and `palette`.
        alpha: Opacity of the colours, 0..1.
        borders: Whether regions get an outline in their full colour.
        **kwargs: As mmseg's visualizer takes them.

    Raises:
        InputError: `alpha` is outside 0..1.
    """

    def __init__(
        self,
        name: str = 'visualizer',
        *args,
        classes: list | None = None,
        palette: list | None = None,
        dataset_name: str | None = None,
        alpha: float = 0.5,
        borders: bool = False,
        **kwargs,
    ) -> None:
        check_opacity(alpha)
        # NOTE(reference): mmseg's constructor passes on palette and classes in the wrong order, so they are set here.
        super().__init__(name, *args, alpha=alpha, **kwargs)
        self.borders = borders
        if classes:
            self.dataset_meta = dict(classes=list(classes), palette=palette)
        elif dataset_name:
            self.set_dataset_meta(dataset_name=dataset_name)

    # mmengine's property answers in the main process only; in a test every process draws its own images.
    @property
    def dataset_meta(self) -> dict | None:
        """Names and colours of the classes: ``classes``, ``palette``."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._dataset_meta = dataset_meta

    def draw(
        self,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        with_labels: bool = True,
        with_image: bool = False,
    ) -> np.ndarray:
        """Draws what a sample holds.

        Args:
            image: uint8 RGB (H, W, 3), the photograph at its own size; not changed.
            data_sample: With ``gt_sem_seg`` and / or ``pred_sem_seg``, integer (1, H, W) or (H, W).
            draw_gt: Whether the ground truth is drawn.
            draw_pred: Whether the prediction is drawn.
            with_labels: Whether there are titles and a legend.
            with_image: Whether the photograph itself comes first.

        Returns:
            uint8 RGB: the parts from left to right, the legend below or beside them.
        """
        wanted = (('ground truth', 'gt_sem_seg', draw_gt), ('prediction', 'pred_sem_seg', draw_pred))
        masks = {
            title: _mask_of(data_sample.get(key), image.shape[:2])
            for title, key, draw in wanted
            if draw and data_sample is not None and key in data_sample
        }
        classes, palette = self._classes(self.dataset_meta)
        parts = {title: blend(image, mask, palette, self.alpha, self.borders) for title, mask in masks.items()}
        if with_image or not parts:
            parts = {'image': image, **parts}
        if not with_labels or not masks:
            return _side_by_side(list(parts.values()))
        titled = _side_by_side([add_title(part, title) for title, part in parts.items()])
        headings = [{'ground truth': 'truth', 'prediction': 'predicted'}[title] for title in masks]
        return add_legend(titled, legend_entries(list(masks.values()), classes, palette), headings)

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        with_labels: bool | None = True,
        with_image: bool | None = False,
    ) -> None:
        """Draws a sample and shows it, writes it to `out_file`, or hands it to the backends; see :meth:`draw`."""
        drawn = self.draw(image, data_sample, draw_gt, draw_pred, bool(with_labels), bool(with_image))
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(drawn[..., ::-1], out_file)
        else:
            self.add_image(name, drawn, step)

    def _draw_sem_seg(
        self, image: np.ndarray, sem_seg: PixelData, classes: list, palette: list | None, with_labels: bool = True
    ) -> np.ndarray:
        """The overlay alone, where mmseg's other methods ask for it; labels are the legend's business."""
        colors = class_palette(dict(palette=palette), len(classes))
        return blend(image, _mask_of(sem_seg, image.shape[:2]), colors, self.alpha, self.borders)

    @staticmethod
    def _classes(dataset_meta: Mapping) -> tuple[list[str], np.ndarray]:
        classes = list(dataset_meta['classes'])
        return classes, class_palette(dataset_meta, len(classes))


def _mask_of(sem_seg: PixelData, size: tuple[int, int]) -> np.ndarray:
    """Integer (H, W) of a sample's field, brought to the picture's size where the pipeline resized the labels too."""
    mask = np.asarray(sem_seg.cpu().data).squeeze(0) if sem_seg.data.ndim == 3 else np.asarray(sem_seg.cpu().data)
    if mask.shape != size:
        rows = np.arange(size[0]) * mask.shape[0] // size[0]
        columns = np.arange(size[1]) * mask.shape[1] // size[1]
        mask = mask[rows[:, None], columns]
    # A binary model's prediction is stored as float 0 / 1.
    return mask if mask.dtype.kind in 'iu' else mask.astype(np.int64)


def _side_by_side(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures of one height from left to right, a thin white line between them."""
    line = np.full((pictures[0].shape[0], 4, 3), 255, np.uint8)
    row = [piece for picture in pictures for piece in (picture, line)]
    return np.concatenate(row[:-1], axis=1)
