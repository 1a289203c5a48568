"""Intersection over union by class: exact counts, a table, JSON, index masks."""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric as _IoUMetric
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..registry import METRICS


@METRICS.register_module()
class IoUMetric(_IoUMetric):
    """mmseg's ``IoUMetric`` with integer counts, one readable table, and its figures as JSON.

    NOTE(reference): mmseg adds pixel counts in float32, inexact beyond 2^24 pixels; here they are int64. As there, a
    class that is predicted but never labelled has IoU 0 and counts in mIoU, and one that is neither does not count.

    Args:
        *args: As mmseg's metric takes them.
        json_file: Where the figures are written after each evaluation.
        about: What else the JSON file says, such as the checkpoint's name.
        image_root: Folder of the images; masks keep their path below it. Without it, they keep their file's name.
        **kwargs: As mmseg's metric takes them.
    """

    def __init__(
        self,
        *args: Any,
        json_file: str | None = None,
        about: dict[str, Any] | None = None,
        image_root: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.json_file = json_file
        self.about = dict(about or {})
        self.image_root = image_root

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Counts the pixels of a batch and writes its masks.

        Args:
            data_batch: Not used.
            data_samples: Dictionaries with ``pred_sem_seg``, ``gt_sem_seg`` (integer (1, H, W)) and ``img_path``.
        """
        num_classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            predicted = sample['pred_sem_seg']['data'].squeeze(0)
            if not self.format_only:
                label = sample['gt_sem_seg']['data'].squeeze(0).to(predicted.device)
                self.results.append(_count(predicted, label, num_classes, self.ignore_index))
            if self.output_dir is not None:
                self._write_mask(predicted, sample)

    def evaluate(self, size: int) -> dict[str, float]:
        """Collects the counts of all processes and computes the figures; see mmengine's ``BaseMetric``."""
        if self.results and not self.format_only:
            # Counts that lie on a GPU come over in one piece.
            self.results = list(torch.stack(self.results).cpu())
        return super().evaluate(size)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sums the counts of all images, prints the table and writes the JSON file.

        Args:
            results: For each image what :meth:`intersect_and_union` returns, as a tuple or as one tensor (4, K).

        Returns:
            Percentages: ``aAcc``, ``mIoU``, ``mAcc`` (or those of the other ``iou_metrics``).
        """
        if self.format_only:
            print_log(f'Masks of the test images are in {self.output_dir}', 'current')
            return {}
        areas = [sum(part).double() for part in zip(*results, strict=True)]
        # Classes without pixels divide by zero: their figures are undefined (NaN).
        by_class = self.total_area_to_metrics(*areas, self.metrics, self.nan_to_num, self.beta)
        accuracy = float(by_class.pop('aAcc')) * 100
        summary = {'aAcc': round(accuracy, 2)}
        for name, values in by_class.items():
            defined = values[~np.isnan(values)]
            summary[f'm{name}'] = round(float(defined.mean()) * 100, 2) if defined.size else float('nan')
        shares = (areas[3] / areas[3].sum().clamp(min=1)).tolist()
        print_log(f'By class, in percent:\n{self._table(by_class, shares)}', 'current')
        if self.json_file:
            self._write_json(summary, by_class, areas[3].long().tolist(), len(results))
        return summary

    @staticmethod
    def intersect_and_union(
        pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Counts pixels by class on the device where the prediction lies.

        Args:
            pred_label: integer (H, W), 0..K-1.
            label: integer (H, W), 0..K-1 or ``ignore_index``; pixels with any other value count as wrong.
            num_classes: K.
            ignore_index: Label of the pixels that do not count.

        Returns:
            int64 (K,) on the CPU: intersection, union, predicted and labelled pixels.
        """
        return tuple(_count(pred_label, label, num_classes, ignore_index).cpu())

    def _write_mask(self, predicted: Tensor, sample: dict) -> None:
        mask = predicted.cpu().numpy().astype(np.int64)
        # Stored as the annotations are, where 0 is "unlabelled" and the classes begin at 1.
        if sample.get('reduce_zero_label', False):
            mask = mask + 1
        name = Path(sample['img_path'])
        below = self.image_root is not None and Path(self.image_root) in name.parents
        name = name.relative_to(self.image_root) if below else Path(name.name)
        path = Path(self.output_dir) / name.with_suffix('.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8 if mask.max() < 256 else np.uint16)).save(path)

    def _table(self, by_class: dict[str, np.ndarray], shares: list[float]) -> str:
        """One row per class that is labelled or predicted somewhere."""
        table = Table('class', *by_class, 'share of labels', box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = 'right'
        absent = 0
        for index, name in enumerate(self.dataset_meta['classes']):
            values = [figures[index] for figures in by_class.values()]
            if all(np.isnan(values)):
                absent += 1
                continue
            texts = ('-' if np.isnan(value) else f'{value * 100:.2f}' for value in values)
            table.add_row(name, *texts, f'{shares[index] * 100:.2f}')
        page = io.StringIO()
        Console(file=page, width=100).print(table)
        lines = [line.rstrip() for line in page.getvalue().splitlines()]
        if absent:
            total = len(self.dataset_meta['classes'])
            lines.append(f'({absent} of {total} classes are neither labelled nor predicted)')
        return '\n'.join(lines)

    def _write_json(
        self, summary: dict[str, float], by_class: dict[str, np.ndarray], pixels: list[int], num_images: int
    ) -> None:
        if not is_main_process():
            return
        classes = []
        for index, name in enumerate(self.dataset_meta['classes']):
            figures = {key: float(values[index]) * 100 for key, values in by_class.items()}
            figures = {key: None if np.isnan(value) else round(value, 4) for key, value in figures.items()}
            classes.append(dict(name=name, **figures, pixels=pixels[index]))
        means = {key: None if np.isnan(value) else value for key, value in summary.items()}
        content = {**self.about, **means, 'images': num_images, 'classes': classes}
        os.makedirs(os.path.dirname(self.json_file) or '.', exist_ok=True)
        Path(self.json_file).write_text(json.dumps(content, indent=2) + '\n')
        print_log(f'Figures written to {self.json_file}', 'current')


def _count(predicted: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """int64 (4, K) where the prediction lies: intersection, union, predicted and labelled pixels.

    Arguments as in :meth:`IoUMetric.intersect_and_union`.
    """
    predicted, label = predicted.flatten(), label.flatten()
    confusion = None
    if predicted.device.type == 'cpu' and 0 <= ignore_index < 256 and num_classes <= 256:
        confusion = _byte_confusion(predicted, label)
        if confusion is not None:
            confusion[ignore_index] = 0
    if confusion is None:
        confusion = _any_confusion(predicted, label, num_classes, ignore_index)
    intersect = confusion.diagonal()[:num_classes]
    area_pred, area_label = confusion.sum(0)[:num_classes], confusion.sum(1)[:num_classes]
    return torch.stack([intersect, area_pred + area_label - intersect, area_pred, area_label])


def _byte_confusion(predicted: Tensor, label: Tensor) -> Tensor | None:
    """int64 (256, 256), labels by predictions; None unless all values are 0..255, or for too many pixels.

    On a CPU OpenCV's histogram of two bytes takes half the time of a bincount of one index made of them.
    """
    # It counts in float32.
    if not 0 < predicted.numel() <= 1 << 24:
        return None
    low, high = (torch.stack(pair) for pair in zip(predicted.aminmax(), label.aminmax(), strict=True))
    if low.min() < 0 or high.max() > 255:
        return None
    planes = [values.to(torch.uint8).numpy() for values in (label, predicted)]
    return torch.from_numpy(cv2.calcHist(planes, [0, 1], None, [256, 256], [0, 256, 0, 256])).long()


def _any_confusion(predicted: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """int64 (K + 1, K + 1): any other value is in the last row and column, ignored pixels are nowhere.

    Nothing is asked of the device (a bincount asks for the largest value), so a GPU is not waited for.
    """
    side = num_classes + 1
    counted = (label != ignore_index).long()
    predicted, label = (
        values.long().where((values >= 0) & (values < num_classes), num_classes) for values in (predicted, label)
    )
    confusion = counted.new_zeros(side * side).scatter_add_(0, label * side + predicted, counted)
    return confusion.view(side, side)
