"""Which patches masked image modelling hides: blocks, as BEiT does (arXiv:2106.08254, algorithm 1).

NOTE(reference): the distribution is the official code's. mmpretrain's ``BEiTMaskGenerator`` excludes the last place of
a block in each direction, so that the last row and column are never masked, and reaches the wanted number by trying on
and on; the official v2 code adds or takes away single patches instead. A block never overshoots, so here they are only
added.
"""

import math
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from ...errors import InputError
from ...registry import TRANSFORMS

_TRIES = 10


@TRANSFORMS.register_module()
class BlockwiseMask(BaseTransform):
    """Draws blocks of patches until enough are hidden, or until ten draws in a row bring none.

    A block has between ``min_block`` and as many patches as are still wanted, at a random aspect ratio.

    Added Keys:

    - mask (np.ndarray): bool (h, w), true where a patch is hidden.

    Args:
        grid: (h, w) of the patches.
        num_masked: How many patches to hide at most, or their share of all patches as a number below 1.
        exact: Hides exactly that many: single patches are added in the end (BEiT v2).
        min_block: Patches of a block, at least; fewer where fewer are still wanted.
        max_block: At most; ``None`` for ``num_masked``.
        min_aspect: Smallest height over width.
        max_aspect: Largest; ``None`` for the inverse of the smallest.

    Raises:
        InputError: No block can do that on this grid.
    """

    def __init__(
        self,
        grid: int | Sequence[int] = 14,
        num_masked: float = 75,
        exact: bool = False,
        min_block: int = 16,
        max_block: int | None = None,
        min_aspect: float = 0.3,
        max_aspect: float | None = None,
    ) -> None:
        self.grid = (grid, grid) if isinstance(grid, int) else tuple(grid)
        total = self.grid[0] * self.grid[1]
        self.num_masked = round(num_masked * total) if 0 < num_masked < 1 else int(num_masked)
        self.exact = exact
        self.min_block = min_block
        self.max_block = self.num_masked if max_block is None else max_block
        self.aspects = (min_aspect, max_aspect or 1 / min_aspect)
        if not 0 < self.num_masked < total:
            raise InputError(
                f'BlockwiseMask is to hide {self.num_masked} of {total} patches of a {self.grid[0]}x{self.grid[1]} '
                f'grid: choose num_masked between 1 and {total - 1}, or correct grid'
            )
        if not 0 < self.aspects[0] <= self.aspects[1]:
            raise InputError(
                f'BlockwiseMask has aspects from {self.aspects[0]} to {self.aspects[1]}: use 0 < min <= max'
            )
        if not self._a_block_fits():
            raise InputError(
                f'no block of {self.min_block} to {min(self.max_block, self.num_masked)} patches fits a '
                f'{self.grid[0]}x{self.grid[1]} grid: lower min_block, or raise num_masked'
            )

    def _a_block_fits(self) -> bool:
        """Whether some area and aspect in range round to sides that a draw accepts."""
        least, most = self.min_block, min(self.max_block, self.num_masked)
        if least > most:
            return False
        for h in range(1, self.grid[0]):
            for w in range(1, self.grid[1]):
                areas = ((h - 0.5) * (w - 0.5), (h + 0.5) * (w + 0.5))
                aspects = ((h - 0.5) / (w + 0.5), (h + 0.5) / (w - 0.5))
                in_range = areas[1] > least and areas[0] < most
                if in_range and aspects[1] > self.aspects[0] and aspects[0] < self.aspects[1] and h * w <= most:
                    return True
        return False

    def transform(self, results: dict) -> dict:
        """Adds a mask."""
        mask = np.zeros(self.grid, dtype=bool)
        count = 0
        while count < self.num_masked:
            added = self._add_block(mask, min(self.num_masked - count, self.max_block))
            if not added:
                break
            count += added
        if self.exact and count < self.num_masked:
            free = np.flatnonzero(~mask)
            mask.flat[np.random.choice(free, self.num_masked - count, replace=False)] = True  # noqa: NPY002
        results['mask'] = mask
        return results

    def _add_block(self, mask: np.ndarray, most: int) -> int:
        """Hides one block of at most ``most`` new patches in ``mask``, which is changed; returns how many are new."""
        (height, width), draw = self.grid, np.random  # mmcv seeds the global generator of each worker
        for _ in range(_TRIES):
            area = draw.uniform(self.min_block, most)
            aspect = math.exp(draw.uniform(*map(math.log, self.aspects)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if not (h < height and w < width):
                continue
            top, left = draw.randint(height - h + 1), draw.randint(width - w + 1)
            block = mask[top : top + h, left : left + w]
            new = block.size - int(block.sum())
            if 0 < new <= most:
                block[:] = True
                return new
        return 0

    def __repr__(self) -> str:
        return f'{type(self).__name__}(grid={self.grid}, num_masked={self.num_masked}, exact={self.exact})'
