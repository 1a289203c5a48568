"""Writes a picture of ground truth and prediction for every image of a test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...registry import HOOKS


@HOOKS.register_module()
class ShowResultsHook(Hook):
    """Draws test results with the runner's visualizer; every process draws its own share.

    Args:
        out_dir: Where the pictures go, as PNG.
        image_root: Folder of the images; pictures keep their path below it. Without it, they keep their file's name.
    """

    def __init__(self, out_dir: str, image_root: str | None = None) -> None:
        self.out_dir = Path(out_dir)
        self.image_root = image_root

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        """Draws the samples of a batch."""
        for sample in outputs or ():
            path = Path(sample.img_path)
            below = self.image_root is not None and Path(self.image_root) in path.parents
            name = path.relative_to(self.image_root) if below else Path(path.name)
            image = mmcv.imread(str(path), channel_order='rgb')
            drawn = runner.visualizer.draw(image, sample)
            mmcv.imwrite(drawn[..., ::-1], str((self.out_dir / name).with_suffix('.png')))
