"""The visualizer of test runs."""

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_beit.errors import InputError
from mmseg_beit.registry import VISUALIZERS
from mmseg_beit.visualization import SegLocalVisualizer, blend, class_palette

META = dict(classes=('sky', 'road'), palette=[[200, 0, 100], [0, 255, 0]])


@pytest.fixture
def visualizer():
    visualizer = SegLocalVisualizer()
    visualizer.dataset_meta = META
    return visualizer


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def sample(**masks):
    fields = {f'{key}_sem_seg': PixelData(data=torch.as_tensor(mask)[None]) for key, mask in masks.items()}
    return SegDataSample(**fields)


def test_ours_is_built_inside_our_scope():
    built = VISUALIZERS.build(dict(type='SegLocalVisualizer', name='built', alpha=0.3))
    assert type(built) is SegLocalVisualizer and built.alpha == 0.3


def test_truth_stands_left_of_the_prediction(visualizer, image):
    truth = np.zeros((60, 90), np.int64)
    truth[:30] = 255
    prediction = np.ones((60, 90), np.int64)
    drawn = visualizer.draw(image, sample(gt=truth, pred=prediction), with_labels=False)
    palette = class_palette(META, 2)
    assert (drawn[:, :90] == blend(image, truth, palette)).all()
    assert (drawn[:30, :90] == image[:30]).all()
    assert (drawn[:, -90:] == blend(image, prediction, palette)).all()


def test_labels_add_titles_and_a_legend_around_the_same_pixels(visualizer, image):
    data = sample(pred=np.ones((60, 90), np.int64))
    plain, full = visualizer.draw(image, data, with_labels=False), visualizer.draw(image, data)
    top = full.shape[0] - plain.shape[0]
    assert top > 0
    assert any((full[y : y + 60, :90] == plain).all() for y in range(top))


def test_masks_of_another_size_are_brought_to_the_picture(visualizer, image):
    drawn = visualizer.draw(image, sample(gt=np.array([[0], [1]])), with_labels=False)
    expected = np.repeat([[0], [1]], 30, axis=0).repeat(90, axis=1)
    assert (drawn == blend(image, expected, class_palette(META, 2))).all()


def test_without_labels_or_sample_the_picture_comes_back(visualizer, image):
    assert (visualizer.draw(image) == image).all()
    assert (visualizer.draw(image, SegDataSample()) == image).all()


def test_a_file_or_the_backends_get_what_is_drawn(tmp_path, image):
    visualizer = SegLocalVisualizer(vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path / 'run'))
    visualizer.dataset_meta = META
    data = sample(pred=np.ones((60, 90), np.int64))
    visualizer.add_datasample('one', image, data, out_file=str(tmp_path / 'out' / 'one.png'))
    visualizer.add_datasample('two', image, data, step=3)
    expected = visualizer.draw(image, data)
    assert (np.asarray(Image.open(tmp_path / 'out' / 'one.png')) == expected).all()
    [backend_file] = (tmp_path / 'run').rglob('two_3.png')
    assert (np.asarray(Image.open(backend_file)) == expected).all()


def test_classes_can_be_given_without_palette():
    assert SegLocalVisualizer(classes=['a', 'b']).dataset_meta['classes'] == ['a', 'b']
    assert len(SegLocalVisualizer(dataset_name='ade20k').dataset_meta['classes']) == 150


def test_opacity_is_checked():
    with pytest.raises(InputError, match='opacity'):
        SegLocalVisualizer(alpha=2)
