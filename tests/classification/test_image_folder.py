"""Labelled pictures in folders: labels, and each mistake in one sentence."""

import shutil

import pytest

from mmseg_beit.datasets import ImageFolder
from mmseg_beit.errors import InputError, MissingFileError
from mmseg_beit.registry import TRANSFORMS
from tests.classification.conftest import write_folder, write_picture

LOAD = [TRANSFORMS.get('mmseg_beit.LoadImageFromFile')()]


def items(dataset):
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def test_labels_are_the_places_of_the_sorted_folders(folder):
    dataset = ImageFolder(str(folder), dict(img_path='train'))
    assert dataset.metainfo['classes'] == dataset.metainfo['folders'] == ('grass', 'road', 'water')
    assert [item['gt_label'] for item in items(dataset)] == [0] * 8 + [1] * 8 + [2] * 8
    assert items(dataset)[8]['img_path'].endswith('train/road/0.jpg')


def test_pictures_lie_at_any_depth_and_other_files_are_none(folder):
    write_picture(folder / 'train' / 'road' / 'deep' / 'X.JPEG', (1, 2, 3))
    (folder / 'train' / 'road' / 'notes.txt').write_text('no picture')
    write_picture(folder / 'train' / 'road' / '._0.jpg', (1, 2, 3))
    assert len(ImageFolder(str(folder), dict(img_path='train'))) == 25


def test_validation_takes_its_labels_from_the_training_folder(folder):
    shutil.rmtree(folder / 'val' / 'grass')
    own = ImageFolder(str(folder), dict(img_path='val'))
    shared = ImageFolder(str(folder), dict(img_path='val'), class_folder='train')
    assert {item['gt_label'] for item in items(own)} == {0, 1}
    assert {item['gt_label'] for item in items(shared)} == {1, 2}
    assert shared.metainfo['classes'] == ('grass', 'road', 'water')


def test_names_to_show(folder):
    dataset = ImageFolder(str(folder), dict(img_path='train'), class_names=['a', 'b', 'c'])
    assert dataset.metainfo['classes'] == ('a', 'b', 'c')
    assert dataset.metainfo['folders'] == ('grass', 'road', 'water')
    with pytest.raises(InputError, match='2 names for 3 class folders'):
        ImageFolder(str(folder), dict(img_path='train'), class_names=['a', 'b'])
    with pytest.raises(InputError, match='1000 names for 3'):
        ImageFolder(str(folder), dict(img_path='train'), class_names='imagenet')
    with pytest.raises(InputError, match="class_names='imagnet' is unknown"):
        ImageFolder(str(folder), dict(img_path='train'), class_names='imagnet')


def test_a_class_that_training_lacks(folder):
    write_picture(folder / 'val' / 'sky' / '0.jpg', (1, 2, 3))
    with pytest.raises(InputError, match=r'val has the class sky that .*train lacks: remove it'):
        ImageFolder(str(folder), dict(img_path='val'), class_folder='train')


@pytest.mark.parametrize(
    'make, said',
    [
        (lambda root: None, 'does not exist'),
        (lambda root: root.mkdir(), 'is empty: labelled pictures lie in one sub-folder per class'),
        (lambda root: write_picture(root / '0.jpg', (1, 2, 3)), 'holds 1 files but no class sub-folder'),
        (lambda root: (root / 'road').mkdir(parents=True), 'the 1 class folders of .* hold no picture'),
    ],
    ids=['missing', 'empty', 'flat', 'empty classes'],
)
def test_folders_without_labelled_pictures(tmp_path, make, said):
    make(tmp_path / 'train')
    with pytest.raises(MissingFileError, match=said):
        ImageFolder(str(tmp_path), dict(img_path='train'))


def test_missing_class_folder_tells_what_to_do(folder):
    shutil.rmtree(folder / 'train')
    with pytest.raises(MissingFileError, match='class_folder=None'):
        ImageFolder(str(folder), dict(img_path='val'), class_folder='train')


def damage(folder, split, count):
    """Damages the first pictures of a class, each in another way."""
    ways = [
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        lambda path: path.write_text('<html>not found</html>'),
    ]
    for index in range(count):
        ways[index % 3](folder / split / 'road' / f'{index}.jpg')


def test_a_test_leaves_out_and_counts_unreadable_pictures(tmp_path, caplog):
    folder = write_folder(tmp_path, 1, 20)
    damage(folder, 'val', 3)
    caplog.set_level('WARNING')
    dataset = ImageFolder(str(folder), dict(img_path='val'), test_mode=True, pipeline=LOAD)
    assert len(dataset) == 57
    assert all(dataset[index]['img'].shape == (36, 48, 3) for index in range(57))


def test_a_test_stops_where_too_many_are_unreadable(folder):
    damage(folder, 'val', 1)
    with pytest.raises(InputError, match=r'1 of 9 pictures .* is an empty file.*unreadable_limit=0\.05'):
        ImageFolder(str(folder), dict(img_path='val'), test_mode=True)
    assert len(ImageFolder(str(folder), dict(img_path='val'), test_mode=True, unreadable_limit=0.2)) == 8


def test_training_draws_another_picture_for_an_unreadable_one(folder):
    damage(folder, 'train', 3)
    dataset = ImageFolder(str(folder), dict(img_path='train'), pipeline=LOAD, unreadable_limit=0.5)
    assert all(dataset[index]['img'].shape == (36, 48, 3) for index in range(24))
    assert dataset._num_failed >= 3


def test_training_stops_where_too_many_are_unreadable(folder):
    damage(folder, 'train', 8)
    dataset = ImageFolder(str(folder), dict(img_path='train'), pipeline=LOAD)
    with pytest.raises(InputError, match=r'11 of .* pictures .* are unreadable'):
        for _ in range(20):
            [dataset[index] for index in range(24)]


def test_limit_is_a_share(folder):
    with pytest.raises(InputError, match='give a share from 0 to 1'):
        ImageFolder(str(folder), unreadable_limit=5)
