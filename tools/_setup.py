"""Installs mmseg_beit and what it needs into the running environment; called by tools/_setup.sh.

Runs on a bare Python 3.10: standard library only. A second call takes well under a second: nothing is installed
when the environment already holds every requirement of setup.cfg, and imports are checked again only after a package
changed. Each failure is one sentence that says what to do, on stderr, with status 1.

    python tools/_setup.py [--extra test]
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = 'mmseg-beit'
ENVIRONMENT = Path(sys.prefix)
PIP = f'{shlex.quote(sys.executable)} -m pip'  # for the user's shell
LOG = ENVIRONMENT / 'mmseg-beit-setup.log'
STATE = ENVIRONMENT / 'mmseg-beit-setup.json'
GIB = 1024**3
# Free space that an install needs, in GiB (environment, temporary files): with torch to come, and with torch there.
NEED_WITH_TORCH = (6.3, 2.9)
NEED_WITHOUT_TORCH = (1.0, 0.5)
HEARTBEAT_S = 15
# Distributions whose files the forks would overwrite: the fork's name follows `onedl-`.
ORIGINALS = ('mmengine', 'mmengine-lite', 'mmcv', 'mmcv-lite', 'mmcv-full', 'mmsegmentation', 'mmpretrain')
# The packages on which compiled code hinges: imports are checked again when the version of one of them changes.
FRAGILE = ('torch', 'torchvision', 'numpy', 'opencv-python', 'opencv-python-headless', 'opencv-contrib-python')
CHECK = """
import cv2
import torch
import torchvision
boxes = torch.tensor([[0., 0., 1., 1.]])
torchvision.ops.nms(boxes, torch.ones(1), 0.5)
import mmengine, mmcv, mmseg, mmseg_beit
"""


class SetupError(Exception):
    """Set-up cannot go on; the message is the user's sentence."""


def say(text: str) -> None:
    """Writes one line to the terminal at once."""
    print(text, flush=True)


# What is there ------------------------------------------------------------------------------------------------------


def version(distribution: str) -> str | None:
    """The installed version of a distribution, ``None`` where it is absent."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def fingerprint() -> str:
    """Identifies the declared requirements, this clone, and the versions that imports hinge on."""
    digest = hashlib.sha256()
    for name in ('setup.cfg', 'pyproject.toml'):
        digest.update((ROOT / name).read_bytes())
    versions = [f'{name}={version(name)}' for name in FRAGILE]
    digest.update(repr((str(ROOT), sys.version, versions)).encode())
    return digest.hexdigest()


def declared_hash() -> str:
    """Identifies what setup.cfg and pyproject.toml declare."""
    return hashlib.sha256((ROOT / 'setup.cfg').read_bytes() + (ROOT / 'pyproject.toml').read_bytes()).hexdigest()


def read_state() -> dict:
    """What earlier calls wrote down in this environment; empty where there is nothing or nothing readable."""
    try:
        return json.loads(STATE.read_text())
    except (OSError, ValueError):
        return {}


def write_state(**entries: str) -> None:
    """Adds entries to what is written down."""
    STATE.write_text(json.dumps(read_state() | entries, indent=2) + '\n')


def unmet(extra: str) -> list[str]:
    """The requirements of the installed package that the environment does not hold, e.g. ``['torch>=2.5']``."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ['everything in a new environment']
    try:
        declared = [Requirement(text) for text in importlib.metadata.requires(NAME) or []]
    except importlib.metadata.PackageNotFoundError:
        return ['the package itself']
    missing, extras, seen = [], ['', extra], set()
    while extras:
        current = extras.pop()
        seen.add(current)
        for requirement in declared:
            if requirement.marker and not requirement.marker.evaluate({'extra': current}):
                continue
            if requirement.name == NAME:
                extras += set(requirement.extras) - seen
                continue
            found = version(requirement.name)
            if found is None or not requirement.specifier.contains(found, prereleases=True):
                missing.append(f'{requirement.name}{requirement.specifier}')
    return sorted(set(missing))


def imported_from() -> Path | None:
    """The clone whose `mmseg_beit` this environment imports."""
    spec = importlib.util.find_spec('mmseg_beit')
    return Path(spec.origin).resolve().parents[1] if spec and spec.origin else None


def reason_to_install(extra: str) -> str | None:
    """Why the package has to be installed, in words; ``None`` where the environment is ready."""
    if missing := unmet(extra):
        return f'missing {", ".join(missing[:6])}{" ..." if len(missing) > 6 else ""}'
    if imported_from() != ROOT:
        return f'mmseg_beit is imported from {imported_from()}'
    if read_state().get('declared') != declared_hash():
        return 'setup.cfg or pyproject.toml is new here'
    return None


# Before the download ------------------------------------------------------------------------------------------------


def refuse_originals() -> None:
    """Stops where the forks would overwrite the files of the original distributions.

    Raises:
        SetupError: One of the originals is installed.
    """
    for name in ORIGINALS:
        if found := version(name):
            fork = f'onedl-{name.split("-")[0]}'
            raise SetupError(
                f'this environment holds {name} {found}, whose files the fork {fork} would overwrite: deactivate it, '
                'so that .venv is made here, or keep the originals and install by hand '
                f'({PIP} install --no-deps -e {shlex.quote(str(ROOT))}).'
            )


def check_disk(with_torch: bool) -> bool:
    """Stops before a download that would not fit.

    Args:
        with_torch: Whether torch is part of the download.

    Returns:
        Whether there is room for pip to keep a copy of the download, for the next environment, in the home folder.

    Raises:
        SetupError: A file system has too little free space.
    """
    environment_gib, temporary_gib = NEED_WITH_TORCH if with_torch else NEED_WITHOUT_TORCH
    temporary = Path(tempfile.gettempdir())
    needs = {ENVIRONMENT: environment_gib, temporary: temporary_gib}
    if ENVIRONMENT.stat().st_dev == temporary.stat().st_dev:
        needs = {ENVIRONMENT: environment_gib + temporary_gib}
    for folder, need in needs.items():
        free = shutil.disk_usage(folder).free / GIB
        if free < need:
            smaller = (
                ', or first install the smaller CPU builds of torch and torchvision (the install page of PyTorch has '
                f'the command; use {PIP})'
                if with_torch
                else ''
            )
            elsewhere = ', or set TMPDIR to a roomier folder' if folder == temporary and len(needs) > 1 else ''
            raise SetupError(
                f'{folder} has {free:.1f} GiB free and the install needs about {need:.1f}: free some space'
                f'{elsewhere}{smaller}, and run this again.'
            )
    return shutil.disk_usage(Path.home()).free / GIB > environment_gib + 2 * temporary_gib


def ensure_pip() -> None:
    """Makes pip available in an environment that was made without it.

    Raises:
        SetupError: There is none and Python brings none along.
    """
    if importlib.util.find_spec('pip') is None:
        done = subprocess.run([sys.executable, '-m', 'ensurepip'], capture_output=True)
        if done.returncode:
            raise SetupError(
                f'{ENVIRONMENT} has no pip: install it (uv pip install pip, or apt-get install -y python3-venv and a '
                'new environment) and run this again.'
            )


def can_build_here() -> bool:
    """Whether the environment's own setuptools can build the package, so that none has to be downloaded for it."""
    found = version('setuptools')
    return found is not None and tuple(int(part) for part in re.findall(r'\d+', found)[:2]) >= (70, 1)


# The install --------------------------------------------------------------------------------------------------------

# What pip's log says, most telling first, and the sentence that it means.
_NETWORK = (
    'NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Max retries exceeded|Network is unreachable|'
    'Temporary failure in name resolution|Name or service not known|Connection refused|Connection reset|ProxyError|'
    'Connection broken|RemoteDisconnected|IncompleteRead|connection error'
)


def explain(log: str) -> str:
    """The user's sentence for a log of pip that ended in failure.

    Args:
        log: The text that pip wrote.

    Returns:
        What happened and the remedy.
    """
    again = f'and run this again (log: {LOG}).'
    if re.search('No space left on device|Disk quota exceeded', log):
        return f'the disk is full: free space for {ENVIRONMENT} and {tempfile.gettempdir()} {again}'
    if re.search('CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError', log):
        return f'the certificate of the package index is not trusted: set PIP_CERT to the file of your network {again}'
    if re.search(_NETWORK, log, re.IGNORECASE):
        return (
            'no package index can be reached: connect this machine to the network, or set HTTPS_PROXY, or set '
            f'PIP_INDEX_URL to a mirror that it can reach, {again}'
        )
    if match := re.search(r'No matching distribution found for (\S+)', log):
        python = '.'.join(str(part) for part in sys.version_info[:2])
        return (
            f'the package index has no {match[1]} for Python {python} on this machine: remove {ENVIRONMENT} and put '
            f'PYTHON=python3.12, or another, before the command, or name another index in PIP_INDEX_URL, {again}'
        )
    if re.search('Permission denied|Read-only file system', log):
        return f'{ENVIRONMENT} or {ROOT} cannot be written: use an environment and a clone of your own {again}'
    lines = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith(('[notice]', 'hint:'))]
    errors = [line for line in lines if line.lower().startswith('error')] or lines or ['no output']
    return f'pip failed with "{errors[-1][:300]}": mend that {again}'


def progress(log: str) -> str:
    """What pip is doing, from the last telling line of its log."""
    for line in reversed(log.splitlines()):
        line = line.strip()
        if line.startswith('Downloading '):
            name, _, size = line.removeprefix('Downloading ').rpartition(' (')
            return f'downloading {name.rsplit("/", 1)[-1].split("-")[0]} ({size}'
        if line.startswith('Installing collected packages'):
            return 'unpacking'
        if line.startswith(('Collecting ', 'Building ', 'Using cached ')):
            return line.split(' (')[0][0].lower() + line.split(' (')[0][1:]
    return 'looking packages up'


def run_pip(arguments: list[str]) -> None:
    """Runs pip quietly into the log, with a sign of life now and then.

    Args:
        arguments: What follows ``pip``.

    Raises:
        SetupError: pip failed; the message says why.
    """
    begin = said = time.monotonic()
    with open(LOG, 'w') as log:
        process = subprocess.Popen(
            [sys.executable, '-m', 'pip', *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            if time.monotonic() - said > HEARTBEAT_S:
                said = time.monotonic()
                say(f'  {said - begin:3.0f} s: {progress(LOG.read_text(errors="replace"))}')
    if process.returncode:
        raise SetupError(explain(LOG.read_text(errors='replace')))


def install(extra: str, reason: str) -> None:
    """Installs the clone in editable form, with its requirements and those of an extra.

    Args:
        extra: Name of an extra of setup.cfg, or ``''``.
        reason: Why, in words for the terminal.

    Raises:
        SetupError: It cannot be done; the message says why and what to do.
    """
    refuse_originals()
    ensure_pip()
    with_torch = version('torch') is None
    keep = [] if check_disk(with_torch) else ['--no-cache-dir']
    size = (
        'a download of about 3 GB, 6 GB on disk, some minutes'
        if with_torch
        else 'torch is there already; a minute at most'
    )
    say(f'Installing {NAME}{f"[{extra}]" if extra else ""} ({reason}): {size}; log: {LOG}.')
    begin = time.monotonic()
    isolation = ['--no-build-isolation'] if can_build_here() else []
    options = ['--no-input', '--progress-bar', 'off', '--disable-pip-version-check', '--retries', '3']
    run_pip(['install', *options, *keep, *isolation, '-e', f'.[{extra}]' if extra else '.'])
    importlib.invalidate_caches()
    write_state(declared=declared_hash())
    say(f'Installed in {time.monotonic() - begin:.0f} s.')


# After it -----------------------------------------------------------------------------------------------------------


def explain_import(error: str) -> str:
    """The user's sentence for a traceback of the import check.

    Args:
        error: What the check wrote to stderr.

    Returns:
        What is wrong and the remedy.
    """
    last = error.strip().splitlines()[-1] if error.strip() else 'no output'
    library = re.search(r'ImportError: (\S+): cannot open shared object file', error)
    if library and '/cv2/' in error:
        return (
            f'OpenCV cannot load the system library {library[1]}: run apt-get install -y libgl1 libglib2.0-0, or '
            f'{PIP} install --no-deps --force-reinstall opencv-python-headless, and run this again.'
        )
    if 'torchvision::nms' in error or ('torchvision' in error and 'undefined symbol' in error):
        return (
            f'torch {version("torch")} and torchvision {version("torchvision")} are builds that do not fit each other: '
            'install both from one index (a CPU-only torch needs the CPU-only torchvision beside it), or run '
            f'{PIP} uninstall -y torch torchvision for the default pair (6 GB), and run this again.'
        )
    return (
        f'the installed packages do not import ({last[:300]}): remove {ENVIRONMENT} or mend that, and run this again.'
    )


def check_imports() -> None:
    """Imports what every tool needs in a fresh interpreter.

    Raises:
        SetupError: An import failed; the message says why and what to do.
    """
    done = subprocess.run([sys.executable, '-c', CHECK], capture_output=True, text=True, cwd=ROOT / 'tools')
    if done.returncode:
        raise SetupError(explain_import(done.stderr))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keeps a second set-up of the same environment waiting until this one has ended."""
    with open(ENVIRONMENT / '.mmseg-beit-setup.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('Waiting for another set-up of this environment.')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def set_up(extra: str) -> None:
    """Makes the environment ready, doing only what is still to be done.

    Args:
        extra: Name of an extra of setup.cfg, or ``''``.

    Raises:
        SetupError: It cannot be done; the message says why and what to do.
    """
    with alone():
        if reason := reason_to_install(extra):
            install(extra, reason)
        if read_state().get('checked') != fingerprint():
            say('Checking that the packages import.')
            check_imports()
            write_state(checked=fingerprint())


def main() -> int:
    """Reads the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description='Install mmseg_beit into the running environment.')
    parser.add_argument('--extra', default='', help='an extra of setup.cfg: test, dev, export or tensorboard')
    try:
        set_up(parser.parse_args().extra)
    except SetupError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f'error: {error.filename} cannot be written: use an environment of your own.', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted: run this again to go on.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
