"""Parameter names, both ways: a family's names from ours and ours from a family's, by one table of templates.

Our names are the one form every conversion passes through. They are mmsegmentation's for the backbone, neck and heads
(``backbone.layers.0.ln1.weight``, ``neck.upsample_4x.0.weight``, ``decode_head.conv_seg.weight``), mmpretrain's for the
classification and pre-training heads (``head.fc.weight``, ``head.cls_head.weight``, ``neck.patch_aggregation.0...``),
with the prefix ``backbone.`` always there.
"""

import re
from collections.abc import Iterable

_TOKEN = re.compile(r'\{i\}|\*')


def _compile(template: str) -> re.Pattern[str]:
    pieces = [re.escape(piece) for piece in _TOKEN.split(template)]
    tokens = [r'(\d+)' if token == '{i}' else '(.+)' for token in _TOKEN.findall(template)]
    return re.compile(''.join(a + b for a, b in zip(pieces, [*tokens, ''], strict=True)) + r'\Z')


class NameMap:
    """Pairs of name templates (ours, theirs).

    ``{i}`` stands for a number, ``*`` for anything, in the same order in both.

    Args:
        pairs: Templates; the first that fits a name wins.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = [(_compile(ours), ours, _compile(theirs), theirs) for ours, theirs in pairs]

    def to_ours(self, name: str) -> str | None:
        """Our name of a family's tensor, ``None`` if the family has no such tensor."""
        for _, ours, pattern, _ in self._pairs:
            if match := pattern.match(name):
                return _fill(ours, match)
        return None

    def to_theirs(self, name: str) -> str | None:
        """The family's name of our tensor, ``None`` if the family has no place for it."""
        for pattern, _, _, theirs in self._pairs:
            if match := pattern.match(name):
                return _fill(theirs, match)
        return None


def _fill(template: str, match: re.Match[str]) -> str:
    values = iter(match.groups())
    return _TOKEN.sub(lambda _: next(values), template)


def block_pairs(ours: str, theirs: str, parts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Templates of a stack of transformer blocks.

    Args:
        ours: Our prefix of one block, such as ``backbone.layers.{i}.``.
        theirs: The family's.
        parts: Templates within a block.
    """
    return [(ours + a, theirs + b) for a, b in parts]


def layer_index(name: str) -> int | None:
    """The number of the backbone layer that one of our names belongs to, ``None`` for other names."""
    match = re.match(r'backbone\.layers\.(\d+)\.', name)
    return int(match.group(1)) if match else None
