"""Where the lines of a run go."""

import logging

from mmseg_beit.apis.runner import BEiTRunner


def test_lines_of_the_layers_reach_the_log_file_and_choices_only_that(tmp_path, monkeypatch, capsys):
    layers = logging.getLogger('mmseg_beit')
    monkeypatch.setattr(layers, 'handlers', [])
    monkeypatch.setattr(layers, 'level', layers.level)
    runner = object.__new__(BEiTRunner)
    runner._timestamp, runner._log_dir, runner._experiment_name = 'now', str(tmp_path), tmp_path.name
    runner.build_logger()
    layers.info('chose %s for %s: %s', 'flex', 'key', 'flex 1.000 ms')
    layers.warning('Triton does not work')
    (file,) = tmp_path.glob('*.log')
    assert 'chose flex for key: flex 1.000 ms' in file.read_text()
    assert 'Triton does not work' in file.read_text()
    shown = capsys.readouterr()
    assert 'Triton does not work' in shown.out + shown.err
    assert 'chose' not in shown.out + shown.err
