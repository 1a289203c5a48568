"""Label values: what a value in a mask file becomes, and what is wrong where it becomes no class.

K classes are 0..K-1 after loading, 255 is ignored. ``reduce_zero_label`` turns the stored 0 into 255 and moves the
others down by one, and ``label_map`` (a data set that is asked for some of its classes) renames what is left.
"""

from collections.abc import Mapping

import numpy as np

NUM_VALUES = 256
IGNORED = 255


def label_table(reduce_zero_label: bool, label_map: Mapping[int, int] | None = None) -> np.ndarray:
    """Table from stored values to labels, with mmseg's arithmetic.

    Args:
        reduce_zero_label: Whether the stored 0 means "not labelled" and classes are stored from 1.
        label_map: New label of an old one, applied last.

    Returns:
        uint8 (256,); ``table[mask]`` are the labels.
    """
    table = np.arange(NUM_VALUES, dtype=np.uint8)
    if reduce_zero_label:
        table -= 1  # the stored 0 wraps to 255
        table[IGNORED] = IGNORED
    if label_map is not None:
        renamed = table.copy()
        for old, new in label_map.items():
            renamed[table == old] = new
        table = renamed
    return table


def bad_values(present: np.ndarray, table: np.ndarray, num_classes: int, ignore_index: int = IGNORED) -> np.ndarray:
    """Stored values that become neither a class nor the ignored label.

    Args:
        present: bool (256,), the values that occur.
        table: uint8 (256,) from :func:`label_table`.
        num_classes: K.
        ignore_index: Label that losses and metrics leave out.

    Returns:
        int64 (M,), ascending.
    """
    return np.flatnonzero(present & (table >= num_classes) & (table != ignore_index))


def explain_bad_values(
    present: np.ndarray,
    table: np.ndarray,
    num_classes: int,
    reduce_zero_label: bool,
    ignore_index: int = IGNORED,
    where: str = 'the masks',
) -> str | None:
    """One sentence about stored values that are no class, None where all are.

    Args:
        present: bool (256,), the values that occur.
        table: uint8 (256,) from :func:`label_table`.
        num_classes: K.
        reduce_zero_label: How the table was made.
        ignore_index: Label that losses and metrics leave out.
        where: Whose values they are, for the sentence.
    """
    bad = bad_values(present, table, num_classes, ignore_index)
    if not bad.size:
        return None
    first = 1 if reduce_zero_label else 0
    wanted = f'{num_classes} classes are stored as {first}..{first + num_classes - 1}'
    if reduce_zero_label:
        wanted += ' with reduce_zero_label=True (0 = not labelled)'
    said = f'{where} hold the value{"s" if bad.size > 1 else ""} {name_values(bad)}, but {wanted}'
    return f'{said}: {_remedy(bad, present, num_classes, reduce_zero_label, ignore_index)}'


def _remedy(bad: np.ndarray, present: np.ndarray, num_classes: int, reduce_zero_label: bool, ignore_index: int) -> str:
    top = int(bad.max())
    if ignore_index != IGNORED and (set(bad) <= {0, IGNORED} if reduce_zero_label else set(bad) == {IGNORED}):
        return f'set ignore_index=255, the label that loading gives to what is not labelled, instead of {ignore_index}'
    if not reduce_zero_label and top == num_classes:
        return (
            'set reduce_zero_label=True in the dataset if 0 means "not labelled", '
            f'or give all {num_classes + 1} classes their names in metainfo and set num_classes={num_classes + 1}'
        )
    if bad.size > num_classes and bad.size > 16:
        return 'write class indices, not grey levels or JPEG-compressed or smoothed masks'
    return (
        'correct these masks (255 = ignore), '
        f'or name {top + (not reduce_zero_label)} classes in metainfo and set num_classes to that'
    )


def explain_lost_labels(
    present: np.ndarray, table: np.ndarray, num_classes: int, reduce_zero_label: bool, where: str = 'the masks'
) -> str | None:
    """One sentence where the values are legal but the setting throws labels away, None where all seems well.

    Three signs: no pixel keeps a class; a black-and-white mask, whose 255 means "ignore"; and, with
    ``reduce_zero_label``, exactly the values 0..K-1, so that class 0 is dropped and the last class never occurs.

    Args:
        present: bool (256,), the values that occur in all masks together.
        table: uint8 (256,) from :func:`label_table`.
        num_classes: K.
        reduce_zero_label: How the table was made.
        where: Whose values they are, for the sentence.
    """
    values = np.flatnonzero(present)
    if values.tolist() == [0, 255]:
        return (
            f'{where} hold only 0 and 255, and 255 means "ignore": '
            'write the foreground as 1 (for instance mask // 255) with reduce_zero_label=False and two classes'
        )
    if values.size and not (table[values] < num_classes).any():
        remedy = 'check that these are the masks you mean'
        if reduce_zero_label and num_classes == 1:
            remedy = 'set reduce_zero_label=False in the dataset'
        return f'{where} hold only {name_values(values)}, all of them ignored, so nothing can be learnt: {remedy}'
    stored = values[values != IGNORED]
    if reduce_zero_label and num_classes > 1 and np.array_equal(stored, np.arange(num_classes)):
        return (
            f'{where} hold 0..{num_classes - 1} and never {num_classes}, so reduce_zero_label=True drops class 0 '
            'and shifts the others: set reduce_zero_label=False in the dataset'
        )
    return None


def name_values(values: np.ndarray, limit: int = 6) -> str:
    """Values as text: ``'151, 152 and 200'``, runs as ``'151..160'``, shortened after `limit` parts."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    parts = [f'{run[0]}..{run[-1]}' if run.size > 2 else ', '.join(map(str, run)) for run in runs]
    if len(parts) > limit:
        parts = [*parts[:limit], f'... up to {values[-1]}']
    return ', '.join(parts)
