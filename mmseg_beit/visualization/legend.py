"""Legends: the classes in a picture with colour, name and share, on a panel that leaves the picture's pixels alone.

The panel lies below a wide picture and beside a tall or square one. Its type is never smaller than a screen needs and
grows with the picture; what does not fit is summed up as "n more".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .overlay import class_shares

_PANEL, _TEXT, _MUTED = (255, 255, 255), (32, 32, 32), (112, 112, 112)
_MIN_FONT, _PICTURE_SIDES_PER_FONT = 13, 45
_MIN_ROWS = 8
_NAME_EMS = 14  # longest name in units of the type size, about 28 letters

UNLABELLED = 'unlabelled'


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend.

    Args:
        name: What is written, on one line.
        color: RGB of the swatch, 0..255; None for a line about what has no colour.
        shares: Shares 0..1, one for each column of numbers; None leaves the place empty.
    """

    name: str
    color: tuple[int, int, int] | None
    shares: tuple[float | None, ...]


def legend_entries(masks: Sequence[np.ndarray], classes: Sequence[str], palette: np.ndarray) -> list[LegendEntry]:
    """The classes present in at least one mask, the largest share first.

    Args:
        masks: Integer (H, W) each, 0..K-1; other labels are summed up as "unlabelled", which comes last.
        classes: K names.
        palette: uint8 RGB (K, 3).

    Returns:
        Entries with one share per mask, sorted by the sum of their shares, equal ones in the classes' order.
    """
    shares = np.stack([class_shares(mask, len(classes)) for mask in masks], axis=1)
    total = shares.sum(axis=1)
    order = [int(k) for k in np.argsort(-total[:-1], kind='stable') if total[k] > 0]
    entries = [
        LegendEntry(' '.join(str(classes[k]).split()), tuple(map(int, palette[k])), tuple(map(float, shares[k])))
        for k in order
    ]
    if total[-1] > 0:
        entries.append(LegendEntry(UNLABELLED, None, tuple(float(share) or None for share in shares[-1])))
    return entries


def add_legend(picture: np.ndarray, entries: Sequence[LegendEntry], headings: Sequence[str] = ()) -> np.ndarray:
    """Puts a legend below (wide) or beside (tall, square) a picture.

    Args:
        picture: uint8 RGB (H, W, 3).
        entries: What :func:`legend_entries` returns.
        headings: Names of the columns of numbers; none for no heading.

    Returns:
        uint8 RGB, larger than the picture, which is its top left corner pixel by pixel.
    """
    height, width = picture.shape[:2]
    below = width > height
    panel = _Panel(height, width, entries, headings).draw(below)
    if below:
        size = (height + panel.shape[0], max(width, panel.shape[1]))
        corner = (height, 0)
    else:
        size = (max(height, panel.shape[0]), width + panel.shape[1])
        corner = (0, width)
    canvas = np.full((*size, 3), _PANEL, np.uint8)
    canvas[:height, :width] = picture
    canvas[corner[0] : corner[0] + panel.shape[0], corner[1] : corner[1] + panel.shape[1]] = panel
    return canvas


def add_title(picture: np.ndarray, title: str) -> np.ndarray:
    """Puts a line of text above a picture: uint8 RGB (H, W, 3) to (H + line, W, 3)."""
    size = font_size(*picture.shape[:2])
    bar = Image.new('RGB', (picture.shape[1], round(1.8 * size)), _PANEL)
    font = _font(size)
    ImageDraw.Draw(bar).text((bar.width / 2, bar.height / 2), _elide(title, font, bar.width), _TEXT, font, anchor='mm')
    return np.concatenate([np.asarray(bar), picture])


def font_size(height: int, width: int) -> int:
    """Type size in pixels for a picture of some size."""
    return max(_MIN_FONT, round((height * width) ** 0.5 / _PICTURE_SIDES_PER_FONT))


def format_share(share: float | None) -> str:
    """A share 0..1 in per cent with one decimal; nothing for None or 0, and never ``0.0 %`` for what is there."""
    if not share:
        return ''
    return f'{100 * share:.1f} %' if share >= 0.0005 else '<0.1 %'


class _Panel:
    """Measures and draws the lines of a legend for a picture of (height, width)."""

    def __init__(self, height: int, width: int, entries: Sequence[LegendEntry], headings: Sequence[str]) -> None:
        self.height, self.width, self.entries, self.headings = height, width, list(entries), list(headings)
        self.size = font_size(height, width)
        self.font = _font(self.size)
        self.row = round(1.55 * self.size)
        self.pad = self.size
        names = [_text_width(entry.name, self.font) for entry in self.entries]
        self.name_width = min(max([*names, _text_width('999 more', self.font)]), _NAME_EMS * self.size)
        numbers = [_text_width(text, self.font) for text in (*self.headings, '100.0 %')]
        self.number_width = max(numbers) + round(0.9 * self.size)
        self.num_numbers = max([len(entry.shares) for entry in self.entries], default=1)
        self.column = round(1.5 * self.size) + self.name_width + self.num_numbers * self.number_width
        self.gap = 2 * self.size

    def draw(self, below: bool) -> np.ndarray:
        """The panel: uint8 RGB, as wide (below) or high (beside) as the picture, or more where text needs it."""
        heading_rows = 1 if self.headings else 0
        if below:
            columns = max(1, (self.width - 2 * self.pad + self.gap) // (self.column + self.gap))
            rows = -(-max(len(self.entries), 1) // columns)
            rows = min(rows, max(_MIN_ROWS, (self.height // 2 - 2 * self.pad) // self.row - heading_rows))
        else:
            rows = max(_MIN_ROWS, (self.height - 2 * self.pad) // self.row - heading_rows)
            columns = -(-max(len(self.entries), 1) // rows)
            columns = min(columns, max(1, (self.width - 2 * self.pad + self.gap) // (self.column + self.gap)))
            rows = min(rows, -(-max(len(self.entries), 1) // columns))
        shown = _fold(self.entries, rows * columns, self.num_numbers)
        columns = max(1, -(-len(shown) // rows))
        panel_width = 2 * self.pad + columns * self.column + (columns - 1) * self.gap
        panel_height = 2 * self.pad + (rows + heading_rows) * self.row
        if below:
            panel_width = max(panel_width, self.width)
        panel = Image.new('RGB', (panel_width, panel_height), _PANEL)
        pen = ImageDraw.Draw(panel)
        for c in range(columns):
            left = self.pad + c * (self.column + self.gap)
            for i, heading in enumerate(self.headings):
                self._number(pen, left, self.pad + self.row // 2, i, heading, _MUTED)
            for r, entry in enumerate(shown[c * rows : (c + 1) * rows]):
                self._line(pen, left, self.pad + (r + heading_rows) * self.row + self.row // 2, entry)
        return np.asarray(panel)

    def _line(self, pen: ImageDraw.ImageDraw, left: int, middle: int, entry: LegendEntry) -> None:
        stroke = max(1, self.size // 16)
        box = (left, middle - self.size // 2, left + self.size - 1, middle - self.size // 2 + self.size - 1)
        # The outline keeps white and very light colours visible on the panel.
        if entry.color is not None:
            pen.rectangle(box, fill=entry.color, outline=_MUTED, width=stroke)
        name = _elide(entry.name, self.font, self.name_width)
        color = _TEXT if entry.color is not None else _MUTED
        pen.text((left + round(1.5 * self.size), middle), name, color, self.font, anchor='lm')
        for i, share in enumerate(entry.shares):
            self._number(pen, left, middle, i, format_share(share), color)

    def _number(
        self, pen: ImageDraw.ImageDraw, left: int, middle: int, i: int, text: str, color: tuple[int, int, int]
    ) -> None:
        right = left + self.column - (self.num_numbers - 1 - i) * self.number_width
        pen.text((right, middle), text, color, self.font, anchor='rm')


def _fold(entries: list[LegendEntry], places: int, num_numbers: int) -> list[LegendEntry]:
    """The first entries and, where the places do not hold all, one that sums up the rest."""
    if len(entries) <= places:
        return entries
    shown, rest = entries[: places - 1], entries[places - 1 :]
    sums = tuple(sum(entry.shares[i] or 0.0 for entry in rest) for i in range(num_numbers))
    return [*shown, LegendEntry(f'{len(rest)} more', None, sums)]


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # The typeface that matplotlib brings: the same on every machine, with Latin, Greek and Cyrillic letters.
    path = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf'
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _text_width(text: str, font: ImageFont.FreeTypeFont) -> int:
    return int(np.ceil(font.getlength(text)))


def _elide(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, cut and ended by an ellipsis where it is wider than `width` pixels."""
    if _text_width(text, font) <= width:
        return text
    keep = len(text)
    while keep > 0 and _text_width(text[:keep].rstrip() + '…', font) > width:
        keep -= 1
    return text[:keep].rstrip() + '…' if keep else ''
