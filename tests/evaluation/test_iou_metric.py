"""IoU by hand, against mmseg's metric, and what is written."""

import json

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric as MMSegIoUMetric
from PIL import Image

from mmseg_beit.evaluation import IoUMetric

META = dict(classes=('sky', 'tree', 'road', 'ship'))


def _sample(predicted, label, path='a.jpg', **extra):
    return dict(
        pred_sem_seg=dict(data=torch.as_tensor(predicted)[None]),
        gt_sem_seg=dict(data=torch.as_tensor(label)[None]),
        img_path=path,
        **extra,
    )


def _score(metric, samples):
    metric.dataset_meta = META
    for sample in samples:
        metric.process({}, [sample])
    return metric.evaluate(len(samples))


@pytest.fixture
def hand():
    """Labels sky 3, tree 2, one ignored; predicted sky 2 right, tree 1 right, road 2 (never labelled)."""
    return _sample([[0, 0, 2], [1, 2, 3]], [[0, 0, 0], [1, 1, 255]])


def test_by_hand(hand):
    figures = _score(IoUMetric(), [hand])
    # sky 2/3, tree 1/2, road 0/2 counts, ship is neither labelled nor predicted.
    assert figures['mIoU'] == round(100 * (2 / 3 + 1 / 2 + 0) / 3, 2)
    assert figures['mAcc'] == round(100 * (2 / 3 + 1 / 2) / 2, 2)
    assert figures['aAcc'] == 60.0


@pytest.mark.parity
@pytest.mark.parametrize('metrics', [['mIoU'], ['mDice'], ['mFscore'], ['mIoU', 'mFscore']])
def test_equals_mmseg(metrics):
    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(3):
        label = torch.randint(0, 4, (17, 23), generator=generator)
        predicted = torch.where(torch.rand(17, 23, generator=generator) < 0.6, label, label.roll(1, 0))
        label[:3] = 255
        samples.append(_sample(predicted, label))
    ours = _score(IoUMetric(iou_metrics=metrics), samples)
    theirs = _score(MMSegIoUMetric(iou_metrics=metrics), samples)
    assert ours == pytest.approx({key: float(value) for key, value in theirs.items()}, abs=0.011)


@pytest.mark.parity
def test_counts_equal_mmseg_for_labels_outside_the_classes():
    predicted = torch.tensor([[0, 1, 2, 3], [3, 3, 0, 1]])
    label = torch.tensor([[0, 9, 2, 255], [3, 9, 1, 1]])
    ours = IoUMetric.intersect_and_union(predicted, label, 4, 255)
    theirs = MMSegIoUMetric.intersect_and_union(predicted, label, 4, 255)
    for own, other in zip(ours, theirs, strict=True):
        assert own.tolist() == other.tolist()


def test_counts_stay_exact_beyond_float32(tmp_path):
    metric = IoUMetric(json_file=str(tmp_path / 'm.json'))
    metric.dataset_meta = META
    # In float32, 2^24 + 1 is 2^24.
    metric.compute_metrics([(torch.tensor([count, 0, 0, 0]),) * 4 for count in (2**24, 1)])
    assert json.loads((tmp_path / 'm.json').read_text())['classes'][0]['pixels'] == 2**24 + 1


def test_json_holds_every_class(hand, tmp_path):
    path = tmp_path / 'new' / 'metrics.json'
    _score(IoUMetric(json_file=str(path), about=dict(checkpoint='a.pth')), [hand])
    content = json.loads(path.read_text())
    assert content['checkpoint'] == 'a.pth' and content['images'] == 1 and content['aAcc'] == 60.0
    sky, tree, road, ship = content['classes']
    assert sky == dict(name='sky', IoU=66.6667, Acc=66.6667, pixels=3)
    assert tree['IoU'] == 50.0
    assert road == dict(name='road', IoU=0.0, Acc=None, pixels=0)
    assert ship['IoU'] is None


def test_table_lists_the_classes_there_are(hand):
    metric = IoUMetric()
    areas = [torch.tensor(values) for values in ([2, 1, 0, 0], [3, 2, 2, 0], [2, 1, 2, 0], [3, 2, 0, 0])]
    metric.dataset_meta = META
    by_class = metric.total_area_to_metrics(*areas)
    by_class.pop('aAcc')
    lines = metric._table(by_class, [0.6, 0.4, 0.0, 0.0]).splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ['sky', '66.67', '66.67', '60.00'],
        ['tree', '50.00', '50.00', '40.00'],
        ['road', '0.00', '-', '0.00'],
    ]
    assert lines[4] == '(1 of 4 classes are neither labelled nor predicted)'


def test_masks_are_stored_as_annotations_are_and_keep_their_folder(tmp_path):
    metric = IoUMetric(output_dir=str(tmp_path / 'out'), image_root='data/images')
    mask = np.array([[0, 1], [2, 3]])
    _score(
        metric,
        [
            _sample(mask, mask, 'data/images/x/a.jpg', reduce_zero_label=True),
            _sample(mask, mask, 'data/images/y/a.jpg', reduce_zero_label=False),
        ],
    )
    assert np.array_equal(np.array(Image.open(tmp_path / 'out/x/a.png')), mask + 1)
    assert np.array_equal(np.array(Image.open(tmp_path / 'out/y/a.png')), mask)


def test_masks_alone_need_no_labels(tmp_path):
    metric = IoUMetric(output_dir=str(tmp_path), format_only=True)
    sample = dict(pred_sem_seg=dict(data=torch.zeros(1, 1, 3, dtype=torch.long)), img_path='a.jpg')
    assert _score(metric, [sample]) == {}
    assert np.array(Image.open(tmp_path / 'a.png')).shape == (1, 3)


@pytest.mark.parity
@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.int64])
def test_counts_equal_mmseg_for_150_classes(dtype):
    predicted, label = torch.randint(0, 150, (2, 61, 83), generator=torch.Generator().manual_seed(0)).to(dtype)
    label[:20] = predicted[:20]
    label[40:45] = 255
    for own, other in zip(
        IoUMetric.intersect_and_union(predicted, label, 150, 255),
        MMSegIoUMetric.intersect_and_union(predicted, label, 150, 255),
        strict=True,
    ):
        assert own.dtype == torch.int64 and own.tolist() == other.tolist()


def test_more_classes_than_a_byte_holds():
    predicted, label = torch.tensor([[0, 299, 300]]), torch.tensor([[0, 299, 299]])
    intersect, union, area_pred, area_label = IoUMetric.intersect_and_union(predicted, label, 300, 255)
    assert (intersect[299], union[299], area_pred[299], area_label[299]) == (1, 2, 1, 2)


def test_another_device_is_never_asked_for_a_value():
    """Tensors without values, which raise where a value is read, as a GPU would be waited for."""
    metric = IoUMetric()
    metric.dataset_meta = META
    values = torch.zeros(1, 5, 6, dtype=torch.long, device='meta')
    metric.process({}, [dict(pred_sem_seg=dict(data=values), gt_sem_seg=dict(data=values), img_path='a.jpg')])
    assert metric.results[0].shape == (4, 4) and metric.results[0].device.type == 'meta'


@pytest.mark.gpu
def test_counts_on_a_gpu_equal_those_on_the_cpu():
    predicted, label = torch.randint(-1, 6, (2, 61, 83), generator=torch.Generator().manual_seed(0))
    on_cpu = IoUMetric.intersect_and_union(predicted, label, 5, 3)
    on_gpu = IoUMetric.intersect_and_union(predicted.cuda(), label.cuda(), 5, 3)
    assert all(torch.equal(a, b) for a, b in zip(on_cpu, on_gpu, strict=True))


@pytest.mark.parity
@pytest.mark.parametrize('ignore_index', [255, 0, 2, 7, -100])
def test_counts_equal_a_count_pixel_by_pixel(ignore_index):
    """Five classes; labels and predictions also outside of them."""
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([0, 1, 2, 3, 4, 5, 7, 255, ignore_index])
    label = values[torch.randint(0, len(values), (20, 30), generator=generator)]
    for predicted in (torch.randint(0, 5, (20, 30), generator=generator), torch.randint(-1, 8, (20, 30))):
        intersect, union, area_pred, area_label = IoUMetric.intersect_and_union(predicted, label, 5, ignore_index)
        counted = label != ignore_index
        for k in range(5):
            is_pred, is_label = (predicted == k) & counted, (label == k) & counted
            assert intersect[k] == (is_pred & is_label).sum()
            assert union[k] == (is_pred | is_label).sum()
            assert area_pred[k] == is_pred.sum()
            assert area_label[k] == is_label.sum()
