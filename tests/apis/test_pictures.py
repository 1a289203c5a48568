"""Reading pictures of every kind, and finding them."""

import mmcv
import numpy as np
import pytest
from PIL import Image

from mmseg_beit.apis.pictures import find_pictures, picture_array, read_picture
from mmseg_beit.errors import InputError, MissingFileError

from .conftest import photo


@pytest.fixture
def save(tmp_path):
    def save(image, name, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
        return path

    return save


@pytest.mark.parity
@pytest.mark.parametrize('options', [dict(quality=75), dict(quality=95, subsampling=0), dict(progressive=True)])
def test_ordinary_files_have_the_pixels_of_the_training_pipeline(save, options):
    for path in (save(photo(61, 83), 'a.jpg', **options), save(photo(61, 83), 'a.png')):
        assert (read_picture(path) == mmcv.imread(path, channel_order='rgb')).all()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_rotation_is_applied(save, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(photo(20, 30), 'a.png', exif=exif)
    turned = dict(zip(range(1, 9), (
        lambda p: p, lambda p: p[:, ::-1], lambda p: p[::-1, ::-1], lambda p: p[::-1], lambda p: p.swapaxes(0, 1),
        lambda p: p.swapaxes(0, 1)[:, ::-1], lambda p: p.swapaxes(0, 1)[::-1, ::-1], lambda p: p.swapaxes(0, 1)[::-1],
    ), strict=True))  # fmt: skip
    assert (read_picture(path) == turned[orientation](photo(20, 30))).all()


def test_grey_is_repeated(save):
    grey = photo()[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    assert (read_picture(save(grey, 'a.png')) == expected).all()
    assert (picture_array(grey) == expected).all()
    assert (picture_array(grey[..., None]) == expected).all()


def test_transparency_is_laid_on_white(save):
    color = np.full((1, 4, 3), 100, np.uint8)
    alpha = np.array([[[0], [51], [128], [255]]], np.uint8)
    # 100 a + 255 (1 - a): 255; 224; 177.2; 100
    expected = [[[255] * 3, [224] * 3, [177] * 3, [100] * 3]]
    assert picture_array(np.dstack([color, alpha])).tolist() == expected
    assert read_picture(save(np.dstack([color, alpha]), 'a.png')).tolist() == expected
    grey_alpha = Image.fromarray(np.dstack([color, alpha])).convert('LA')
    assert read_picture(save(grey_alpha, 'b.png')).tolist() == expected


def test_palettes_with_and_without_a_transparent_index(save):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), 'P')
    palette.putpalette([10, 20, 30, 200, 100, 50])
    assert read_picture(save(palette, 'a.png')).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert read_picture(save(palette, 'b.png', transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_sixteen_bits_keep_their_upper_eight(save):
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    expected = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert (read_picture(save(values, 'grey.png')) == expected).all()
    assert (picture_array(np.dstack([values] * 3)) == expected).all()


def test_sixteen_bit_colour_files(tmp_path):
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    bgr = np.dstack([values, values[::-1], values.T])
    mmcv.imwrite(bgr, str(tmp_path / 'a.png'))
    assert (read_picture(tmp_path / 'a.png') == (bgr[..., ::-1] >> 8)).all()


@pytest.mark.parametrize('mode', ['CMYK', 'YCbCr', '1', 'L', 'HSV', 'LAB', 'RGBX'])
def test_other_colour_spaces_become_rgb(mode):
    image = Image.fromarray(photo()).convert('RGB' if mode == 'LAB' else mode)
    array = picture_array(image)
    assert array.shape == (48, 64, 3) and array.dtype == np.uint8
    assert (array == np.asarray(image.convert('RGB'))).all()


def test_the_first_picture_of_an_animation(save):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (40, 200)]
    assert (read_picture(save(frames[0], 'a.gif', save_all=True, append_images=frames[1:])) == 40).all()


def test_arrays_are_rgb_unless_said_otherwise():
    array = photo()
    assert (picture_array(array) == array).all()
    assert (picture_array(array, 'bgr') == array[..., ::-1]).all()
    with pytest.raises(InputError, match='channel_order'):
        picture_array(array, 'brg')


@pytest.mark.parametrize(
    ('value', 'said'),
    [
        (np.zeros((4, 4, 3)), 'float64 values'),
        (np.zeros((4, 4, 3), bool), 'bool values'),
        (np.zeros((3, 40, 40), np.uint8), r'shape \(3, 40, 40\)'),
        (np.zeros((0, 4, 3), np.uint8), 'shape'),
        (np.zeros(4, np.uint8), 'shape'),
        (None, 'NoneType'),
        (Image.fromarray(np.zeros((4, 4), np.float32)), 'floating point'),
        (Image.fromarray(np.full((4, 4), 70000, np.int32)), '70000'),
    ],
)
def test_what_is_no_picture_is_said(value, said):
    with pytest.raises(InputError, match=said):
        picture_array(value)


def test_damaged_files_are_named_with_the_reason(save, tmp_path):
    whole = save(photo(200, 300), 'whole.jpg').read_bytes()
    png = save(photo(200, 300), 'whole.png').read_bytes()
    for name, content, said in (
        ('cut.jpg', whole[: len(whole) // 2], 'truncated'),
        ('cut.png', png[: len(png) // 2], 'truncated|broken'),
        ('empty.png', b'', 'empty'),
        ('text.jpg', b'hello', 'no picture format'),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf'{name} cannot be read: .*({said})'):
            read_picture(tmp_path / name)
    with pytest.raises(MissingFileError, match='nowhere'):
        read_picture(tmp_path / 'nowhere.jpg')


def test_pictures_above_pillows_limit_are_read(save, monkeypatch):
    path = save(photo(40, 40), 'a.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert read_picture(path).shape == (40, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_find_in_folders_patterns_and_files(save, tmp_path, monkeypatch):
    for name in ('b.jpg', 'a.PNG', 'sub/c.png', 'sub/deep/d.tif', '._b.jpg'):
        save(photo(8, 8), name, format='PNG')
    (tmp_path / 'notes.txt').write_text('x')
    (tmp_path / 'gone.jpg').symlink_to(tmp_path / 'nowhere')
    monkeypatch.chdir(tmp_path)

    def names(*sources, **options):
        return [str(picture.name) for picture in find_pictures(sources, **options)]

    assert names('.') == ['a.PNG', 'b.jpg', 'gone.jpg']
    assert names('.', recursive=True) == ['a.PNG', 'b.jpg', 'gone.jpg', 'sub/c.png', 'sub/deep/d.tif']
    assert names('*.jpg') == ['b.jpg', 'gone.jpg']
    assert names('**/*.*') == ['a.PNG', 'b.jpg', 'gone.jpg', 'sub/c.png', 'sub/deep/d.tif']
    assert names('sub/**/*') == ['c.png', 'deep/d.tif']
    assert names('notes.txt', 'b.jpg', './b.jpg', 'sub') == ['notes.txt', 'b.jpg', 'c.png']
    assert names('.', recursive=True, skip='sub') == ['a.PNG', 'b.jpg', 'gone.jpg']
    assert names('sub/deep', skip='.') == ['d.tif']


@pytest.mark.parametrize(
    ('source', 'said'),
    [
        ('nowhere.jpg', 'nowhere.jpg does not exist'),
        ('*.bmp', r'pattern \*.bmp holds no picture'),
        ('empty', 'folder empty holds no picture.*--recursive'),
        ('sub', 'only what is in the output folder'),
    ],
)
def test_nothing_to_find_is_said(save, tmp_path, monkeypatch, source, said):
    save(photo(8, 8), 'sub/a.png')
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        find_pictures([source], skip='sub')


def test_a_file_with_magic_characters_in_its_name_is_a_file(save, tmp_path):
    path = save(photo(8, 8), 'a[1]*.png')
    assert find_pictures([path])[0].path == path


def test_real_photographs_have_the_pixels_of_the_training_pipeline(msrc):
    for path in sorted((msrc / 'images' / 'validation').glob('*.jpg'))[::30]:
        assert (read_picture(path) == mmcv.imread(path, channel_order='rgb')).all()
