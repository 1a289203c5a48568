"""Tables of a benchmark run: on the terminal, as Markdown and as JSON."""

import datetime
import json
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from .measure import Measurement

COLUMNS = ('row', 'who', 'median', 'spread', 'peak memory', 'GFLOP', 'of matmul rate', 'time, peer/ours', 'memory')


@dataclass
class Row:
    """One row of the benchmark: contestants by name, ``ours`` among them, and how far the outputs are apart."""

    title: str
    results: dict[str, Measurement]
    agreement: str = ''
    matmul_gflops: float | None = None
    """The rate to compare with where it is not that of float32."""


def hardware(device: str) -> str:
    """Name of the processor that runs the rows, and its number of cores or devices."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    model = re.search(r'model name\s*:\s*(.+)', Path('/proc/cpuinfo').read_text())
    return f'{model.group(1) if model else platform.machine()}, {torch.get_num_threads()} threads'


def lines(row: Row, matmul_gflops: float) -> list[tuple[str, ...]]:
    """The table's lines of one row: peers first, then ours."""
    ours = row.results['ours']
    matmul_gflops = row.matmul_gflops or matmul_gflops
    result = []
    for name, found in sorted(row.results.items(), key=lambda item: item[0] == 'ours'):
        rate = '' if found.gflop is None else f'{found.gflop / found.median / matmul_gflops:.0%}'
        ratio = memory = ''
        if name != 'ours':
            ratio = f'{found.median / ours.median:.2f}x'
            memory = f'{ours.peak_mb / found.peak_mb:.2f}x' if found.peak_mb > 1 else ''
        result.append(
            (
                row.title,
                name,
                f'{found.median * 1e3:.1f} ms',
                f'{found.spread:.0%}',
                f'{found.peak_mb:.0f} MB',
                '' if found.gflop is None else f'{found.gflop:.1f}',
                rate,
                ratio,
                memory,
            )
        )
    return result


def print_rows(rows: list[Row], matmul_gflops: float, console: Console) -> None:
    """Prints the table."""
    table = Table(*COLUMNS, title='ours and the peers, in turns in one process')
    for row in rows:
        for line in lines(row, matmul_gflops):
            table.add_row(*line)
        if row.agreement:
            table.add_row(row.agreement, style='dim')
        table.add_section()
    console.print(table)


def save(rows: list[Row], matmul_gflops: float, device: str, command: str, folder: Path) -> Path:
    """Writes ``<date>_<hardware>.md`` and ``.json``; returns the Markdown file."""
    machine = hardware(device)
    slug = re.sub(r'[^a-z0-9]+', '-', machine.lower()).strip('-')
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{datetime.date.today().isoformat()}_{slug}.md'
    text = [
        f'# {datetime.date.today().isoformat()}, {machine}',
        '',
        f'`{command}`, torch {torch.__version__}. Matrix product here: {matmul_gflops:.0f} GFLOP/s (float32).',
        'Medians of runs in turns. Memory is the peak above what was there before the run, and what a model holds',
        'beside its weights (indices, biases, prepared weights), which the row of the head leaves out. "time" is the',
        'peer over ours, "memory" ours over the peer.',
        '',
        '| ' + ' | '.join(COLUMNS) + ' |',
        '|' + '---|' * len(COLUMNS),
    ]
    for row in rows:
        text += ['| ' + ' | '.join(line) + ' |' for line in lines(row, matmul_gflops)]
    text += ['', *(f'- {row.title}: {row.agreement}' for row in rows if row.agreement), '']
    path.write_text('\n'.join(text))
    data = dict(hardware=machine, torch=torch.__version__, command=command, matmul_gflops=matmul_gflops)
    data['rows'] = [
        dict(title=row.title, agreement=row.agreement, results={k: asdict(v) for k, v in row.results.items()})
        for row in rows
    ]
    path.with_suffix('.json').write_text(json.dumps(data, indent=1))
    return path
