"""The rendered scenes: same seed, same bytes; exact masks; colour alone does not give the classes away."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmseg_beit.errors import InputError
from mmseg_beit.scenes import LABELS, UNLABELLED, Request, render_scene, shapes, write_scenes
from mmseg_beit.scenes.canvas import Canvas, Finish, Part, Thing
from mmseg_beit.scenes.render import _majority
from mmseg_beit.scenes.views import camera

ROOT = Path(__file__).parents[2]
TINY = Request(train=3, val=2, size=(64, 48), seed=5)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*.*g'))}


def _white(hit):
    return Finish(np.ones_like(hit.point))


def test_labels_are_ade20k_indices():
    from mmseg.datasets import ADE20KDataset

    classes = ADE20KDataset.METAINFO['classes']
    assert {name: classes[index - 1] for name, index in LABELS.items()} == {name: name for name in LABELS}


def test_scene_depends_on_seed_split_and_index_only():
    image, mask = render_scene(5, 0, 1, (48, 64))
    again, mask_again = render_scene(5, 0, 1, (48, 64))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, mask_again)
    for other in ((6, 0, 1), (5, 1, 1), (5, 0, 2)):
        assert not np.array_equal(render_scene(*other, (48, 64))[0], image)
    assert image.shape == (48, 64, 3) and image.dtype == np.uint8
    assert mask.shape == (48, 64) and mask.dtype == np.uint8


def test_masks_hold_the_dozen_classes_and_unlabelled_only():
    found = set()
    for index in range(40):
        found |= set(np.unique(render_scene(0, 0, index, (48, 64))[1]).tolist())
    assert found == {*LABELS.values(), UNLABELLED}


def test_files_do_not_depend_on_processes_and_count(tmp_path):
    assert write_scenes(tmp_path / 'one', TINY, jobs=1) == 5
    assert write_scenes(tmp_path / 'two', TINY, jobs=2) == 5
    assert _files(tmp_path / 'one') == _files(tmp_path / 'two')
    write_scenes(tmp_path / 'more', Request(train=4, val=2, size=(64, 48), seed=5), jobs=1)
    more = _files(tmp_path / 'more')
    assert all(more[name] == data for name, data in _files(tmp_path / 'one').items())
    assert len(more) == 12


def test_written_mask_fits_its_image(tmp_path):
    write_scenes(tmp_path, TINY, jobs=1)
    for image in (tmp_path / 'images').rglob('*.jpg'):
        mask = cv2.imread(str(tmp_path / 'annotations' / image.parent.name / f'{image.stem}.png'), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8 and mask.shape == (48, 64)
        assert cv2.imread(str(image)).shape == (48, 64, 3)
        assert set(np.unique(mask)) <= {UNLABELLED, *LABELS.values()}


def test_what_is_there_is_kept_and_what_is_missing_is_made(tmp_path):
    write_scenes(tmp_path, TINY, jobs=1)
    before = _files(tmp_path)
    assert write_scenes(tmp_path, TINY, jobs=1) == 0
    gone = tmp_path / 'images' / 'training' / 'scene_train_00001.jpg'
    gone.unlink()
    (tmp_path / 'images' / 'training' / 'scene_train_00001.jpg.77.part').write_bytes(b'half')
    assert write_scenes(tmp_path, TINY, jobs=1) == 1
    assert _files(tmp_path) == before
    assert not list(tmp_path.rglob('*.part'))


def test_scenes_of_other_settings_are_not_replaced_unasked(tmp_path):
    write_scenes(tmp_path, TINY, jobs=1)
    before = _files(tmp_path)
    other = Request(train=1, val=1, size=(64, 48), seed=6)
    with pytest.raises(InputError, match=r'other settings.*--overwrite'):
        write_scenes(tmp_path, other, jobs=1)
    assert _files(tmp_path) == before
    (tmp_path / 'images' / 'training' / 'holiday.jpg').write_bytes(b'mine')
    write_scenes(tmp_path, other, jobs=1, overwrite=True)
    assert len(_files(tmp_path)) == 5
    assert (tmp_path / 'images' / 'training' / 'holiday.jpg').read_bytes() == b'mine'
    assert json.loads((tmp_path / 'scenes.json').read_text())['seed'] == 6


@pytest.mark.parametrize('overwrite', [False, True])
def test_a_folder_of_something_else_is_never_touched(tmp_path, overwrite):
    (tmp_path / 'thesis.txt').write_text('mine')
    with pytest.raises(InputError, match='something else'):
        write_scenes(tmp_path, TINY, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']


@pytest.mark.parametrize(
    ('fields', 'message'),
    [({'train': 0}, 'at least 1'), ({'val': -1}, 'at least 1'), ({'size': (16, 64)}, '16x64'), ({'seed': -1}, 'seed')],
)
def test_bad_requests_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Request(**fields)


def test_tool_refuses_in_one_sentence(tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    done = subprocess.run(
        [sys.executable, 'tools/make_scenes.py', '--out', str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f'error: {tmp_path} holds something else')


@pytest.mark.parametrize(
    ('shape', 'depth', 'normal'),
    [
        (shapes.box((-1, -1, 4), (1, 1, 6)), 4.0, (0, 0, -1)),
        (shapes.Ellipsoid((0, 0, 5), (1, 1, 2)), 3.0, (0, 0, -1)),
        (shapes.Capsule((0, -1, 5), (0, 1, 5), 0.5), 4.5, (0, 0, -1)),
        (shapes.Wheel((0, 0, 5), 0.75, 1.0), 4.25, (0, 0, -1)),
        (shapes.prism((-1, 1, 4, 8), (-1, 1, 5, 7), -1, 1), 4.5, np.array((0, 0.5, -1)) / np.sqrt(1.25)),
    ],
)
def test_rays_meet_shapes_where_geometry_says(shape, depth, normal):
    origin, direction = np.zeros((3, 1, 1), np.float32), np.float32([0, 0, 1])[:, None, None]
    t, face = shape.intersect(origin, direction)
    assert t.item() == pytest.approx(depth, abs=1e-5)
    point = np.float32([[0], [0], [t.item()]])
    np.testing.assert_allclose(shape.normal(point, np.ravel(face))[:, 0], normal, atol=1e-5)
    miss, _ = shape.intersect(origin, np.float32([0, 1, 0.1])[:, None, None])
    assert np.isinf(miss).item()


def test_nearer_thing_hides_farther_one_and_sizes_follow_perspective():
    view = camera((0.0, 1.0, 0.0), 0.0, 0.0, 0.0, np.pi / 2, (100, 100))
    canvas = Canvas.blank(view, 3)
    wall = Thing([Part(shapes.box((-2, 0, -0.1), (2, 2, 0.1)), _white, 2)], z=10.1)
    post = Thing([Part(shapes.box((-0.5, 0, -0.1), (0.5, 2, 0.1)), _white, 33)], z=5.1)
    for thing in (post, wall):
        canvas.draw(thing)
    # A 90 degree view of 100 pixels shows depth d at 50 / d pixels per metre.
    assert (canvas.label == 33).sum() == (1 * 10) * (2 * 10)
    assert (canvas.label == 2).sum() == (4 * 5) * (2 * 5) - (1 * 10) * (2 * 5)
    assert canvas.depth[50, 50] == pytest.approx(5.0, abs=1e-4)
    assert np.isinf(canvas.depth[canvas.label == 3]).all()


def test_majority_of_four_rays():
    fine = np.array([[1, 2, 5, 5], [2, 2, 6, 7], [1, 1, 3, 4], [2, 2, 4, 4]], np.uint8)
    np.testing.assert_array_equal(_majority(fine), [[2, 5], [2, 4]])


def _miou(predicted: np.ndarray, truth: np.ndarray) -> float:
    scores = []
    for label in LABELS.values():
        union = ((predicted == label) | (truth == label)).sum()
        if union:
            scores.append(((predicted == label) & (truth == label)).sum() / union)
    return float(np.mean(scores))


def test_colour_alone_does_not_tell_the_class():
    """Two classifiers of single pixels, nearest mean colour and a 16^3 colour histogram, stay below 0.25 mIoU."""
    pixels, labels = {}, {}
    for split, count in ((0, 40), (1, 16)):
        pairs = [render_scene(0, split, index, (120, 160)) for index in range(count)]
        pixels[split] = np.concatenate([image.reshape(-1, 3) for image, _ in pairs])
        labels[split] = np.concatenate([mask.ravel() for _, mask in pairs])
        known = labels[split] != UNLABELLED
        pixels[split], labels[split] = pixels[split][known], labels[split][known]
    classes = np.array(sorted(LABELS.values()))
    means = np.stack([pixels[0][labels[0] == label].mean(0) for label in classes])
    distance = ((pixels[1][:, None].astype(np.float32) - means) ** 2).sum(-1)
    nearest_mean = _miou(classes[distance.argmin(1)], labels[1])
    bins = [(values // 16).astype(int) @ (256, 16, 1) for values in (pixels[0], pixels[1])]
    counts = np.stack([np.bincount(bins[0][labels[0] == label], minlength=4096) for label in classes])
    histogram = _miou(classes[counts.argmax(0)][bins[1]], labels[1])
    balanced = _miou(classes[(counts / counts.sum(1, keepdims=True)).argmax(0)][bins[1]], labels[1])
    assert nearest_mean < 0.25 and histogram < 0.25 and balanced < 0.25, (nearest_mean, histogram, balanced)
