"""What happened to a checkpoint on its way into a model or another format, as one summary."""

from collections.abc import Iterable
from dataclasses import dataclass, field

Grid = tuple[int, int]

_SIZES = {(192, 12): 'tiny', (384, 12): 'small', (768, 12): 'B', (1024, 24): 'L', (1280, 32): 'H', (1408, 40): 'g'}
_SIZE_NAMES = {'B': 'base (B)', 'L': 'large (L)', 'H': 'huge (H)', 'g': 'giant (g)'}


@dataclass
class Report:
    """Summary of one checkpoint.

    Attributes:
        source: What was named.
        format: Name of the family, as ``--to`` takes it.
        family: Its title.
        content: What the checkpoint is: ``segmentation``, ``classification``, ``self-supervised pre-training``,
        ``backbone``. width: Width D of the backbone.
        depth: Number of its layers.
        num_heads: Attention heads, ``None`` when no relative position table tells.
        grid: (h, w) of its position tables, ``None`` without tables.
        patch_size: Side of a patch in pixels.
        num_classes: Classes of its classifier or decode head, ``None`` without one.
        loaded: Number of tensors that reached the model.
        resized: Lines about resized tables.
        left_out: Reason to names of tensors in the file that were not used.
        new: Reason to names of tensors of the model that the file does not have.
        notes: Anything else worth knowing.
    """

    source: str = ''
    format: str = ''
    family: str = ''
    content: str = 'backbone'
    width: int = 0
    depth: int = 0
    num_heads: int | None = None
    grid: Grid | None = None
    patch_size: int | None = None
    num_classes: int | None = None
    loaded: int = 0
    resized: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    new: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> str:
        """``base (B)``, ``large (L)``, ... or width and depth."""
        name = _SIZES.get((self.width, self.depth))
        return _SIZE_NAMES.get(name, name) if name else f'{self.width} wide, {self.depth} layers'

    def leave_out(self, reason: str, names: Iterable[str]) -> None:
        """Notes tensors of the file that are not used."""
        if names := list(names):
            self.left_out.setdefault(reason, []).extend(names)

    def add_new(self, reason: str, names: Iterable[str]) -> None:
        """Notes tensors of the model that keep their start values."""
        self.new.setdefault(reason, []).extend(names)

    def __str__(self) -> str:
        heads = f', {self.num_heads} heads' if self.num_heads else ''
        grid = f', made for {self.grid[0]}x{self.grid[1]} patches' if self.grid else ''
        patch = f' of {self.patch_size} pixels' if grid and self.patch_size else ''
        classes = f', {self.num_classes} classes' if self.num_classes else ''
        lines = [
            f'Checkpoint {self.source}',
            f'  family    {self.family}: {self.content}{classes}',
            f'  size      {self.size}{heads}{grid}{patch}',
        ]
        if self.loaded:
            lines.append(f'  loaded    {self.loaded} tensors')
        lines += [f'  resized   {line}' for line in self.resized]
        lines += [f'  left out  {summarise(names)}: {reason}' for reason, names in self.left_out.items()]
        lines += [f'  new       {summarise(names)}: {reason}' for reason, names in self.new.items()]
        lines += [f'  note      {note}' for note in self.notes]
        return '\n'.join(lines)


def summarise(names: Iterable[str], limit: int = 3) -> str:
    """Names, shortened to the parts they belong to when there are many.

    Args:
        names: Tensor names.
        limit: Names that are still written out.
    """
    names = list(names)
    if len(names) <= limit:
        return ', '.join(names)
    parts = list(dict.fromkeys(_part(name) for name in names))
    shown = ', '.join(parts[:4]) + (', ...' if len(parts) > 4 else '')
    return f'{len(names)} tensors ({shown})'


def _part(name: str) -> str:
    pieces = name.split('.')
    keep = 2 if len(pieces) > 2 and pieces[0] in ('backbone', 'neck', 'head') else 1
    return '.'.join(pieces[:keep])
