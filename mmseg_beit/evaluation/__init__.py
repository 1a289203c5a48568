"""Metrics. Importing this package registers them."""

from .iou_metric import IoUMetric

__all__ = ['IoUMetric']
