"""An exported segmentor (ONNX or ``torch.export`` file) in the place of a model."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from torch import Tensor

from ...errors import InputError, MissingFileError
from ...registry import MODELS
from .any_size import AnySizeInference, check_test_cfg

METADATA_KEY = 'mmseg_beit.json'
SUFFIXES = ('.onnx', '.pt2')


@MODELS.register_module()
class ExportedSegmentor(AnySizeInference, BaseModel):
    """Predicts with a file that ``tools/export.py`` wrote, on the CPU.

    Labels by the same windows, flips and resizings as :class:`~.encoder_decoder.EncoderDecoder`. A file that gives
    masks serves as well: each window then votes with its labels instead of its logits.

    Args:
        path: The ``.onnx`` or ``.pt2`` file.
        data_preprocessor: As in the model's config: pictures arrive normalised.
        test_cfg: As in the model's config.

    Raises:
        MissingFileError: There is no such file.
        InputError: It was not written by ``tools/export.py``, cannot be read, or its runtime is not installed.
    """

    def __init__(
        self, path: str | Path, data_preprocessor: dict | None = None, test_cfg: dict | None = None, **kwargs: Any
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.path = Path(path)
        self.run, self.about = load_exported(self.path)
        self.classes = tuple(self.about['classes'])
        self.out_channels = self.num_classes = len(self.classes)
        self.align_corners = self.about['align_corners']
        self.test_cfg = ConfigDict(test_cfg or {})
        check_test_cfg(self.test_cfg)

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor') -> Any:
        """``predict``: labels; ``tensor``: logits (B, K, H, W). There is nothing to train.

        Raises:
            InputError: ``mode`` is ``loss``.
        """
        if mode == 'loss':
            raise InputError(f'{self.path} is an exported model and cannot be trained: train from its checkpoint')
        return self.predict(inputs, data_samples) if mode == 'predict' else self.inference(inputs)

    def _small_logits(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        height, width = inputs.shape[2:]
        largest = self.about['max_size']
        if max(height, width) > largest:
            raise InputError(
                f'{self.path} takes pictures of up to {largest} pixels a side, not {height}x{width}: '
                'use sliding windows (model.test_cfg.mode=slide) or export with a larger --max-size'
            )
        if self.about['uint8_input']:
            mean = torch.tensor(self.about['mean']).view(1, 3, 1, 1)
            std = torch.tensor(self.about['std']).view(1, 3, 1, 1)
            inputs = (inputs.cpu() * std + mean).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        try:
            result = self.run(inputs.cpu().contiguous())
        except (AssertionError, RuntimeError) as error:  # torch.export asserts what it assumed of sizes.
            raise InputError(
                f'{self.path} does not take pictures of {height}x{width} ({str(error).splitlines()[0][:80]}): '
                'pictures of less than four patches a side need the ONNX file or the checkpoint'
            ) from None
        if self.about['output'] == 'mask':
            logits = F.one_hot(result, self.num_classes).float()
        else:
            logits = result.permute(0, 2, 3, 1).contiguous()
        return logits, torch.eye(height), torch.eye(width)


def load_exported(path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
    """A function from pictures to logits or masks, and what the file says about itself.

    Raises:
        MissingFileError: There is no such file.
        InputError: It cannot be read or was not written by ``tools/export.py``, or its runtime is not installed.
    """
    if not path.is_file():
        raise MissingFileError(f'{path} does not exist: correct the path or make it with tools/export.py')
    loaders = {'.onnx': _load_onnx, '.pt2': _load_program}
    if path.suffix not in loaders:
        raise InputError(f'{path} is no exported model: give a {" or ".join(SUFFIXES)} file')
    try:
        run, text = loaders[path.suffix](path)
    except (InputError, KeyboardInterrupt):
        raise
    except Exception as error:  # The runtimes raise types of their own for damaged files.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f'{path} cannot be read ({reason[:160]}): export it again') from None
    if not text:
        raise InputError(f'{path} does not say how it was made: only files of tools/export.py can be used here')
    return run, json.loads(text)


def _load_onnx(path: Path) -> tuple[Callable[[Tensor], Tensor], str | None]:
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f'{path} needs onnxruntime: pip install onnxruntime') from None
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: image.numpy()})[0])

    return run, session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)


def _load_program(path: Path) -> tuple[Callable[[Tensor], Tensor], str | None]:
    extra = {METADATA_KEY: ''}
    program = torch.export.load(str(path), extra_files=extra)
    # Some versions of torch write down a guard that refuses single pictures, whose results are right all the same:
    # tools/export.py compares them. What the graph cannot do it asserts by itself.
    takes_guards = 'check_guards' in inspect.signature(program.module).parameters
    module = program.module(check_guards=False) if takes_guards else program.module()

    def run(image: Tensor) -> Tensor:
        with torch.no_grad():
            return module(image)

    return run, extra[METADATA_KEY]
