"""Starts a tool in several processes on this machine; called by dist_train.sh and dist_test.sh.

    python tools/_launch.py train.py CONFIG NUM [ARGUMENTS OF THE TOOL]
    python tools/_launch.py test.py CONFIG CHECKPOINT NUM [ARGUMENTS OF THE TOOL]

It is torchrun, with a free port, a check of the number of GPUs, and failures without tracebacks of its own.
"""

import logging
import os
import socket
import sys
from pathlib import Path

from mmseg_beit.errors import InputError, MissingFileError, run_tool

TOOLS = Path(__file__).resolve().parent
POSITIONALS = {'train.py': ('CONFIG',), 'test.py': ('CONFIG', 'CHECKPOINT')}


def read_number(name: str, text: str, least: int) -> int:
    if not text.isdigit() or int(text) < least:
        raise InputError(f'{name} is {text!r}: give a number from {least}')
    return int(text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def rendezvous() -> list[str]:
    """Options of torchrun for where the processes meet, from NNODES, NODE_RANK, MASTER_ADDR and PORT."""
    nodes = read_number('NNODES', os.environ.get('NNODES', '1'), 1)
    rank = read_number('NODE_RANK', os.environ.get('NODE_RANK', '0'), 0)
    if rank >= nodes:
        raise InputError(f'NODE_RANK is {rank} but there are {nodes} nodes (NNODES): number them from 0 to {nodes - 1}')
    if nodes > 1 and 'MASTER_ADDR' not in os.environ:
        raise InputError('MASTER_ADDR is not set: with NNODES above 1 set it to the address of node 0 on every node')
    # On several nodes all must know the port beforehand; on one a free one does.
    port = os.environ.get('PORT', '29500' if nodes > 1 else str(free_port()))
    address = os.environ.get('MASTER_ADDR', '127.0.0.1')
    return [
        f'--nnodes={nodes}',
        f'--node-rank={rank}',
        f'--master-addr={address}',
        f'--master-port={read_number("PORT", port, 1)}',
    ]


def main() -> int:
    tool, *rest = sys.argv[1:]
    names = (*POSITIONALS[tool], 'NUM')
    script = f'dist_{tool.removesuffix(".py")}.sh'
    given = rest[: len(names)]
    if len(given) < len(names) or any(value.startswith('-') for value in given):
        raise InputError(f'usage: bash tools/{script} {" ".join(names)} [options of tools/{tool}]')
    count = read_number('the number of processes', given[-1], 1)
    if not Path(given[0]).is_file():
        raise MissingFileError(f'config {given[0]} does not exist: name a file such as configs/beit_upernet_ade20k.py')
    meeting = rendezvous()

    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    if torch.cuda.is_available():
        if count > torch.cuda.device_count():
            raise InputError(
                f'{count} processes were asked for on a machine with {torch.cuda.device_count()} GPUs: '
                f'ask for at most that many, or set CUDA_VISIBLE_DEVICES= to run on the CPU'
            )
        os.environ.setdefault('OMP_NUM_THREADS', '1')
    else:
        os.environ.setdefault('OMP_NUM_THREADS', str(max(1, len(os.sched_getaffinity(0)) // count)))
    # The tool says itself what went wrong.
    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    logging.getLogger('torch.distributed.run').setLevel(logging.ERROR)
    options = [*meeting, f'--nproc-per-node={count}']
    command = [str(TOOLS / tool), *given[:-1], *rest[len(names) :], '--launcher', 'pytorch']
    try:
        run(get_args_parser().parse_args([*options, *command]))
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        if status < 0:
            print(f'error: a process was ended by signal {-status} (9 is often a lack of memory)', file=sys.stderr)
        return status if status > 0 else 128 - status
    except SignalException:
        return 130
    return 0


if __name__ == '__main__':
    run_tool(main)
