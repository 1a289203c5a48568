"""The benchmark's tiny form: every row runs, ratios and files come out, numbers agree. No time is judged."""

import json

import pytest

from benchmarks import measure
from benchmarks.__main__ import main
from benchmarks.measure import Measurement
from benchmarks.report import Row, lines
from mmseg_beit.errors import InputError

pytest.importorskip('transformers')


@pytest.mark.slow
def test_tiny_form_runs_and_writes_its_tables(tmp_path, capsys):
    rows = ['backbone', 'head', 'inference', 'half', 'wide', 'training', 'metric', 'amp', 'attention', 'loss']
    assert main([*rows, '--tiny', '--rounds', '1', '--out', str(tmp_path)]) == 0
    (report,) = tmp_path.glob('*.json')
    data = json.loads(report.read_text())
    rows = {row['title']: row for row in data['rows']}
    assert '100.0000% of the labels equal (mmseg), 100.0000%' in rows['inference 64x64 float32']['agreement']
    assert set(rows['inference 64x64 float32']['results']) == {'ours', 'mmseg', 'transformers'}
    assert all(found['seconds'][0] > 0 for row in data['rows'] for found in row['results'].values())
    assert '| training step, 2 images of 64 | mmseg |' in report.with_suffix('.md').read_text()
    assert 'written:' in capsys.readouterr().out


def test_lines_by_hand():
    row = Row('r', dict(ours=Measurement([1.0, 2.0, 3.0], 50.0, 4.0), mmseg=Measurement([6.0], 100.0, None)))
    assert lines(row, matmul_gflops=10.0) == [
        ('r', 'mmseg', '6000.0 ms', '0%', '100 MB', '', '', '3.00x', '0.50x'),
        ('r', 'ours', '2000.0 ms', '100%', '50 MB', '4.0', '20%', '', ''),
    ]


def test_contestants_take_turns(monkeypatch):
    order = []
    monkeypatch.setattr(measure, 'count_gflop', lambda function: None)
    results = measure.interleave(dict(a=lambda: order.append('a'), b=lambda: order.append('b')), rounds=3, device='cpu')
    assert order == ['a', 'b', 'b', 'a', 'a', 'b']
    assert [len(found.seconds) for found in results.values()] == [3, 3]


def test_no_rounds():
    with pytest.raises(InputError, match='--rounds 0: one round at least'):
        main(['import', '--rounds', '0'])


def test_unknown_row():
    with pytest.raises(InputError, match="row 'bckbone' is unknown: choose some of import, sample"):
        main(['bckbone'])
