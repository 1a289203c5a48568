"""Where results go."""

from pathlib import Path

import pytest

from mmseg_beit.apis.outputs import check_outputs, plan_outputs
from mmseg_beit.apis.pictures import Picture
from mmseg_beit.errors import InputError


def plan(*names, **options):
    outputs = plan_outputs([Picture(Path('in') / name, Path(name)) for name in names], 'out', **options)
    return [str(files.overlay) for files in outputs.values()]


def test_names_keep_their_folders_and_lose_their_ending():
    assert plan('a.jpg', 'x/a.jpg', 'x.y/b.c.tif') == ['out/a.png', 'out/x/a.png', 'out/x.y/b.c.png']


def test_equal_names_keep_their_ending():
    assert plan('a.jpg', 'a.png', 'b.png') == ['out/a.jpg.png', 'out/a.png.png', 'out/b.png']
    assert plan('a.jpg', 'A.png') == ['out/a.jpg.png', 'out/A.png.png']


def test_what_is_still_equal_is_numbered():
    assert plan('a.jpg', 'a.png', 'a.jpg.tif') == ['out/a.jpg.png', 'out/a.png.png', 'out/a.jpg_2.png']


def test_masks_lie_beside_under_the_same_names():
    outputs = plan_outputs([Picture(Path('in/x/a.jpg'), Path('x/a.jpg'))], 'out', with_masks=True)
    assert outputs[Path('in/x/a.jpg')].mask == Path('out/masks/x/a.png')
    assert plan_outputs([Picture(Path('a.jpg'), Path('a.jpg'))], 'out')[Path('a.jpg')].mask is None


def test_masks_do_not_meet_the_overlays_of_a_folder_called_masks():
    pictures = [Picture(Path(name), Path(name)) for name in ('a.jpg', 'masks/a.jpg')]
    outputs = plan_outputs(pictures, 'out', with_masks=True)
    files = [file for each in outputs.values() for file in (each.overlay, each.mask)]
    assert len(set(files)) == 4


@pytest.mark.parametrize('link', ['same', 'symlink', 'hardlink'])
def test_a_result_never_replaces_an_input(tmp_path, link):
    source = tmp_path / 'a.png'
    source.write_bytes(b'x')
    folder = tmp_path if link == 'same' else tmp_path / 'out'
    folder.mkdir(exist_ok=True)
    if link == 'symlink':
        (folder / 'a.png').symlink_to(source)
    elif link == 'hardlink':
        (folder / 'a.png').hardlink_to(source)
    with pytest.raises(InputError, match=r'would replace the picture .*--out-dir'):
        check_outputs(folder, plan_outputs([Picture(source, Path('a.png'))], folder))
    assert source.read_bytes() == b'x'


def test_results_of_an_earlier_run_are_replaced(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'earlier')
    check_outputs(tmp_path, plan_outputs([Picture(tmp_path / 'a.jpg', Path('a.jpg'))], tmp_path))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(InputError, match=r'file/out cannot be written .*--out-dir'):
        check_outputs(tmp_path / 'file' / 'out', {})
