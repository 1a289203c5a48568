"""What a user is told: one sentence, without what libraries wrapped around it, and an exit status."""

import pytest
import torch
from mmengine.registry import Registry
from torch.utils.data import DataLoader, Dataset

from mmseg_beit.errors import InputError, MissingFileError, run_tool, sentence

PARTS = Registry('part', scope='mmseg_beit')


@PARTS.register_module()
class Part:
    def __init__(self, size, inner=None):
        if inner is not None:
            PARTS.build(inner)
        if size % 2:
            raise InputError(f'size {size} is odd: use an even number')


class Broken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise MissingFileError('image a/b.jpg does not exist: correct the path')


def test_errors_are_what_callers_expect():
    assert issubclass(InputError, ValueError)
    assert issubclass(MissingFileError, FileNotFoundError)
    assert str(MissingFileError('x.pth does not exist: correct the path')) == 'x.pth does not exist: correct the path'


def test_lines_become_one():
    assert sentence(InputError(' first\n  second ')) == 'first second'


def test_what_the_builder_adds_is_removed():
    with pytest.raises(Exception) as nested:  # mmengine chooses the type
        PARTS.build(dict(type='Part', size=2, inner=dict(type='Part', size=3)))
    assert 'size 3 is odd: use an even number' in str(nested.value)
    assert sentence(nested.value) == 'size 3 is odd: use an even number'


def test_what_a_data_loader_worker_adds_is_removed():
    with pytest.raises(MissingFileError) as error:
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert 'Traceback' in str(error.value)
    assert sentence(error.value) == 'image a/b.jpg does not exist: correct the path'


@pytest.mark.parametrize(
    ('outcome', 'status', 'told'),
    [
        (None, 0, ''),
        (0, 0, ''),
        (1, 1, ''),
        (InputError('crop 30 is odd: use 32'), 2, 'error: crop 30 is odd: use 32\n'),
        (
            MissingFileError('a.py does not exist: correct the path'),
            2,
            'error: a.py does not exist: correct the path\n',
        ),
        (KeyboardInterrupt(), 130, 'interrupted\n'),
    ],
    ids=repr,
)
def test_a_tool_ends_in_a_status_and_a_sentence(outcome, status, told, capsys):
    def main():
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    with pytest.raises(SystemExit) as end:
        run_tool(main)
    assert end.value.code == status
    assert capsys.readouterr() == ('', told)


def test_a_defect_keeps_its_traceback():
    with pytest.raises(RuntimeError, match='shape'):
        run_tool(lambda: torch.zeros(2).view(3))
