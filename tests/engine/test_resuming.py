"""Files that appear whole, checkpoints to go on from, and training states without objects."""

import os
import stat

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmseg_beit.engine.resuming import (
    checkpoints_newest_first,
    remove_leftovers,
    replacing,
    restore_histories,
    to_plain,
)


def test_replacing_puts_the_whole_file_in_place(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_text('old')
    with replacing(path) as temporary:
        temporary.write_text('new')
        assert path.read_text() == 'old'
        assert temporary.parent == path.parent
    assert path.read_text() == 'new'
    assert [p.name for p in tmp_path.iterdir()] == ['a.pth']


def test_replacing_leaves_the_former_file_when_writing_fails(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_text('old')
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text('half')
        raise RuntimeError
    assert path.read_text() == 'old'
    assert len(list(tmp_path.iterdir())) == 1


def test_a_replaced_file_is_as_readable_as_any_other(tmp_path):
    (tmp_path / 'plain').write_text('')
    with replacing(tmp_path / 'a.pth') as temporary:
        temporary.write_text('new')
    assert stat.S_IMODE((tmp_path / 'a.pth').stat().st_mode) == stat.S_IMODE((tmp_path / 'plain').stat().st_mode)


def _touch(folder, name, age):
    path = folder / name
    path.write_text('')
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_last_checkpoint_comes_first_then_the_newest(tmp_path):
    old, new, named = (_touch(tmp_path, f'iter_{n}.pth', age) for n, age in ((900, 9), (20, 1), (10, 5)))
    _touch(tmp_path, 'best_mIoU_iter_10.pth', 0)
    (tmp_path / 'last_checkpoint').write_text(str(named))
    assert checkpoints_newest_first(tmp_path) == [named, new, old]


def test_a_moved_work_dir_still_finds_its_last_checkpoint(tmp_path):
    path = _touch(tmp_path, 'iter_10.pth', 5)
    _touch(tmp_path, 'iter_20.pth', 1)
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/iter_10.pth')
    assert checkpoints_newest_first(tmp_path)[0] == path


def test_no_checkpoint_in_an_empty_or_missing_folder(tmp_path):
    assert checkpoints_newest_first(tmp_path) == []
    assert checkpoints_newest_first(tmp_path / 'none') == []


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    _touch(tmp_path, '.iter_10.pth.x1.tmp', 1)
    kept = _touch(tmp_path, 'iter_10.pth', 1)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


def test_plain_state_is_read_with_weights_only_and_an_empty_allow_list(tmp_path):
    state = dict(
        scalar=np.float64(1.5),
        flag=np.bool_(True),
        array=np.arange(3),
        words=np.array(['a', 'b']),
        nested=[(np.int64(2), {'x': torch.ones(2)})],
        function=print,
        log=HistoryBuffer([1.0, 2.0], [1, 1]),
    )
    torch.save(to_plain(state), tmp_path / 'state.pth')
    read = restore_histories(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert read['scalar'] == 1.5 and type(read['scalar']) is float
    assert read['flag'] is True
    assert read['array'].tolist() == [0, 1, 2]
    assert read['words'] == ['a', 'b']
    assert read['nested'][0][0] == 2 and read['nested'][0][1]['x'].tolist() == [1.0, 1.0]
    assert read['function'] is None
    assert isinstance(read['log'], HistoryBuffer)
    assert read['log'].mean() == 1.5 and read['log'].current() == 2.0


def test_plain_keeps_versions_of_a_state_dict():
    state_dict = torch.nn.BatchNorm2d(2).state_dict()
    plain = to_plain({'state_dict': state_dict})['state_dict']
    assert plain._metadata == state_dict._metadata
    assert list(plain) == list(state_dict)
