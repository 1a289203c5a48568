"""Metrics. Importing this package registers them."""

from .codebook_usage import CodebookUsage
from .iou_metric import IoUMetric

__all__ = ['CodebookUsage', 'IoUMetric']
