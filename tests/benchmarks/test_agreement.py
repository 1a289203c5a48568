"""Figures of the comparison of trained labels, by hand; the comparison of loss curves on real photographs."""

import pytest
import torch

from benchmarks import curve
from benchmarks.agreement import confusion, mean_iou


def test_confusion_and_mean_iou_by_hand():
    labels, truth = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0, 1], [0, 255]])
    counts = confusion(labels, truth, 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    # Classes 0 and 1: one right of two pixels in either union; class 2 does not occur.
    assert mean_iou(counts) == pytest.approx(50.0)


@pytest.mark.slow
def test_loss_curves_agree(msrc, tmp_path, capsys):
    picture = tmp_path / 'curve.png'
    assert curve.main(['--data', str(msrc), '--steps', '3', '--batch-size', '2', '--out', str(picture)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert float(last.split()[2]) < 1e-5, last
    assert picture.stat().st_size > 1000
