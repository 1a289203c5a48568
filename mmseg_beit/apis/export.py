"""From a checkpoint to ONNX or ``torch.export``, checked against PyTorch before anybody uses the file."""

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engine.resuming import replacing
from ..errors import InputError
from ..models.exportable import ExportableSegmentor
from ..models.segmentors.exported import METADATA_KEY, load_exported
from .exported import FORMATS
from .model import init_model

MIN_OPSET = 18


@dataclass
class Comparison:
    """One size at which the written file was compared with PyTorch."""

    shape: tuple[int, int, int]
    """(B, H, W)."""
    largest_difference: float
    """Of the logits; 0 for masks."""
    largest_logit: float
    same_labels: float
    """Share of pixels, 0..1."""


def export_model(
    config: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    path: str | os.PathLike[str],
    fmt: str,
    *,
    output: str = 'logits',
    uint8_input: bool = False,
    max_size: int = 2048,
    opset: int = MIN_OPSET,
    tolerance: float = 1e-3,
    overwrite: bool = False,
    cfg_options: dict[str, Any] | None = None,
    trust: bool = False,
) -> list[Comparison]:
    """Writes a segmentor as one graph with open batch, height and width, runs the file and compares.

    Args:
        config: The model's config.
        checkpoint: Its weights, of any known family.
        path: The file to write, ending in ``.onnx`` or ``.pt2``.
        fmt: ``onnx`` or ``pt2``.
        output: ``logits``: float32 (B, K, H, W); ``mask``: int64 (B, H, W).
        uint8_input: Takes uint8 RGB (B, H, W, 3) and normalises it in the graph; else normalised float32 (B, 3, H, W).
        max_size: Largest height and width in pixels.
        opset: Of ONNX, 18 or newer.
        tolerance: Largest difference of logits allowed, as a share of the largest logit.
        overwrite: Replaces an existing file.
        cfg_options: Fields of the config to change.
        trust: Runs whatever code a pickled checkpoint brings.

    Returns:
        How the file compares with PyTorch at three sizes.

    Raises:
        MissingFileError: The config or the checkpoint does not exist.
        InputError: An argument cannot be used, or the file's results are not the model's (it is then not kept).
    """
    path = Path(path)
    _check_arguments(path, fmt, output, opset, overwrite)
    model = init_model(config, checkpoint, device='cpu', cfg_options=cfg_options, trust=trust)
    if model.out_channels == 1:
        raise InputError(f'{config} has a single output channel, which the exporter does not know: use two classes')
    if max_size < 8 * model.patch_size:
        raise InputError(f'--max-size {max_size} is too small: give at least {8 * model.patch_size}')
    graph = ExportableSegmentor(model, max_size, output, uint8_input).eval()
    about = dict(
        output=output,
        uint8_input=uint8_input,
        max_size=max_size,
        align_corners=model.align_corners,
        mean=graph.mean.flatten().tolist(),
        std=graph.std.flatten().tolist(),
        classes=list(model.dataset_meta['classes']),
        palette=[list(map(int, colour)) for colour in model.dataset_meta.get('palette') or []],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        # The runtimes know a file by its suffix.
        written = temporary.with_name(temporary.name + path.suffix)
        try:
            write_graph(graph, written, fmt, opset, json.dumps(about))
            comparisons = _compare(graph, written, min(max_size, 40 * model.patch_size), tolerance)
            written.replace(temporary)
        finally:
            written.unlink(missing_ok=True)
    return comparisons


def _check_arguments(path: Path, fmt: str, output: str, opset: int, overwrite: bool) -> None:
    if fmt not in FORMATS:
        raise InputError(f'--format {fmt} is unknown: use {" or ".join(FORMATS)}')
    if path.suffix != FORMATS[fmt]:
        raise InputError(f'-o {path} does not end in {FORMATS[fmt]}, by which a runtime knows the format: rename it')
    if output not in ('logits', 'mask'):
        raise InputError(f'--output {output} is unknown: use logits or mask')
    if opset < MIN_OPSET:
        raise InputError(f'--opset {opset} is too old for the resizing of the heads: use {MIN_OPSET} or newer')
    if path.exists() and not overwrite:
        raise InputError(f'{path} exists: give another name or --overwrite')
    if fmt == 'onnx':
        for package in ('onnx', 'onnxscript', 'onnxruntime'):
            try:
                __import__(package)
            except ImportError:
                raise InputError(f"ONNX needs the package {package}: pip install -e '.[export]'") from None


def _picture(graph: ExportableSegmentor, batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    picture = torch.randint(0, 256, (batch, height, width, 3), generator=generator, dtype=torch.uint8)
    return picture if graph.uint8_input else (picture.permute(0, 3, 1, 2).float() - graph.mean) / graph.std


def write_graph(graph: ExportableSegmentor, path: Path, fmt: str, opset: int = MIN_OPSET, about: str = '{}') -> None:
    """Traces a segmentor with open sizes and writes it.

    Args:
        graph: The segmentor, in evaluation mode, on the CPU.
        path: The file.
        fmt: ``onnx`` or ``pt2``.
        opset: Of ONNX.
        about: JSON text kept in the file.
    """
    # An example whose sizes are nothing special: not equal, not multiples of the patch size, not one image.
    step = graph.patch_size
    example = _picture(graph, 2, 5 * step - 3, 7 * step - 5)
    size_axes = (1, 2) if graph.uint8_input else (2, 3)
    dynamic = dict.fromkeys((0, *size_axes), torch.export.Dim.DYNAMIC)
    with torch.no_grad(), _quiet():
        with _no_special_sizes():
            program = torch.export.export(graph, (example,), dynamic_shapes={'image': dynamic}, strict=False)
        if fmt == 'pt2':
            torch.export.save(program, str(path), extra_files={METADATA_KEY: about})
            return
        onnx_program = torch.onnx.export(
            program, (), dynamo=True, opset_version=opset, input_names=['image'], output_names=[graph.output],
            verbose=False, external_data=False,
        )  # fmt: skip
        onnx_program.model.metadata_props[METADATA_KEY] = about
        onnx_program.save(str(path), external_data=False)


def _compare(graph: ExportableSegmentor, path: Path, largest: int, tolerance: float) -> list[Comparison]:
    with _quiet():
        run, _ = load_exported(path)
    step = graph.patch_size
    comparisons = []
    for batch, height, width in ((1, 8 * step, 8 * step), (2, 7 * step + 1, largest // 2), (1, largest, 5 * step - 7)):
        picture = _picture(graph, batch, height, width)
        with torch.no_grad():
            expected = graph(picture)
        actual = run(picture)
        if graph.output == 'mask':
            same, difference, top = (actual == expected).float().mean().item(), 0.0, 0.0
        else:
            same = (actual.argmax(1) == expected.argmax(1)).float().mean().item()
            difference, top = (actual - expected).abs().max().item(), expected.abs().max().item()
        comparisons.append(Comparison((batch, height, width), difference, top, same))
    worst = max(c.largest_difference / max(c.largest_logit, 1e-6) for c in comparisons)
    fewest = min(c.same_labels for c in comparisons)
    if not worst <= tolerance or fewest < 0.99:
        raise InputError(
            f'the exported file gives other results than PyTorch (logits apart by {worst:.1e} of the largest, '
            f'{fewest:.2%} of the labels equal) and was not kept: please report it with your versions of torch and onnx'
        )
    return comparisons


@contextmanager
def _no_special_sizes() -> Iterator[None]:
    """Sizes 0 and 1 are not told apart while tracing, where this torch can do so: small pictures then work too."""
    settings = __import__('torch.fx.experimental._config', fromlist=['patch'])
    if hasattr(settings, 'backed_size_oblivious'):
        with settings.patch(backed_size_oblivious=True):
            yield
    else:
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters' own progress and deprecation notes are not the user's business."""
    loggers = [
        logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir', 'torch.export', 'torch._export')
    ]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
