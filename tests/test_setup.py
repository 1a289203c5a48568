"""Set-up stops with one sentence that says what to do, and does only what is still to be done; nothing is installed."""

import importlib.util
import os
import shutil
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

PROJECT = Path(__file__).resolve().parents[1]
BASH = shutil.which('bash')
pytestmark = pytest.mark.skipif(BASH is None, reason='needs bash')


@pytest.fixture
def setup(monkeypatch, tmp_path):
    """The module tools/_setup.py, writing its notes into a temporary folder."""
    spec = importlib.util.spec_from_file_location('_setup', PROJECT / 'tools' / '_setup.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'ENVIRONMENT', tmp_path)
    monkeypatch.setattr(module, 'LOG', tmp_path / 'setup.log')
    monkeypatch.setattr(module, 'STATE', tmp_path / 'setup.json')
    return module


def is_one_sentence(text):
    return '\n' not in text and text.endswith(('.', ').')) and len(text) < 600


# What pip says ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('log', 'cause', 'remedy'),
    [
        ('ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device',
         'disk is full', 'free space for'),
        ("WARNING: Retrying: NewConnectionError('Failed to establish a new connection: [Errno 111] refused')\n"
         'ERROR: No matching distribution found for setuptools>=70.1', 'no package index', 'PIP_INDEX_URL'),
        ('SSLError(SSLCertVerificationError(1, "certificate verify failed"))', 'certificate', 'PIP_CERT'),
        ('ERROR: Could not find a version that satisfies the requirement torch>=2.5 (from versions: none)\n'
         'ERROR: No matching distribution found for torch>=2.5', 'no torch>=2.5 for Python', 'PYTHON=python3.12'),
        ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/env/lib'",
         'cannot be written', 'environment and a clone of your own'),
        ('Collecting x\nERROR: Failed building wheel for x\n[notice] A new release of pip is available',
         'pip failed with "ERROR: Failed building wheel for x"', 'mend that'),
    ],
)  # fmt: skip
def test_pip_failures_become_one_sentence(setup, log, cause, remedy):
    text = setup.explain(log)
    assert cause in text
    assert remedy in text
    assert str(setup.LOG) in text
    assert is_one_sentence(text)


def test_an_index_out_of_reach_is_recognised_from_pip_itself(setup, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith('PIP_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
    command = ['install', '--retries', '1', '--index-url', 'http://127.0.0.1:9', '--target', str(tmp_path / 'to')]
    with pytest.raises(setup.SetupError, match='no package index can be reached'):
        setup.run_pip([*command, 'mmseg-beit-that-is-nowhere'])


def test_signs_of_life_say_what_pip_does(setup):
    assert setup.progress('') == 'looking packages up'
    assert (
        setup.progress('Collecting torch\n  Downloading torch-2.9-cp312.whl (800.1 MB)\n')
        == 'downloading torch (800.1 MB)'
    )
    assert setup.progress('Installing collected packages: a, b\n') == 'unpacking'


# Before and after the install ---------------------------------------------------------------------------------------


def test_too_little_disk_is_said_before_the_download(setup, monkeypatch):
    monkeypatch.setattr(setup.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=3 * setup.GIB))
    with pytest.raises(
        setup.SetupError, match=r'has 3\.0 GiB free and the install needs about .* free some space'
    ) as error:
        setup.check_disk(with_torch=True)
    assert is_one_sentence(str(error.value))
    assert 'CPU builds' in str(error.value)
    assert setup.check_disk(with_torch=False)  # without torch the same space is enough


def test_pip_keeps_no_copies_where_space_is_scarce(setup, monkeypatch):
    monkeypatch.setattr(setup.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=10 * setup.GIB))
    assert not setup.check_disk(with_torch=True)
    monkeypatch.setattr(setup.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=13 * setup.GIB))
    assert setup.check_disk(with_torch=True)


def test_the_originals_are_not_overwritten(setup, monkeypatch):
    monkeypatch.setattr(setup, 'version', lambda name: '2.1.0' if name == 'mmcv' else None)
    with pytest.raises(
        setup.SetupError, match=r'holds mmcv 2\.1\.0, whose files the fork onedl-mmcv would overwrite'
    ) as error:
        setup.refuse_originals()
    assert is_one_sentence(str(error.value))


FAILING_IMPORTS = {
    'cv2': (
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')",
        ('OpenCV cannot load the system library libGL.so.1', 'apt-get install -y libgl1', 'opencv-python-headless'),
    ),
    'torchvision': (
        "raise RuntimeError('operator torchvision::nms does not exist')",
        ('do not fit each other', 'CPU-only', 'uninstall -y torch torchvision'),
    ),
    'mmseg': (
        "raise ModuleNotFoundError('No module named elsewhere')",
        ('the installed packages do not import (ModuleNotFoundError: No module named elsewhere)', 'remove'),
    ),
}


@pytest.mark.parametrize('package', FAILING_IMPORTS)
def test_packages_that_do_not_import_become_one_sentence(setup, monkeypatch, tmp_path, package):
    code, parts = FAILING_IMPORTS[package]
    (tmp_path / package).mkdir()
    (tmp_path / package / '__init__.py').write_text(code)
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}{os.pathsep}{PROJECT}')
    with pytest.raises(setup.SetupError) as error:
        setup.check_imports()
    for part in parts:
        assert part in str(error.value)
    assert is_one_sentence(str(error.value))


# What is still to be done -------------------------------------------------------------------------------------------

DECLARED = [
    'torch>=2.5',
    'numpy>=2.0; python_version < "3"',
    'mmseg-beit[export]; extra == "test"',
    'pytest>=8; extra == "test"',
    'onnx>=1.16; extra == "export"',
]


@pytest.mark.parametrize(
    ('installed', 'extra', 'missing'),
    [
        ({'torch': '2.5.1'}, '', []),
        ({'torch': '2.4.0'}, '', ['torch>=2.5']),
        ({'torch': '2.6.0+cpu', 'pytest': '8.1'}, 'test', ['onnx>=1.16']),
        ({'torch': '2.6.0', 'pytest': '8.1', 'onnx': '1.16'}, 'test', []),
        ({}, 'export', ['onnx>=1.16', 'torch>=2.5']),
    ],
)
def test_unmet_requirements_follow_extras_and_markers(setup, monkeypatch, installed, extra, missing):
    monkeypatch.setattr(setup.importlib.metadata, 'requires', lambda name: DECLARED)
    monkeypatch.setattr(setup, 'version', installed.get)
    assert setup.unmet(extra) == missing


@pytest.fixture
def ready(setup, monkeypatch):
    """An environment that holds everything; the list names what set-up did in it."""
    done = []
    monkeypatch.setattr(setup, 'unmet', lambda extra: [])
    monkeypatch.setattr(setup, 'imported_from', lambda: PROJECT)
    monkeypatch.setattr(setup, 'run_pip', lambda arguments: done.append(arguments[-1]))
    monkeypatch.setattr(setup, 'check_imports', lambda: done.append('check'))
    return done


def test_a_second_call_does_nothing(setup, ready):
    setup.set_up('test')
    assert ready == ['.[test]', 'check']
    setup.set_up('test')
    setup.set_up('')
    assert ready == ['.[test]', 'check']


def test_another_clone_is_installed_over(setup, ready, monkeypatch, tmp_path):
    setup.set_up('')
    monkeypatch.setattr(setup, 'imported_from', lambda: tmp_path)
    assert setup.reason_to_install('') == f'mmseg_beit is imported from {tmp_path}'


def test_imports_are_checked_again_after_a_failure_and_after_a_package_changed(setup, ready, monkeypatch):
    def fail():
        raise setup.SetupError('mend it.')

    with monkeypatch.context() as context:
        context.setattr(setup, 'check_imports', fail)
        with pytest.raises(setup.SetupError):
            setup.set_up('')
    assert ready == ['.']
    setup.set_up('')
    assert ready == ['.', 'check']  # nothing is downloaded again
    versions = setup.version
    monkeypatch.setattr(setup, 'version', lambda name: '9.9' if name == 'torch' else versions(name))
    setup.set_up('')
    assert ready == ['.', 'check', 'check']


# The shell's part ---------------------------------------------------------------------------------------------------


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def fake_python(path, version, failing='nothing'):
    """An interpreter that tells its version, as tools/_setup.sh asks for it, and fails where a word is in the code."""
    old = tuple(int(part) for part in version.split('.')) < (3, 10)
    cases = f'*{failing}*) exit 1 ;; *%d.%d.%d*) echo {version}; exit {int(old)} ;; *) echo 3.11 ;;'
    executable(path, f'#!{BASH}\ncase "$*" in {cases} esac\n')


@pytest.fixture
def clone(tmp_path):
    """A clone's scripts, in a folder with a space in its name, with nothing on the PATH but what they call."""
    folder = tmp_path / 'a clone'
    shutil.copytree(PROJECT / 'tools', folder / 'tools', ignore=shutil.ignore_patterns('*.py', '__pycache__'))
    (folder / 'configs').mkdir()
    (folder / 'bin').mkdir()
    for name in ('dirname', 'basename', 'bash', 'date', 'find', 'cat', 'rm', 'mv', 'mkdir', 'sed', 'touch'):
        (folder / 'bin' / name).symlink_to(shutil.which(name))
    return folder


def run_shell(clone, *command, **variables):
    environment = {'PATH': str(clone / 'bin'), 'HOME': str(clone), **variables}
    return subprocess.run([BASH, *command], capture_output=True, text=True, cwd='/', env=environment, timeout=60)


def stopped_with(done):
    """The sentence of a run that was to fail."""
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith('error: ')
    assert is_one_sentence(lines[0])
    return lines[0]


def test_a_python_too_old(clone):
    fake_python(clone / 'bin' / 'python3', '3.8.10')
    text = stopped_with(run_shell(clone, str(clone / 'tools' / 'run_tests.sh')))
    assert 'needs Python 3.10 or newer, and python3 is 3.8.10: install one' in text


def test_no_python(clone):
    text = stopped_with(run_shell(clone, str(clone / 'tools' / 'quickstart.sh')))
    assert 'python3 does not run: install one' in text


def test_a_newer_python_is_found_under_its_own_name(clone):
    fake_python(clone / 'bin' / 'python3', '3.8.10')
    fake_python(clone / 'bin' / 'python3.12', '3.12.1', failing='venv')
    done = run_shell(clone, str(clone / 'tools' / 'run_tests.sh'))
    assert 'python3.12' in stopped_with(done)


def test_no_venv_module(clone):
    fake_python(clone / 'bin' / 'python3', '3.11.2', failing='venv')
    text = stopped_with(run_shell(clone, str(clone / 'tools' / 'run_tests.sh')))
    assert 'no venv module' in text
    assert 'apt-get install -y python3.11-venv' in text
    assert not (clone / '.venv').exists()


@pytest.mark.parametrize('variable', ['VIRTUAL_ENV', 'CONDA_PREFIX'])
def test_an_active_environment_that_is_too_old(clone, variable):
    fake_python(clone / 'old env' / 'bin' / 'python', '3.9.1')
    done = run_shell(clone, str(clone / 'tools' / 'run_tests.sh'), **{variable: str(clone / 'old env')})
    assert 'has Python 3.9.1, and mmseg_beit needs 3.10 or newer' in stopped_with(done)


def test_an_environment_that_was_moved(clone):
    (clone / '.venv').mkdir()
    assert f"rm -rf '{clone}/.venv'" in stopped_with(run_shell(clone, str(clone / 'tools' / 'run_tests.sh')))


RECORDING = """#!{bash}
case "$*" in *%d.%d.%d*) echo 3.12.0; exit ;; esac
printf '%s\\n' "$*" >>calls
case "$1" in
  tools/train.py) mkdir -p work_dirs/quickstart; touch work_dirs/quickstart/iter_8.pth
    echo /elsewhere/quickstart/iter_8.pth >work_dirs/quickstart/last_checkpoint ;;
esac
[ "$1" != "${{FAILING:-}}" ] || exit 3
"""
CONFIG = 'configs/beit_tiny_upernet_scenes.py'
WEIGHTS = 'work_dirs/quickstart/iter_8.pth'


@pytest.fixture
def recording(clone):
    """The clone with an active environment whose python writes down what it is called with."""
    executable(clone / 'env' / 'bin' / 'python', RECORDING.format(bash=BASH))

    def run(script, *arguments, **variables):
        (clone / 'calls').unlink(missing_ok=True)
        done = run_shell(clone, str(clone / 'tools' / script), *arguments, VIRTUAL_ENV=str(clone / 'env'), **variables)
        return done, (clone / 'calls').read_text().splitlines()

    return run


def test_arguments_of_run_tests_go_to_pytest(recording):
    done, calls = recording('run_tests.sh', '-k', 'a and b', 'tests/x')
    assert done.returncode == 0, done.stderr
    assert calls == ['tools/_setup.py --extra test', '-m pytest -k a and b tests/x']


def test_quickstart_goes_through_its_steps_and_keeps_the_run(recording):
    done, calls = recording('quickstart.sh')
    assert done.returncode == 0, done.stderr
    assert calls == [
        'tools/_setup.py',
        'tools/make_scenes.py',
        f'tools/train.py {CONFIG} --work-dir work_dirs/quickstart',
        f'tools/test.py {CONFIG} {WEIGHTS} --work-dir work_dirs/quickstart',
        f'tools/image_demo.py data/scenes/images/validation/*[05].jpg {CONFIG} {WEIGHTS} '
        '--out-dir work_dirs/quickstart/overlays --with-legend',
    ]
    assert f'{WEIGHTS}: the weights' in done.stdout
    again, calls = recording('quickstart.sh')
    assert again.returncode == 0
    assert 'Keeping the weights of the finished run' in again.stdout
    assert not any('train.py' in call for call in calls)
    assert len(calls) == 4


def test_quickstart_goes_on_with_an_interrupted_run(recording, clone):
    done, _ = recording('quickstart.sh', FAILING='tools/train.py')
    assert done.returncode == 3
    assert 'quickstart stopped at the step "3/5 training' in done.stderr
    done, calls = recording('quickstart.sh')
    assert done.returncode == 0
    assert f'tools/train.py {CONFIG} --work-dir work_dirs/quickstart --resume' in calls


def test_quickstart_moves_a_run_aside_to_train_anew(recording, clone):
    recording('quickstart.sh')
    done, calls = recording('quickstart.sh', '--retrain')
    assert done.returncode == 0
    assert f'tools/train.py {CONFIG} --work-dir work_dirs/quickstart' in calls
    aside = [folder for folder in (clone / 'work_dirs').iterdir() if folder.name != 'quickstart']
    assert len(aside) == 1
    assert (aside[0] / 'iter_8.pth').exists()


def test_quickstart_refuses_unknown_options(clone):
    assert 'no option --fast' in stopped_with(run_shell(clone, str(clone / 'tools' / 'quickstart.sh'), '--fast'))


@pytest.mark.parametrize(
    'script', [*sorted((PROJECT / 'tools').glob('*.sh')), PROJECT / '.ci' / 'run'], ids=lambda path: path.name
)
def test_scripts_parse(script):
    done = subprocess.run([BASH, '-n', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
