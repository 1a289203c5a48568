"""From what a user names to a file on this machine: paths and folders, ``timm://``, ``hf://``, ``https://``.

Downloads go where the owners of those names keep theirs: the Hugging Face cache for ``timm://`` and ``hf://``, torch
hub's ``checkpoints`` folder for ``https://``. What is there already is used, without a network too. Processes that ask
for the same URL at once wait for the first.
"""

import contextlib
import json
import os
import re
import socket
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import getproxies

from ..errors import InputError, MissingFileError

WEIGHT_FILES = ('model.safetensors', 'pytorch_model.bin', 'open_clip_model.safetensors')
_SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin', '.ckpt')
_SCHEMES = 'a file, a folder, timm://NAME, hf://ORG/NAME or https://...'


def resolve(source: str | os.PathLike[str]) -> list[Path]:
    """The files that hold the tensors of what the user named.

    Args:
        source: A path, or an address with one of the schemes above.

    Returns:
        One file, or the shards of a checkpoint in several. A ``config.json`` lies beside the first one if there is one.

    Raises:
        MissingFileError: There is no such file or folder.
        InputError: The address is unknown, or its content can be had neither from the network nor from a cache.
    """
    text = os.fspath(source)
    if not text or '\0' in text:
        raise InputError(f'{text!r} names no checkpoint: name {_SCHEMES}')
    scheme, separator, rest = text.partition('://')
    if not separator:
        return _resolve_path(Path(text).expanduser())
    if scheme == 'timm':
        return [_hub_file(text, *_timm_repository(rest))]
    if scheme == 'hf':
        return [_hub_file(text, *_split_repository(text, rest))]
    if scheme == 'https':
        return [_download(text)]
    if scheme == 'file':
        return _resolve_path(Path(unquote(rest)))
    raise InputError(f'{text} has the unknown scheme {scheme}://: name {_SCHEMES}')


def _resolve_path(path: Path) -> list[Path]:
    try:
        is_dir, is_file = path.is_dir(), path.is_file()
        exists = path.exists() or path.is_symlink()
    except OSError as error:
        raise InputError(
            f'checkpoint {path} cannot be read ({error.strerror}): check the path and its permissions'
        ) from None
    if is_dir:
        return _resolve_folder(path)
    if is_file:
        return [path]
    if exists:
        raise InputError(
            f'checkpoint {path} is no regular file (a broken or circular link, a pipe, a device): name a file'
        )
    raise MissingFileError(f'checkpoint {path} does not exist: check the path')


def _resolve_folder(folder: Path) -> list[Path]:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise InputError(f'folder {folder} cannot be read ({error.strerror}): check its permissions') from None
    for name in WEIGHT_FILES:
        if name in names:
            return [folder / name]
    for name in WEIGHT_FILES:
        if name + '.index.json' in names:
            return _shards(folder, folder / (name + '.index.json'))
    if 'last_checkpoint' in names:
        # mmengine's work folder: the file holds the path of the newest checkpoint.
        last = (folder / 'last_checkpoint').read_text(errors='replace').strip()
        for path in (Path(last), folder / Path(last).name):
            if last and path.is_file():
                return [path]
    weights = [name for name in names if name.endswith(_SUFFIXES)]
    if len(weights) == 1:
        return [folder / weights[0]]
    if weights:
        raise InputError(f'folder {folder} holds several checkpoints ({", ".join(weights[:4])}): name one of them')
    raise MissingFileError(f'folder {folder} holds no weights: name a folder with {WEIGHT_FILES[0]}, or a file')


def _shards(folder: Path, index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())['weight_map'].values()))
        paths = [folder / name for name in names if Path(name).name == name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        names, paths = [], []
    if not paths or len(paths) != len(names):
        raise InputError(f'{index} lists no usable files: download the folder again')
    for path in paths:
        if not path.is_file():
            raise MissingFileError(f'{path} is missing, which {index.name} lists: download it into the folder')
    return paths


def _split_repository(source: str, rest: str) -> tuple[str, str | None]:
    """``ORG/NAME[@REVISION]`` to repository and revision."""
    match = re.fullmatch(r'([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?', rest)
    if not match:
        raise InputError(
            f'{source} is no repository: write hf://ORG/NAME, such as hf://microsoft/beit-base-patch16-224'
        )
    return match.group(1), match.group(2)


def _timm_repository(name: str) -> tuple[str, str | None]:
    """The repository of a timm model: of its tag, or of its default tag when none is named."""
    name = name.strip('/')
    if re.fullmatch(r'[\w-]+\.[\w-]+', name):
        return f'timm/{name}', None
    try:
        from timm.models import get_pretrained_cfg, list_models
    except ImportError:
        raise InputError(
            f'timm://{name} without a tag needs timm to look the tag up: install timm, or name it'
        ) from None
    try:
        cfg = get_pretrained_cfg(name)
    except RuntimeError:
        cfg = None
    if cfg is None or not cfg.hf_hub_id:
        known = ', '.join(list_models('beit*')[:6])
        raise InputError(f'timm://{name} is no pretrained model of timm: BEiT models are {known}, ...')
    return cfg.hf_hub_id, None


def _hub_file(source: str, repository: str, revision: str | None) -> Path:
    """The weights of a Hugging Face repository, from the cache if they are there."""
    try:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise InputError(
            f'{source} needs the package huggingface_hub: install it, or download the file and name it'
        ) from None

    def fetch(name: str, local: bool) -> Path:
        return Path(hf_hub_download(repository, name, revision=revision, local_files_only=local))

    def with_config(path: Path, local: bool) -> Path:
        # The weights are enough: only the layer norm's epsilon and out_indices are read from the config.
        with contextlib.suppress(OSError, EntryNotFoundError, HfHubHTTPError, ValueError):
            fetch('config.json', local)
        return path

    for name in WEIGHT_FILES:
        try:
            return with_config(fetch(name, local=True), local=True)
        except LocalEntryNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise InputError(f'{source} cannot be looked up ({_first_line(error)})') from None
    # Without a name server huggingface_hub would try for half a minute, and say so line by line.
    for name in WEIGHT_FILES if _can_reach(constants.ENDPOINT) else ():
        try:
            return with_config(fetch(name, local=False), local=False)
        except LocalEntryNotFoundError:
            break  # No network: the next name would not come either.
        except EntryNotFoundError:
            continue
        except (OSError, HfHubHTTPError, ValueError) as error:
            raise InputError(
                f'{source} cannot be downloaded ({_first_line(error)}): check the name, or download {WEIGHT_FILES[0]} '
                f'from the repository {repository} elsewhere and name that file'
            ) from None
    raise InputError(
        f'{source} is not in the cache and the network gave no weights: download {WEIGHT_FILES[0]} of the repository '
        f'{repository} where there is a network and name that file, or fill the cache {constants.HF_HUB_CACHE}'
    )


def _can_reach(url: str) -> bool:
    """Whether the host of an address has a name; behind a proxy only the proxy knows."""
    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlparse(url).hostname, 443)
    except OSError:
        return False
    return True


def _download(url: str) -> Path:
    import torch
    from filelock import FileLock

    name = Path(unquote(urlparse(url).path)).name
    if not name:
        raise InputError(f'{url} names no file: give the address of the checkpoint itself')
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    target = folder / name
    if target.is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{target}.lock'):
            if not target.is_file():
                torch.hub.download_url_to_file(url, str(target), progress=True)
    # URLError and HTTPError are OSErrors; torch.hub raises RuntimeError for a broken download.
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f'{url} cannot be downloaded ({_first_line(error)}): download it where there is a network and name the '
            f'file, or put it at {target}'
        ) from None
    return target


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
