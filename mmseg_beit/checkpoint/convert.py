"""From a family's tensors to ours, and from ours to a family's: pure functions on dictionaries.

Reading: detect the family, rename, join query, key and value, split biases. Writing runs the other way and says what
the family has no place for. Fitting to a model is in :mod:`.fit`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from . import tables
from .formats import FAMILIES, Family, detect, reading_map, writing_map
from .hf_config import IDENTITY_LAYER
from .naming import layer_index
from .report import Report
from .tables import Grid, StateDict


def to_ours(
    state_dict: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None, source: str = 'the checkpoint'
) -> tuple[StateDict, Report]:
    """Renames a checkpoint of any family to our names.

    Args:
        state_dict: The tensors as :func:`.reading.read_state_dict` gives them; not changed.
        meta: What it says about the file.
        source: The file, for messages.

    Returns:
        Tensors under our names, prefix ``backbone.`` included and index buffers kept (they tell the grid); and a report
        that says what the checkpoint is.

    Raises:
        InputError: No family knows the names, or the backbone's blocks hold tensors that BEiT does not have.
    """
    meta = meta or {}
    family = detect(state_dict, source, meta.get('wrapper'))
    report = Report(source=source, format=family.name, family=family.title)
    name_map, prefix = reading_map(family, state_dict)
    out: StateDict = {}
    unknown: list[str] = []
    for name, tensor in state_dict.items():
        ours = name_map.to_ours(prefix + name)
        if ours is None:
            # Heads beside a backbone without prefix.
            ours = name_map.to_ours(name)
        if ours is None or ours.startswith('backbone.head.'):
            unknown.append(name)
        elif ours in out:
            raise InputError(f'{source}: {name!r} and another tensor are both {ours!r} in a BEiT: it mixes two models')
        else:
            out[ours] = tensor
    foreign = [name for name in unknown if 'blocks.' in name or '.layer' in name or name.startswith('layer')]
    if foreign:
        raise InputError(
            f'{source} has {foreign[0]!r} in its blocks, which BEiT and BEiT v2 do not have: it is another architecture'
        )
    report.leave_out('not known to this family', unknown)
    pretraining_neck = any(name.startswith('neck.patch_aggregation.') for name in out)
    if (family.name == 'mmpretrain' or pretraining_neck) and 'backbone.ln1.weight' not in out:
        # BEiT v2's pre-training models, mmpretrain's and ours, keep the final norm in the neck.
        out = {name.replace('neck.norm.', 'backbone.ln1.'): tensor for name, tensor in out.items()}
    out, key_biases = tables.split_bias(tables.join_qkv(out))
    if key_biases:
        report.notes.append('the key biases are left out: softmax cancels them')
    out = _without_identity_layer(out, meta, report)
    describe(out, report, source)
    return out, report


def _without_identity_layer(state_dict: StateDict, meta: Mapping[str, Any], report: Report) -> StateDict:
    """Drops the layer that :func:`.hf_config.append_identity_layer` appends, whose layer scales are zero."""
    config = meta.get('config') or {}
    last = config.get('num_hidden_layers', 0)
    if report.format != 'hf' or not config.get(IDENTITY_LAYER) or not isinstance(last, int):
        return state_dict
    report.notes.append('the last layer is the identity, put there for transformers: it is left out')
    return {name: tensor for name, tensor in state_dict.items() if layer_index(name) != last - 1}


def describe(state_dict: StateDict, report: Report, source: str = 'the checkpoint') -> None:
    """Fills in what a checkpoint in our names is: content, width, depth, heads, patch size and classes.

    Raises:
        InputError: There is no backbone.
    """
    layers = [i for i in map(layer_index, state_dict) if i is not None]
    if not layers:
        raise InputError(f'{source} holds no transformer layers of a BEiT: name a checkpoint with a backbone')
    report.depth = max(layers) + 1
    projection = state_dict.get('backbone.patch_embed.projection.weight')
    width = next((t.shape[-1] for n, t in state_dict.items() if n.endswith('.attn.qkv.weight')), 0)
    report.width = width if projection is None else projection.shape[0]
    report.patch_size = None if projection is None else projection.shape[-1]
    names = tables.table_names(state_dict)
    report.num_heads = state_dict[names[0]].shape[1] if names else None
    for content, name in (
        ('segmentation', 'decode_head.conv_seg.weight'),
        ('classification', 'head.fc.weight'),
        ('self-supervised pre-training', 'head.cls_head.weight'),
    ):
        if name in state_dict:
            report.content = content
            report.num_classes = None if 'pre-training' in content else state_dict[name].shape[0]
            return
    if any(name.startswith('decode_head.') for name in state_dict):
        report.content = 'segmentation'
    elif 'backbone.mask_token' in state_dict or 'backbone.rel_pos_bias.relative_position_bias_table' in state_dict:
        report.content = 'self-supervised pre-training'


def from_ours(state_dict: StateDict, family: str | Family, grid: Grid | None = None) -> tuple[StateDict, Report]:
    """Renames a checkpoint in our names to a family's.

    Args:
        state_dict: Tensors in our names; not changed.
        family: The family or its name.
        grid: (h, w) of the position tables, for families with index buffers.

    Returns:
        Tensors in the family's names, and a report of what the family has no place for.

    Raises:
        InputError: The family cannot hold the backbone (mmseg has no absolute position embeddings).
    """
    family = FAMILIES[family] if isinstance(family, str) else family
    report = Report(format=family.name, family=family.title, grid=grid)
    describe(state_dict, report)
    out = {name: tensor for name, tensor in state_dict.items() if not tables.is_index(name)}
    out = _drop_parts(out, family, report)
    if family.name == 'mmseg':
        out = _as_mmseg(out, report)
    if family.index_buffers:
        out = tables.add_index_buffers(out, grid)
    if family.split_qkv:
        out = tables.split_qkv(out)
    elif family.name == 'mmpretrain' and any(name.startswith('neck.patch_aggregation.') for name in out):
        out = {name.replace('backbone.ln1.', 'neck.norm.'): tensor for name, tensor in out.items()}
    name_map = writing_map(family, out)
    renamed: StateDict = {}
    for name, tensor in out.items():
        theirs = name_map.to_theirs(name)
        if theirs is None:
            report.leave_out(f'{family.name} has no place for it', [name])
        else:
            renamed[theirs] = tensor
    if family.name in ('mmseg_beit', 'mmseg', 'mmpretrain') and all(name.startswith('backbone.') for name in renamed):
        # A backbone alone is named the way init_cfg of a backbone loads it.
        renamed = {name.removeprefix('backbone.'): tensor for name, tensor in renamed.items()}
    return renamed, report


def _drop_parts(state_dict: StateDict, family: Family, report: Report) -> StateDict:
    def unwanted(name: str) -> bool:
        if name.startswith(('decode_head.', 'auxiliary_head.', 'neck.upsample_')):
            return not family.segmentation
        if name == 'backbone.mask_token' or name.startswith(('head.cls_', 'neck.')):
            return not (family.pretraining or name.startswith('neck.upsample_'))
        return False

    dropped = [name for name in state_dict if unwanted(name)]
    report.leave_out(f'{family.name} has no place for it', dropped)
    return {name: tensor for name, tensor in state_dict.items() if name not in set(dropped)}


def _as_mmseg(state_dict: StateDict, report: Report) -> StateDict:
    """What mmseg's backbone always has: a table in each layer and layer scales; and nothing that it lacks."""
    if tables.POS_EMBED in state_dict:
        raise InputError("mmseg's BEiT has no absolute position embeddings: convert to mmpretrain, timm or hf instead")
    if not tables.table_names(state_dict):
        raise InputError("mmseg's BEiT needs relative position tables: convert to mmpretrain, timm or hf instead")
    if tables.SHARED_TABLE in state_dict:
        report.notes.append('the shared relative position table is copied to each layer')
    out = tables.expand_shared_table(state_dict, report.depth)
    if 'backbone.layers.0.gamma_1' not in out:
        report.notes.append('layer scales of one are added: the same network')
        for i in range(report.depth):
            for gamma in ('gamma_1', 'gamma_2'):
                out[f'backbone.layers.{i}.{gamma}'] = torch.ones(report.width)
    dropped = [name for name in out if name.startswith(('backbone.fc_norm.', 'head.'))]
    report.leave_out('mmseg has no place for it', dropped)
    return {name: tensor for name, tensor in out.items() if name not in set(dropped)}
