"""The ``config.json`` that transformers needs beside the weights, from the tensors and what is known about the network.

NOTE(reference): transformers counts ``out_indices`` from 1 with the embedding as the first, and takes hidden state k -
1, so its k is block k - 2 counted from 0; its validation allows no k that means the last block. A segmentor that reads
its last block therefore gets one more layer whose layer scales are zero, the identity, and is then exact.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import InputError
from . import tables
from .report import Report
from .tables import Grid, StateDict

IDENTITY_LAYER = 'mmseg_beit_identity_layer'
"""Key of a config whose last layer is such an identity; reading it back leaves that layer out."""

_ARCHITECTURES = {
    'segmentation': 'BeitForSemanticSegmentation',
    'classification': 'BeitForImageClassification',
    'self-supervised pre-training': 'BeitForMaskedImageModeling',
    'backbone': 'BeitModel',
}


def transformers_config(
    state_dict: StateDict,
    report: Report,
    out_indices: Sequence[int] | None,
    norm_eps: float,
    base: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The config of a checkpoint in our names.

    Args:
        state_dict: The tensors, in our names.
        report: What they are (:func:`.convert.describe`), and their grid.
        out_indices: 0-based blocks that a segmentor reads, ascending; ``None`` to keep those of ``base``.
        norm_eps: Epsilon of the layer norms.
        base: A config whose other entries are kept (of the transformers checkpoint that this one came from).

    Raises:
        InputError: transformers has no such network.
    """
    _check_square(report.grid)
    if report.num_heads is None:
        report.notes.append('the number of heads is not in the checkpoint: heads of width 64 are assumed')
    hidden = state_dict.get('backbone.layers.0.ffn.layers.0.0.weight')
    embeds = state_dict.get(tables.POS_EMBED)
    grid = report.grid or (14, 14)
    config = dict(base or {})
    config.update(
        model_type='beit',
        architectures=[_ARCHITECTURES[report.content]],
        hidden_size=report.width,
        num_hidden_layers=report.depth,
        num_attention_heads=report.num_heads or max(report.width // 64, 1),
        intermediate_size=4 * report.width if hidden is None else hidden.shape[0],
        num_channels=state_dict['backbone.patch_embed.projection.weight'].shape[1],
        hidden_act='gelu',
        image_size=grid[0] * report.patch_size,
        patch_size=report.patch_size,
        layer_norm_eps=norm_eps,
        use_mask_token='backbone.mask_token' in state_dict,
        use_absolute_position_embeddings=embeds is not None,
        use_relative_position_bias='backbone.layers.0.attn.relative_position_bias_table' in state_dict,
        use_shared_relative_position_bias=tables.SHARED_TABLE in state_dict,
        layer_scale_init_value=0.1 if 'backbone.layers.0.gamma_1' in state_dict else 0.0,
        # Class token pooling norms all tokens; masked image models have a norm of their own.
        use_mean_pooling='backbone.ln1.weight' not in state_dict or report.content.startswith('self-supervised'),
    )
    if 'head.cls_head.weight' in state_dict:
        config['vocab_size'] = state_dict['head.cls_head.weight'].shape[0]
    if report.num_classes:
        _set_labels(config, report.num_classes)
    if report.content == 'segmentation':
        _set_segmentation(config, state_dict, report, None if out_indices is None else list(out_indices))
    return config


def _check_square(grid: Grid | None) -> None:
    if grid is not None and grid[0] != grid[1]:
        raise InputError(
            f'transformers mixes up the sides of position tables that are not square ({grid[0]}x{grid[1]} patches): '
            f'convert to another format, or load into a model with a square img_size and convert its checkpoint'
        )


def _set_labels(config: dict[str, Any], num_classes: int) -> None:
    if len(config.get('id2label') or {}) == num_classes:
        return
    config['id2label'] = {str(i): f'LABEL_{i}' for i in range(num_classes)}
    config['label2id'] = {label: int(i) for i, label in config['id2label'].items()}


def _set_segmentation(
    config: dict[str, Any], state_dict: StateDict, report: Report, out_indices: list[int] | None
) -> None:
    bottleneck = state_dict.get('decode_head.bottleneck.conv.weight')
    if bottleneck is None or 'neck.upsample_4x.0.weight' not in state_dict or bottleneck.shape[0] != report.width:
        raise InputError(
            f'transformers has BEiT segmentation only as UPerNet with {report.width} channels and the official neck: '
            f'convert to another format, or convert the backbone alone'
        )
    scales = 1 + max(int(m[1]) for n in state_dict if (m := re.match(r'decode_head\.psp_modules\.(\d+)\.', n)))
    if scales != len(config.get('pool_scales', (1, 2, 3, 6))):
        raise InputError(f'the decode head pools at {scales} scales whose sizes are not in the file: convert elsewhere')
    convs = {m[1] for n in state_dict if (m := re.match(r'auxiliary_head\.convs\.(\d+)\.', n))}
    config['use_auxiliary_head'] = bool(convs)
    if convs:
        config['auxiliary_channels'] = state_dict['auxiliary_head.convs.0.conv.weight'].shape[0]
        config['auxiliary_num_convs'] = len(convs)
        config['auxiliary_concat_input'] = 'auxiliary_head.conv_cat.conv.weight' in state_dict
    if out_indices is not None:
        if len(out_indices) != 4 or out_indices != sorted({i for i in out_indices if 0 <= i < report.depth}):
            given = ' '.join(map(str, out_indices))
            raise InputError(f'--out-indices {given} are not four ascending blocks: name four of 0..{report.depth - 1}')
        config['out_indices'] = [i + 2 for i in out_indices]
        config[IDENTITY_LAYER] = out_indices[-1] == report.depth - 1
    config['num_hidden_layers'] = report.depth + bool(config.get(IDENTITY_LAYER))
    # transformers derives these from out_indices and num_hidden_layers.
    for key in ('stage_names', 'out_features'):
        config.pop(key, None)


def append_identity_layer(state_dict: StateDict, depth: int) -> StateDict:
    """Adds a copy of the last layer whose layer scales are zero, which passes its input on.

    Args:
        state_dict: The tensors, in our names.
        depth: Number of layers.
    """
    last, new = f'backbone.layers.{depth - 1}.', f'backbone.layers.{depth}.'
    copy = {name.replace(last, new): tensor.clone() for name, tensor in state_dict.items() if name.startswith(last)}
    width = next(tensor.shape[0] for name, tensor in copy.items() if name.endswith('ln1.weight'))
    copy.update({f'{new}gamma_1': torch.zeros(width), f'{new}gamma_2': torch.zeros(width)})
    return {**state_dict, **copy}
