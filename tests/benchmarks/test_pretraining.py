"""The pre-training row's tiny form: both contestants begin at the same loss."""

import re

import pytest

from benchmarks.pretraining import pretraining
from benchmarks.rows import Bench


@pytest.mark.slow
def test_both_begin_at_the_same_loss():
    rows = pretraining(Bench(tiny=True, rounds=1))
    assert [re.search(r'v\d.*', row.title).group() for row in rows] == [
        'v1, 2 images of 64 float32', 'v1, 2 images of 64 bfloat16',
        'v2, 2 images of 64 float32', 'v2, 2 images of 64 bfloat16',
    ]  # fmt: skip
    for row in rows:
        ours, theirs = map(float, re.findall(r'(?:loss|mmpretrain) ([\d.]+)', row.agreement)[:2])
        assert ours == pytest.approx(theirs, rel=1e-5 if 'float32' in row.title else 2e-2)
        assert set(row.results) == {'ours', 'mmpretrain'}
        assert 'images per second' in row.agreement
