"""How a tool's processes start: which device, which backend, and what to say when they do not fit.

Imports neither mmengine nor mmseg: both look for GPUs when they are imported.
"""

import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from .errors import InputError

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


def quiet() -> None:
    """Keeps the libraries' warnings about their own affairs (such as deprecations) off the user's terminal.

    Also lets a run go on in silence when its terminal or pipe is closed.
    """
    logging.raiseExceptions = False
    for module in ('mmengine', 'mmcv', 'mmseg', 'mmpretrain', 'torch', 'timm'):
        warnings.filterwarnings('ignore', module=rf'{module}(\..*)?$')


def process_rank() -> int:
    """This process's number among all of a run, as the launcher's environment tells it; 0 without a launcher."""
    return int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', 0) if 'SLURM_NTASKS' in os.environ else 0))


def choose_device(device: str | None) -> None:
    """Checks the device that a user asked for and hides the GPUs where it is the CPU.

    To be called before mmengine is imported, which looks for GPUs once, on import.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``None`` for a GPU if there is one.

    Raises:
        InputError: There is no such device.
    """
    if device is None:
        return
    kind, _, index = device.partition(':')
    if kind == 'cpu' and not index:
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
        return
    if kind != 'cuda' or (index and not index.isdigit()):
        raise InputError(f'--device {device} is unknown: use cpu, cuda or cuda:N')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise InputError(f'--device {device}: there is no GPU that PyTorch can use here, use --device cpu')
    if index and int(index) >= count:
        raise InputError(f'--device {device}: this machine has {count} GPUs, use cuda:0 to cuda:{count - 1}')
    if index:
        torch.cuda.set_device(int(index))


def start_processes(launcher: str, timeout: float | None = None) -> None:
    """Joins the process group on machines without a GPU; with GPUs only checks that there are enough.

    mmengine joins the group itself, but binds every process to a GPU first. A group that stands is left alone by it.

    Args:
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        timeout: Seconds after which a process that hears nothing from the others gives up; PyTorch's own if ``None``.

    Raises:
        InputError: There are more processes than GPUs, or the launcher's variables are not set.
    """
    if launcher == 'none':
        return
    needed = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}[launcher]
    if needed not in os.environ:
        script = {'pytorch': 'tools/dist_train.sh', 'slurm': 'tools/slurm_train.sh', 'mpi': 'mpirun'}[launcher]
        raise InputError(f'--launcher {launcher} but {needed} is not set: start the run through {script}')
    if torch.cuda.is_available():
        local = int(os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', 0)))
        count = torch.cuda.device_count()
        if local >= count:
            raise InputError(
                f'more processes were started on this machine than it has GPUs ({count}): '
                f'start {count}, or hide the GPUs with CUDA_VISIBLE_DEVICES= to run on the CPU'
            )
        return
    if launcher == 'slurm':
        _slurm_environment()
    elif launcher == 'mpi':
        for ours, theirs in (('RANK', 'RANK'), ('WORLD_SIZE', 'SIZE'), ('LOCAL_RANK', 'LOCAL_RANK')):
            os.environ[ours] = os.environ[f'OMPI_COMM_WORLD_{theirs}']
    dist.init_process_group(backend='gloo', timeout=None if timeout is None else timedelta(seconds=timeout))


def _slurm_environment() -> None:
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ.get('SLURM_LOCALID', '0')
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        nodes = os.environ.get('SLURM_JOB_NODELIST', os.environ.get('SLURM_NODELIST', 'localhost'))
        listed = subprocess.run(['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True)
        os.environ['MASTER_ADDR'] = listed.stdout.split()[0]


def one_voice(main: Callable[[], int | None], wait: float = 5.0) -> int | None:
    """Runs a tool such that a mistake that all processes find is told once.

    Every process makes the same checks of the same config, and launchers end all processes when the first one fails. So
    the first process speaks, and the others hold their tongue until it has had the time to. What only one of them can
    know, such as a picture it cannot read, it still tells itself, a little later.

    Args:
        main: The tool; runs in every process.
        wait: Seconds that the other processes leave the first.

    Returns:
        What ``main`` returns.
    """
    try:
        status = main()
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()  # Its threads may abort a process that ends under them.
        return status
    except InputError as error:
        if process_rank() > 0:
            time.sleep(wait)
            if getattr(error, 'in_all_processes', False):
                sys.exit(2)
        raise
