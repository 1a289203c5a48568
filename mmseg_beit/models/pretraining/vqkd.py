"""VQ-KD, the tokenizer of BEiT v2 (arXiv:2208.06366, section 3.1), trained and used.

Encoder, projection to d numbers, quantizer, decoder; the decoder's output is to point where the teacher's features
point. Training needs teacher and decoder; a tokenizer that is only used needs neither.

Names of tensors are mmpretrain's (``encoder.*``, ``encode_task_layer.*``, ``quantize.*``) and the official code's for
what mmpretrain lacks (``decoder.*``, ``decode_task_layer.*``). Both are BEiT backbones of ours; the decoder sees the
quantized map as a picture of d channels with patches of one pixel.

Shape suffixes: B pictures, N tokens, D width of a network, d width of a code, K codes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from ...checkpoint import convert_state_dict, read_state_dict
from ...errors import InputError
from ...registry import MODELS
from .frozen import check_num_codes, leave_out_of_state
from .quantizer import EMAVectorQuantizer


@MODELS.register_module()
class VQKD(BaseModel):
    """Vector-quantized knowledge distillation.

    Args:
        encoder: Config of a BEiT; the paper's has absolute positions, no relative tables and no layer scale.
        decoder: Config of a BEiT without ``img_size``, ``patch_size`` and ``in_channels``, which follow from the rest;
            ``None`` where the tokenizer is only used.
        teacher: Config of a teacher (:mod:`.teachers`), likewise.
        num_codes: K.
        code_dims: d.
        quantizer: Further arguments of :class:`~.quantizer.EMAVectorQuantizer`.
        data_preprocessor: Config; by default our own, which leaves pictures in 0..255.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)``: a checkpoint of a training run, mmpretrain's
            ``vqkd_encoder.pth`` or an official one.

    Raises:
        InputError: The networks do not fit each other.
    """

    def __init__(
        self,
        encoder: dict,
        decoder: dict | None = None,
        teacher: dict | None = None,
        num_codes: int = 8192,
        code_dims: int = 32,
        quantizer: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type='PretrainingDataPreprocessor'), init_cfg)
        if (decoder is None) != (teacher is None):
            raise InputError('VQKD trains with a decoder and a teacher, or tokenizes without both: give both or none')
        self.num_codes = num_codes
        self.encoder = MODELS.build(dict(type='BEiT') | dict(encoder) | dict(out_type='tokens', out_indices=-1))
        self.stride = self.encoder.patch_size
        self.encode_task_layer = _task_layer(self.encoder.embed_dims, code_dims)
        self.quantize = EMAVectorQuantizer(num_codes, code_dims, **(quantizer or {}))
        self.decoder = self.decode_task_layer = self.teacher = None
        if decoder is not None:
            place = dict(img_size=self.encoder.grid, patch_size=1, in_channels=code_dims)
            self.decoder = MODELS.build(
                dict(type='BEiT') | dict(decoder) | place | dict(out_type='tokens', out_indices=-1)
            )
            self.teacher = MODELS.build(teacher)
            self.decode_task_layer = _task_layer(self.decoder.embed_dims, self.teacher.out_dims)
        # Teachers are named in the config and are not the tokenizer's to keep.
        leave_out_of_state(self, 'teacher.')

    @property
    def is_ready(self) -> bool:
        """Whether there is a codebook."""
        return self.quantize.is_ready

    @property
    def codebook(self) -> Tensor:
        """The codes, unit vectors, float32 (K, d)."""
        return self.quantize.embedding.weight

    def forward(self, img: Tensor, mode: str = 'tensor', **kwargs: Any) -> Any:
        """Runs the tokenizer.

        Args:
            img: Float RGB (B, 3, H, W), 0..255; H and W multiples of the patch size.
            mode: ``tensor``: codes; ``loss``: training losses; ``predict``: per picture, codes and agreement.
            **kwargs: What else a batch holds (paths); not used.

        Returns:
            ``tensor``: int64 (B, h, w). ``loss``: ``loss_commit``, ``loss_teacher`` and, for the log, ``used_codes``:
            the share of the codebook that occurs in the batch. ``predict``: for each picture ``codes`` int64 (N,),
            ``num_codes`` and ``cosine``, the mean cosine with the teacher.
        """
        if mode == 'tensor':
            return self.tokenize(img)
        if mode not in ('loss', 'predict'):
            raise ValueError(f'mode={mode!r} is unknown: use tensor, loss or predict')
        return self.loss(img) if mode == 'loss' else self.predict(img)

    def encode(self, img: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Projected tokens, before quantization.

        Args:
            img: Float RGB (B, 3, H, W), 0..255.

        Returns:
            Float32 (B, N, d) and the grid (h, w).
        """
        # [-1, 1] as the official code, which finds out the range from the largest value; here it is always 0..255.
        tokens_BND = self.encoder(img / 127.5 - 1)[0][:, 1:]
        grid = (img.shape[2] // self.stride, img.shape[3] // self.stride)
        with torch.autocast(img.device.type, enabled=False):
            return self.encode_task_layer(tokens_BND.float()), grid

    def reconstruct(self, quantized_BNd: Tensor, grid: tuple[int, int]) -> Tensor:
        """The decoder's features (B, N, D of the teacher) of quantized tokens on a grid (h, w)."""
        picture = quantized_BNd.transpose(1, 2).unflatten(2, grid)
        return self.decode_task_layer(self.decoder(picture)[0][:, 1:])

    def loss(self, img: Tensor) -> dict[str, Tensor]:
        """Training losses; moves the codebook. See :meth:`forward`."""
        self._need_teacher()
        tokens_BNd, grid = self.encode(img)
        quantized_BNd, loss_commit, codes_BN = self.quantize(tokens_BNd)
        cosine_BN = self._cosine(img, quantized_BNd, grid)
        present_K = torch.zeros(self.num_codes, device=img.device)
        present_K[codes_BN.flatten()] = 1
        return dict(loss_commit=loss_commit, loss_teacher=(1 - cosine_BN).mean(), used_codes=present_K.mean())

    @torch.no_grad()
    def predict(self, img: Tensor) -> list[dict[str, Any]]:
        """Codes and agreement with the teacher, per picture; see :meth:`forward`."""
        self._need_teacher()
        tokens_BNd, grid = self.encode(img)
        quantized_BNd, _, codes_BN = self.quantize(tokens_BNd)
        cosine_B = self._cosine(img, quantized_BNd, grid).mean(dim=1)
        return [
            dict(codes=codes.cpu(), num_codes=self.num_codes, cosine=float(cosine))
            for codes, cosine in zip(codes_BN, cosine_B, strict=True)
        ]

    @torch.no_grad()
    def tokenize(self, img: Tensor) -> Tensor:
        """Codes of pictures; changes nothing in evaluation mode.

        Args:
            img: Float RGB (B, 3, H, W), 0..255.

        Returns:
            Int64 (B, h, w), 0..K-1.
        """
        tokens_BNd, grid = self.encode(img)
        with torch.autocast(img.device.type, enabled=False):
            codes_T = self.quantize.nearest(F.normalize(tokens_BNd, dim=-1).flatten(0, 1))
        return codes_T.view(len(img), *grid)

    @torch.no_grad()
    def compare(self, img: Tensor) -> tuple[Tensor, Tensor]:
        """What the teacher sees and what the codes tell of it; changes nothing in evaluation mode.

        Args:
            img: Float RGB (B, 3, H, W), 0..255.

        Returns:
            The teacher's features and the decoded ones, float (B, h w, D).

        Raises:
            InputError: There is no teacher.
        """
        self._need_teacher()
        tokens_BNd, grid = self.encode(img)
        quantized_BNd, _, _ = self.quantize(tokens_BNd)
        return self.teacher(img, grid), self.reconstruct(quantized_BNd, grid)

    def _cosine(self, img: Tensor, quantized_BNd: Tensor, grid: tuple[int, int]) -> Tensor:
        features_BND = self.reconstruct(quantized_BNd, grid)
        return F.cosine_similarity(features_BND.float(), self.teacher(img, grid), dim=-1)

    def _need_teacher(self) -> None:
        if self.teacher is None:
            raise InputError('this VQKD has neither decoder nor teacher, which training and testing need: add both')

    def init_weights(self) -> None:
        """Initialises encoder, decoder and projections as the backbone does, or loads what ``init_cfg`` names."""
        for network in filter(None, (self.encoder, self.decoder, self.teacher)):
            network.init_weights()
        for layers in filter(None, (self.encode_task_layer, self.decode_task_layer)):
            for layer in layers[::2]:
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        if self.init_cfg is not None:
            self.load_tokenizer(self.init_cfg['checkpoint'])
        self._is_init = True

    # What the optimizer constructor asks of a model with depth; layer decay is not used in this stage.

    @property
    def num_layers(self) -> int:
        """Depth of the encoder."""
        return self.encoder.num_layers

    def layer_id(self, name: str) -> int:
        """Depth of a parameter: the encoder's own; one more than its last for everything behind it."""
        if name.startswith('encoder.'):
            return self.encoder.layer_id(name.removeprefix('encoder.'))
        return self.num_layers + 1

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are not to be decayed: class tokens and positions of both networks."""
        networks = [('encoder.', self.encoder), ('decoder.', self.decoder)]
        return {prefix + name for prefix, net in networks if net is not None for name in net.no_weight_decay()}

    def load_tokenizer(self, path: str, trust: bool = False) -> None:
        """Loads a tokenizer.

        Args:
            path: A checkpoint of a training run of ours, of mmpretrain's or of the official code.
            trust: Runs the code that a pickle brings.

        Raises:
            MissingFileError: There is no such file.
            InputError: It cannot be read safely, or holds another network or another number of codes.
        """
        state_dict, _ = read_state_dict(path, trust)
        self.load_state_dict(self.fit_state_dict(state_dict, str(path), strict=False), strict=False)
        print_log(f'Tokenizer {path}: VQ-KD with {self.num_codes} codes', logger='current')

    def fit_state_dict(self, state_dict: dict[str, Tensor], source: str, strict: bool = True) -> dict[str, Tensor]:
        """The tensors of a file under this model's names.

        Args:
            state_dict: What :func:`mmseg_beit.checkpoint.read_state_dict` gives.
            source: Names the file in messages.
            strict: Asks for the decoder too, where the model has one.

        Returns:
            Tensors for ``load_state_dict``.

        Raises:
            InputError: See :meth:`load_tokenizer`.
        """
        if 'quantize.embedding.weight' not in state_dict:
            raise InputError(f'{source} holds no VQ-KD tokenizer (no quantize.embedding.weight): name one')
        check_num_codes(state_dict['quantize.embedding.weight'], self.num_codes, source)
        fitted = {'quantize.embedding.initted': torch.ones(1)}
        own = self.state_dict()
        for name, tensor in state_dict.items():
            if name in own and not name.startswith(('encoder.', 'decoder.')):
                if own[name].shape != tensor.shape:
                    raise InputError(
                        f'tokenizer {source}: {name} has shape {tuple(tensor.shape)}, the config wants '
                        f'{tuple(own[name].shape)}: correct code_dims, the encoder or the teacher'
                    )
                fitted[name] = tensor
        for part in ('encoder', 'decoder'):
            fitted |= self._fit_network(state_dict, part, source)
        needed = [name for name in own if strict or not name.startswith('decode')]
        missing = [name for name in needed if name not in fitted and 'num_batches' not in name]
        if missing:
            raise InputError(f'tokenizer {source} lacks {missing[0]}: name a complete checkpoint')
        return fitted

    def _fit_network(self, state_dict: dict[str, Tensor], part: str, source: str) -> dict[str, Tensor]:
        network = getattr(self, part)
        # The official code's norm of the patch tokens goes by the name of the norm behind a mean.
        inner = {
            name.removeprefix(f'{part}.').replace('fc_norm.', 'norm.'): tensor
            for name, tensor in state_dict.items()
            if name.startswith(f'{part}.')
        }
        if network is None or not inner:
            return {}
        fitted, _ = convert_state_dict(inner, network, source=f'{source} ({part})')
        return {f'{part}.{name}': tensor for name, tensor in fitted.items()}


def _task_layer(width: int, out_dims: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out_dims))
