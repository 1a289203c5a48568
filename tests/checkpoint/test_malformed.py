"""Files that are no checkpoints, or bad ones: one clear sentence each, no code run, no large allocation, in no time."""

import io
import json
import os
import pickle
import resource
import struct
import time
import zipfile
from collections import OrderedDict

import pytest
import torch

from mmseg_beit.checkpoint import load_checkpoint, read_state_dict
from mmseg_beit.errors import InputError, MissingFileError, sentence
from tests.checkpoint.peers import beit, official_backbone

GIB = 1 << 30


@pytest.fixture(scope='module')
def good():
    """A good file's bytes, in the zip form."""
    buffer = io.BytesIO()
    torch.save(dict(model=official_backbone()), buffer)
    return buffer.getvalue()


@pytest.fixture(scope='module')
def legacy():
    """The same in torch's older form."""
    buffer = io.BytesIO()
    torch.save(dict(model=official_backbone()), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.fixture(scope='module')
def safe():
    """The same as safetensors."""
    from safetensors.torch import save

    return save({name: tensor for name, tensor in official_backbone().items() if tensor.is_floating_point()})


def refusal(path, trust=False):
    """The sentence; reading must take little time and memory."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(InputError) as caught:
        read_state_dict(path, trust=trust)
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB
    text = sentence(caught.value)
    assert str(path) in text and '\n' not in str(caught.value)
    assert len(text) < 600
    return text


class Runs:
    """Pickles to a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def rewrite(data, change):
    """A zip checkpoint whose entries went through ``change(name, content)``; ``None`` drops one."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, 'w', zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return out.getvalue()


def edit_pickle(data, old, new):
    """A zip checkpoint with bytes of its data.pkl replaced."""

    def change(name, content):
        if name.endswith('data.pkl'):
            assert old in content
            return content.replace(old, new, 1)
        return content

    return rewrite(data, change)


def header(**tensors):
    """A safetensors file with this header and eight bytes of content."""
    text = json.dumps(tensors).encode()
    return struct.pack('<Q', len(text)) + text + bytes(8)


@pytest.mark.parametrize('cut', [1, 3, 10, 100, 0.1, 0.5, 0.9, 0.999, -1])
@pytest.mark.parametrize('form', ['good', 'legacy', 'safe'])
def test_cut_short(tmp_path, request, form, cut):
    data = request.getfixturevalue(form)
    path = tmp_path / 'cut.pth'
    path.write_bytes(data[: int(len(data) * cut) if isinstance(cut, float) else cut])
    assert 'again' in refusal(path) or 'neither' in refusal(path)


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        (b'', 'is empty'),
        (b'<!DOCTYPE html><html><body>404</body></html>', 'web page'),
        (b'\n <html>', 'web page'),
        (b'<?xml version="1.0"?><Error><Code>AuthenticationFailed</Code></Error>', 'web page'),
        (b'{"model_type": "beit"}', 'is JSON'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n', 'Git LFS'),
        (bytes(range(7, 256)) * 50, 'neither'),
        (bytes(5000), 'neither'),
        (b'\x1f\x8b\x08' + bytes(500), 'neither'),
        (b'PK\x03\x04' + bytes(500), 'damaged'),
        (struct.pack('<Q', 1 << 62) + b'{' + bytes(100), 'header claims'),
        (struct.pack('<Q', 200) + b'{' + bytes(100), 'header claims'),
        (struct.pack('<Q', 8) + b'{"a": 1}', 'damaged safetensors'),
        (struct.pack('<Q', 90000) + b'{"a":' * 18000, 'damaged safetensors'),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_other_content(tmp_path, content, says):
    path = tmp_path / 'weights.pth'
    path.write_bytes(content)
    assert says in refusal(path)


@pytest.mark.parametrize(
    ('tensors', 'says'),
    [
        (dict(a=dict(dtype='F32', shape=[2], data_offsets=[0, 80])), 'damaged safetensors'),
        (dict(a=dict(dtype='F32', shape=[1 << 40], data_offsets=[0, 8])), 'damaged safetensors'),
        (dict(a=dict(dtype='F32', shape=[1 << 62, 1 << 62], data_offsets=[0, 8])), 'damaged safetensors'),
        (dict(a=dict(dtype='F32', shape=[-2], data_offsets=[0, 8])), 'damaged safetensors'),
        (
            dict(
                a=dict(dtype='F32', shape=[2], data_offsets=[0, 8]), b=dict(dtype='F32', shape=[2], data_offsets=[0, 8])
            ),
            'damaged safetensors',
        ),
        (dict(a=dict(dtype='C1024', shape=[2], data_offsets=[0, 8])), 'damaged safetensors'),
        (dict(a=dict(dtype='I32', shape=[2], data_offsets=[0, 8])), 'int32 numbers'),
    ],
    ids=['beyond', 'claims', 'overflow', 'negative', 'overlap', 'dtype', 'integers'],
)
def test_safetensors_headers(tmp_path, tensors, says):
    path = tmp_path / 'model.safetensors'
    path.write_bytes(header(**tensors))
    assert says in refusal(path)


def test_safetensors_names_twice(tmp_path):
    entry = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    text = f'{{"a":{entry},"a":{entry}}}'.encode()
    (tmp_path / 'model.safetensors').write_bytes(struct.pack('<Q', len(text)) + text + bytes(8))
    assert 'twice' in refusal(tmp_path / 'model.safetensors')


FORBIDDEN = [
    (os.system, 'touch {}', 'posix.system'),
    (eval, "open('{}', 'w')", 'builtins.eval'),
    (exec, "open('{}', 'w')", 'builtins.exec'),
    (__import__('subprocess').check_call, ['touch', '{}'], 'subprocess.check_call'),
    (__import__('runpy').run_path, '{}', 'runpy.run_path'),
    (torch.load, '{}', 'torch.serialization.load'),
    (torch.hub.load, '{}', 'torch.hub.load'),
    (__import__, 'os', 'builtins.__import__'),
    (open, '{}', 'open'),
]


@pytest.mark.parametrize(('function', 'argument', 'name'), FORBIDDEN, ids=[name for *_, name in FORBIDDEN])
@pytest.mark.parametrize('form', ['zip', 'legacy', 'plain', 'plain 0'])
def test_pickles_that_run_code(tmp_path, form, function, argument, name):
    mark, path = tmp_path / 'ran', tmp_path / 'evil.pth'
    argument = [a.format(mark) for a in argument] if isinstance(argument, list) else argument.format(mark)
    content = dict(model=official_backbone(), args=Runs(function, argument))
    if form.startswith('plain'):
        path.write_bytes(pickle.dumps(content['args'], protocol=0 if form == 'plain 0' else 4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == 'zip')
    text = refusal(path)
    assert name in text and '--trust-checkpoint' in text
    assert not mark.exists()


def test_getattr_reaches_nothing(tmp_path):
    # mmengine's logs need builtins.getattr; it must not lead anywhere else.
    path = tmp_path / 'evil.pth'
    torch.save(dict(model=official_backbone(), log=Runs(getattr, torch.nn.Module, '__init__')), path)
    assert 'torch.nn.modules.module.Module' in refusal(path)
    torch.save(dict(model=official_backbone(), log=Runs(getattr, 'text', 'format')), path)
    assert 'getattr' in refusal(path)


def test_code_runs_only_when_trusted(tmp_path):
    mark, path = tmp_path / 'ran', tmp_path / 'trusted.pth'
    torch.save(dict(model=official_backbone(), args=Runs(os.system, f'touch {mark}')), path)
    refusal(path)
    assert not mark.exists()
    state_dict, _ = read_state_dict(path, trust=True)
    assert mark.exists() and 'cls_token' in state_dict


def test_whole_modules_are_refused_by_name(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'module.pth')
    assert 'torch.nn.modules.linear.Linear' in refusal(tmp_path / 'module.pth')


def test_torchscript(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / 'script.pt'))
    assert 'TorchScript' in refusal(tmp_path / 'script.pt')


def test_archives_that_are_no_checkpoints(tmp_path, good):
    path = tmp_path / 'archive.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', 'hello')
    assert 'no data.pkl' in refusal(path)
    path.write_bytes(rewrite(good, lambda name, content: None if name.endswith('data.pkl') else content))
    assert 'no data.pkl' in refusal(path)
    path.write_bytes(rewrite(good, lambda name, content: None if name.endswith('/data/3') else content))
    assert 'holds 0' in refusal(path)
    path.write_bytes(rewrite(good, lambda name, content: content[:8] if name.endswith('/data/3') else content))
    assert 'claims' in refusal(path)
    path.write_bytes(rewrite(good, lambda name, content: b'' if name.endswith('data.pkl') else content))
    assert 'no readable checkpoint' in refusal(path)
    path.write_bytes(rewrite(good, lambda name, content: os.urandom(99) if name.endswith('data.pkl') else content))
    refusal(path)


def test_zip_bombs(tmp_path, good):
    path = tmp_path / 'bomb.pth'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', bytes(300 << 20))
    assert path.stat().st_size < 1 << 20
    assert 'compressed' in refusal(path)
    # Many entries that are all the same bytes of the file.
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', bytes(1 << 20))
        for i in range(50):
            entry = zipfile.ZipInfo(f'archive/data/{i}')
            first = archive.infolist()[0]
            entry.header_offset, entry.CRC = first.header_offset, first.CRC
            entry.file_size = entry.compress_size = first.file_size
            archive.filelist.append(entry)
    assert 'claims more bytes' in refusal(path)
    # Two entries of one name: what is checked would not be what is read.
    with zipfile.ZipFile(path, 'w') as archive, pytest.warns(UserWarning):
        archive.writestr('archive/data.pkl', b'1')
        archive.writestr('archive/data.pkl', b'2')
    assert 'two entries' in refusal(path)


def storage(numel, key='0'):
    """A persistent id as torch writes it, for a pickle made by hand."""
    return ('storage', Name('torch', 'FloatStorage'), key, 'cpu', numel)


class Name:
    """A global that a pickle made by hand asks for."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class HandMade(pickle._Pickler):
    """Writes persistent ids for tuples that begin with 'storage', globals for :class:`Name`."""

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Storage) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            self.write(pickle.GLOBAL + f'{obj.module}\n{obj.name}\n'.encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.args)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


class Storage:
    def __init__(self, *pid):
        self.pid = pid


class Call:
    def __init__(self, function, *args):
        self.function, self.args = function, args


def hand_made(path, content, data=bytes(16)):
    buffer = io.BytesIO()
    HandMade(buffer, 2).dump(content)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', buffer.getvalue())
        archive.writestr('archive/version', b'3\n')
        archive.writestr('archive/data/0', data)


def tensor(numel, size, stride, offset=0):
    return Call(
        Name('torch._utils', '_rebuild_tensor_v2'),
        Storage(*storage(numel)),
        offset,
        size,
        stride,
        False,
        Call(Name('collections', 'OrderedDict')),
    )


def test_hand_made_files_are_read(tmp_path):
    hand_made(tmp_path / 'good.pth', dict(model={'blocks.0.norm1.weight': tensor(4, (4,), (1,))}))
    state_dict, _ = read_state_dict(tmp_path / 'good.pth')
    assert state_dict['blocks.0.norm1.weight'].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    'claim',
    [
        tensor(1 << 40, (4,), (1,)),
        tensor(-4, (4,), (1,)),
        tensor(4, (1 << 40,), (0,)),
        tensor(4, (1 << 20, 1 << 20), (0, 0)),
        tensor(4, (5,), (1,)),
        tensor(4, (4,), (1,), offset=1 << 40),
        tensor(4, (-4,), (1,)),
        tensor(4, (4,), (-1,)),
        tensor(4, (2,), (1 << 50,)),
        tensor('4', (4,), (1,)),
        tensor(4, 'text', (1,)),
        Call(Name('torch._utils', '_rebuild_tensor_v2')),
    ],
    ids=range(12),
)
def test_tensors_that_claim_what_is_not_there(tmp_path, claim):
    hand_made(tmp_path / 'claim.pth', dict(model={'blocks.0.norm1.weight': claim}))
    refusal(tmp_path / 'claim.pth')


def test_legacy_claims(tmp_path, legacy):
    path = tmp_path / 'legacy.pth'
    spot = legacy.find(b'K ', legacy.find(b'cls_token'))
    assert spot > 0
    # K<byte> is a small number; the first after the name is a count of elements: make it 2^31 - 1.
    path.write_bytes(legacy[:spot] + b'J\xff\xff\xff\x7f' + legacy[spot + 2 :])
    assert 'claims' in refusal(path)


def test_other_tensor_kinds(tmp_path):
    path = tmp_path / 'kinds.pth'
    for weird, says in [
        (torch.eye(3).to_sparse(), '_rebuild_sparse_tensor'),
        (torch.eye(3, device='meta'), '_rebuild_meta_tensor_no_storage'),
        (torch.eye(3, dtype=torch.complex64), 'ComplexFloatStorage'),
        (torch.eye(3, dtype=torch.int32), 'int32 numbers'),
        (torch.eye(3, dtype=torch.bool), 'bool numbers'),
        ('text', 'is a str'),
        ([1.0, 2.0], 'is a list'),
        (None, 'is a NoneType'),
    ]:
        torch.save(dict(model={**official_backbone(), 'blocks.0.norm1.weight': weird}), path)
        assert says in refusal(path), says


@pytest.mark.parametrize(
    'content',
    [
        torch.zeros(3),
        [torch.zeros(3)],
        'text',
        7,
        {},
        dict(model={}),
        dict(model='path/to/model'),
        dict(model=dict(model=dict(model=dict(model=dict(model=dict(model={})))))),
        dict(epoch=3, optimizer=dict(state={})),
        {1: torch.zeros(3), 2: torch.zeros(3)},
        OrderedDict(state_dict=[('a', torch.zeros(3))]),
    ],
    ids=range(11),
)
def test_content_that_is_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / 'content.pth')
    assert 'name' in refusal(tmp_path / 'content.pth')


def test_programs_that_cost_time_or_memory(tmp_path):
    path = tmp_path / 'program.pth'

    def archive(program):
        assert program[-1:] == pickle.STOP
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('archive/data.pkl', b'\x80\x02' + program)
        return refusal(path)

    # Tuples of tuples: hashing the last one as a key takes 2^60 steps.
    nested = b')' + b'2\x86' * 60
    assert 'neither text nor numbers' in archive(b'}' + nested + b'Ns.')
    # The same in a set.
    assert 'neither text nor numbers' in archive(b'cbuiltins\nset\n]' + nested + b'a\x85R.')
    # A memo index of four billion; a byte array of 2^62; an extension code; a string longer than the file.
    archive(b'Nr\xff\xff\xff\xff.')
    archive(b'\x96' + struct.pack('<Q', 1 << 62) + b'.')
    archive(b'\x84\x01\x00\x00\x00.')
    archive(b'X\xff\xff\xff\xffabc.')
    archive(b'(' * 100_000 + b'.')
    archive(b']' * 50_000 + b'a' * 49_999 + b'.')
    # Doubling text by encoding it again and again.
    archive(b'c_codecs\nencode\nX\x01\x00\x00\x00aX\x09\x00\x00\x00hex_codec\x86R.')


def test_wide_memory_is_never_asked_for(tmp_path):
    # The pickle claims a storage of 4 TiB, twice over: nothing is allocated.
    path = tmp_path / 'wide.pth'
    hand_made(path, dict(model={'a': tensor(GIB, (GIB,), (1,)), 'b': tensor(GIB, (GIB,), (1,))}))
    assert 'claims' in refusal(path)


def test_paths(tmp_path, good):
    with pytest.raises(MissingFileError, match='does not exist'):
        read_state_dict(tmp_path / 'nothing.pth')
    assert 'holds no weights' in refusal(tmp_path)
    loop = tmp_path / 'loop.pth'
    loop.symlink_to(loop)
    refusal(loop)
    (tmp_path / 'broken.pth').symlink_to(tmp_path / 'nothing')
    assert 'link' in refusal(tmp_path / 'broken.pth')
    os.mkfifo(tmp_path / 'pipe.pth')
    assert 'pipe' in refusal(tmp_path / 'pipe.pth')
    refusal(tmp_path / ('x' * 300 + '.pth'))
    for name in ('a.pth', 'b.pth'):
        (tmp_path / name).write_bytes(good)
    assert 'several checkpoints' in refusal(tmp_path)
    with pytest.raises(InputError):
        read_state_dict('')
    with pytest.raises(InputError):
        read_state_dict('a\0b')


@pytest.mark.skipif(os.geteuid() == 0, reason='the superuser may read everything')
def test_no_permission(tmp_path, good):
    path = tmp_path / 'secret.pth'
    path.write_bytes(good)
    path.chmod(0)
    assert 'permissions' in refusal(path)


def test_shards(tmp_path, safe):
    index = tmp_path / 'model.safetensors.index.json'
    for text, says in [
        ('not json', 'no usable files'),
        ('{"weight_map": {}}', 'no usable files'),
        ('{"weight_map": {"a": "../../etc/passwd"}}', 'no usable files'),
        ('{"weight_map": {"a": "part.safetensors"}}', 'is missing'),
    ]:
        index.write_text(text)
        assert says in refusal(tmp_path)
    (tmp_path / 'part.safetensors').write_bytes(safe)
    assert len(read_state_dict(tmp_path)[0]) == sum(t.is_floating_point() for t in official_backbone().values())


def test_not_a_number_is_refused_by_the_loader(tmp_path):
    tensors = official_backbone()
    tensors['blocks.1.gamma_1'][3] = float('nan')
    torch.save(dict(model=tensors), tmp_path / 'nan.pth')
    model = beit()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match='NaN'):
        load_checkpoint(model, tmp_path / 'nan.pth')
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_random_damage_never_crashes(tmp_path, good, legacy, safe):
    """A byte changed anywhere in the description: read, or refused in a sentence."""
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / 'damaged.pth'
    for data in (good, legacy, safe):
        limit = min(len(data), 20000)
        for position in torch.randint(0, limit, (60,), generator=generator).tolist():
            value = int(torch.randint(0, 256, (1,), generator=generator))
            path.write_bytes(data[:position] + bytes([value]) + data[position + 1 :])
            try:
                read_state_dict(path)
            except InputError as error:
                assert '\n' not in str(error)
