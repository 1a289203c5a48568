"""Fits a checkpoint in our names to a model: shared tables, resizing, and the decision what may be missing.

The model is known by the shapes of its tensors and its backbone's grid alone, never by a class name. The rules:

- a backbone tensor that is missing, has another shape, or that the model has no place for is an error, except the mask
  token and, when not testing, the output norms (each recipe has its own);
- heads and neck may be new or left out when fine-tuning; when testing they must fit, the auxiliary heads aside.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InputError
from . import tables
from .naming import layer_index
from .report import Report, summarise
from .tables import Grid, StateDict

ROLES = ('init', 'finetune', 'test')

_OUTPUT_NORMS = ('backbone.ln1.', 'backbone.fc_norm.')
_NOT_FOR_INFERENCE = ('auxiliary_head.', 'data_preprocessor.')
_REMEDIES = {
    'pos_embed': 'use_abs_pos',
    'relative_position_bias_table': 'rel_pos',
    'gamma_1': 'init_values',
    'gamma_2': 'init_values',
    'q_bias': 'qv_bias',
    'v_bias': 'qv_bias',
}


@dataclass(frozen=True)
class Target:
    """What a checkpoint is fitted to.

    Attributes:
        shapes: Shape of each tensor, in our names.
        names: Our name to the model's own name.
        grid: (h, w) of the position tables, ``None`` without tables.
        norm_eps: Epsilon of the layer norms, ``None`` if unknown.
        out_indices: 0-based blocks that the backbone returns, ``None`` if unknown.
        interpolate_mode: How the model resizes absolute position embeddings.
    """

    shapes: dict[str, tuple[int, ...]]
    names: dict[str, str]
    grid: Grid | None
    norm_eps: float | None = None
    out_indices: tuple[int, ...] | None = None
    interpolate_mode: str = 'bicubic'

    @classmethod
    def of(cls, model: nn.Module) -> 'Target':
        """Describes a model: a backbone, or anything that holds one (segmentor, classifier, wrapper of one).

        Raises:
            InputError: There is no BEiT backbone in the model.
        """
        prefix, backbone = _find_backbone(model)
        # What stands beside the backbone is named from where it stands: 'module.decode_head' of a wrapped segmentor.
        root = prefix.removesuffix('backbone.')
        state_dict = model.state_dict()
        names: dict[str, str] = {}
        for name in state_dict:
            if name.startswith(prefix):
                names['backbone.' + name[len(prefix) :]] = name
            elif root != prefix and name.startswith(root):
                names[name[len(root) :]] = name
        shapes = {ours: tuple(state_dict[name].shape) for ours, name in names.items()}
        norm = next((m for m in backbone.modules() if isinstance(m, nn.LayerNorm)), None)
        out_indices = getattr(backbone, 'out_indices', None)
        return cls(
            shapes,
            names,
            _grid_of(backbone, shapes),
            None if norm is None else norm.eps,
            tuple(out_indices) if out_indices else None,
            getattr(backbone, 'interpolate_mode', 'bicubic'),
        )


def _find_backbone(model: nn.Module) -> tuple[str, nn.Module]:
    found = [
        (name, module)
        for name, module in model.named_modules()
        if all(hasattr(module, part) for part in ('patch_embed', 'layers', 'cls_token'))
    ]
    # A pre-training model holds a tokenizer too, whose encoder is built like a backbone.
    found.sort(key=lambda item: not (item[0] == '' or item[0].split('.')[-1] == 'backbone'))
    if not found:
        raise InputError(f'the model ({type(model).__name__}) has no BEiT backbone to load a checkpoint into')
    name, module = found[0]
    return (name + '.' if name else ''), module


def _grid_of(backbone: nn.Module, shapes: dict[str, tuple[int, ...]]) -> Grid | None:
    tables_shapes = {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}
    for attribute in ('grid', 'patch_shape', 'patch_resolution'):
        grid = getattr(backbone, attribute, None)
        if grid is not None and len(grid) == 2:
            return tables.find_grid(tables_shapes, hint=(int(grid[0]), int(grid[1])), source='the model')
    return tables.find_grid(tables_shapes, source='the model')


def fit(
    state_dict: StateDict,
    target: Target,
    report: Report,
    role: str = 'init',
    source_grid: Grid | None = None,
    own_family: bool = False,
) -> StateDict:
    """Fits a checkpoint to a model.

    Args:
        state_dict: Tensors in our names, index buffers included; not changed.
        target: The model.
        report: Takes down what is resized, left out and new; its ``source`` names the file in errors.
        role: ``init`` or ``finetune`` (heads may differ) or ``test`` (they may not).
        source_grid: (h, w) the file's tables were made for, when known; else it is found out.
        own_family: The file comes from a model like this one, so that its grid is probably the same.

    Returns:
        Tensors for ``load_state_dict``, under the model's own names. Their data types are the file's.

    Raises:
        InputError: The checkpoint does not fit; the sentence says where and what to change.
    """
    assert role in ROLES, role
    _check_size(state_dict, target, report)
    grid = tables.find_grid(state_dict, source_grid, target.grid, own_family, report.source)
    report.grid = grid
    out = {name: tensor for name, tensor in state_dict.items() if not tables.is_index(name)}
    out = _fit_tables(out, target, grid, report)
    out = _fit_biases(out, target)
    out = _rename_norm(out, target)
    reshaped = [n for n in out if n in target.shapes and tuple(out[n].shape) != target.shapes[n]]
    unplaced = [n for n in out if n not in target.shapes]
    _judge_reshaped(reshaped, out, target, report, role)
    left_out = {*reshaped, *unplaced}
    out = {name: tensor for name, tensor in out.items() if name not in left_out}
    _judge_missing(out, target, report, role)
    _judge_unplaced(unplaced, report, role)
    report.loaded = len(out)
    return {target.names[name]: tensor for name, tensor in out.items()}


def _check_size(state_dict: StateDict, target: Target, report: Report) -> None:
    depth = 1 + max((i for i in map(layer_index, target.shapes) if i is not None), default=-1)
    projection = target.shapes.get('backbone.patch_embed.projection.weight')
    model = Report(width=projection[0] if projection else report.width, depth=depth)
    if (report.width, report.depth) != (model.width, model.depth):
        raise InputError(
            f'{report.source} is a BEiT {report.size}, the model is {model.size}: '
            f"set embed_dims={report.width} and num_layers={report.depth}, or name a checkpoint of the model's size"
        )
    theirs = state_dict.get('backbone.patch_embed.projection.weight')
    if theirs is not None and projection and tuple(theirs.shape) != projection:
        raise InputError(
            f'{report.source} has patches of {theirs.shape[1]} channels and {theirs.shape[2]}x{theirs.shape[3]} '
            f'pixels, the model of {projection[1]} channels and {projection[2]}x{projection[3]}: set in_channels and '
            f'patch_size'
        )


def _fit_tables(state_dict: StateDict, target: Target, grid: Grid | None, report: Report) -> StateDict:
    if grid is None:
        return state_dict
    out = state_dict
    if target.grid is not None and target.grid != grid:
        kinds = ['relative position tables'] if tables.table_names(out) else []
        kinds += ['absolute position embeddings'] if tables.POS_EMBED in out else []
        report.resized.append(f'{" and ".join(kinds)} from {_size(grid)} to {_size(target.grid)} patches')
        out = tables.resize_tables(out, grid, target.grid, target.interpolate_mode)
    wants_shared = tables.SHARED_TABLE in target.shapes
    wants_own = any(name.endswith('.attn.relative_position_bias_table') for name in target.shapes)
    if tables.SHARED_TABLE in out and wants_own and not wants_shared:
        report.notes.append(f'the shared relative position table is copied to the {report.depth} layers')
        out = tables.expand_shared_table(out, report.depth)
    elif tables.SHARED_TABLE not in out and wants_shared and not wants_own:
        collapsed = tables.collapse_equal_tables(out, report.depth)
        if collapsed is not None:
            report.notes.append('the equal relative position tables of all layers become the shared one')
        elif tables.table_names(out):
            raise InputError(
                f'{report.source} has a relative position table for each layer, the model one for all: set '
                f"rel_pos='layer'"
            )
        out = collapsed or out
    return out


def _fit_biases(state_dict: StateDict, target: Target) -> StateDict:
    """One bias of query, key and value where the model has that (``bias=True`` of mmpretrain's backbone)."""
    if 'backbone.layers.0.attn.qkv.bias' in target.shapes:
        return tables.merge_bias(state_dict)
    return state_dict


def _rename_norm(state_dict: StateDict, target: Target) -> StateDict:
    """Final and pooling norms under the names of a model that calls them differently (mmpretrain's)."""
    renames = []
    if not any(name.startswith('backbone.ln1.') for name in target.shapes) and 'neck.norm.weight' in target.shapes:
        renames.append(('backbone.ln1.', 'neck.norm.'))
    if 'backbone.ln2.weight' in target.shapes:
        renames.append(('backbone.fc_norm.', 'backbone.ln2.'))
    if 'head.layers.head.weight' in target.shapes:
        renames.append(('head.fc.', 'head.layers.head.'))
    out = state_dict
    for old, new in renames:
        out = {new + n.removeprefix(old) if n.startswith(old) else n: t for n, t in out.items()}
    return out


def _judge_reshaped(names: list[str], state_dict: StateDict, target: Target, report: Report, role: str) -> None:
    heads = f', {report.num_heads} heads' if report.num_heads else ''
    for name in names:
        theirs, ours = tuple(state_dict[name].shape), target.shapes[name]
        part = name.rpartition('.')[0]
        if name.startswith('backbone.'):
            raise InputError(
                f'{report.source}: {name} has shape {_size(theirs)}, the model wants {_size(ours)}: change the '
                f"backbone config to the checkpoint's ({report.size}{heads})"
            )
        is_classifier = part.endswith(('conv_seg', 'head.fc', 'layers.head', 'cls_head'))
        reason = f'shape {_size(theirs)} in the file, {_size(ours)} in the model'
        remedy = 'the shapes of the head'
        if is_classifier and theirs[1:] == ours[1:]:
            reason, remedy = f'{theirs[0]} classes in the file, {ours[0]} in the model', f'num_classes={theirs[0]}'
        if role == 'test' and not name.startswith(_NOT_FOR_INFERENCE):
            raise InputError(
                f'{report.source} cannot be tested with this config: {part}: {reason}; set {remedy} in the config'
            )
        report.leave_out(reason, [name])


def _judge_unplaced(names: list[str], report: Report, role: str) -> None:
    for name in names:
        last = name.rpartition('.')[2]
        if name == 'backbone.mask_token':
            report.leave_out('only pre-training needs it', [name])
        elif name.startswith(_OUTPUT_NORMS) and role != 'test':
            report.leave_out('the model has no such norm', [name])
        elif name.startswith('backbone.'):
            remedy = (
                f'set {_REMEDIES[last]} of the backbone to match' if last in _REMEDIES else 'change the backbone config'
            )
            raise InputError(
                f'{report.source} has {name}, which the model has no place for and without which it is another '
                f'network: {remedy}'
            )
        elif role == 'test' and name.startswith(('decode_head.', 'neck.')):
            raise InputError(
                f'{report.source} cannot be tested with this config: it has {name}, the model has not; use the config '
                f'it was trained with'
            )
        else:
            report.leave_out('the model has no such part', [name])


def _judge_missing(state_dict: StateDict, target: Target, report: Report, role: str) -> None:
    missing = [
        name
        for name in target.shapes
        if name not in state_dict and not tables.is_index(name) and not name.endswith('num_batches_tracked')
    ]
    reshaped = {name for names in report.left_out.values() for name in names}
    fatal: list[str] = []
    for name in missing:
        if name == 'backbone.mask_token':
            report.add_new('the checkpoint has none; only pre-training needs it', [name])
        elif name.startswith('backbone.') and not (role != 'test' and name.startswith(_OUTPUT_NORMS)):
            fatal.append(name)
        elif name in reshaped:
            report.add_new('starts anew', [name])
        elif role == 'test' and not name.startswith(_NOT_FOR_INFERENCE):
            fatal.append(name)
        elif name.startswith(_NOT_FOR_INFERENCE) and role == 'test':
            report.add_new('not in the checkpoint, not used in testing', [name])
        else:
            report.add_new('not in the checkpoint', [name])
    if not fatal:
        return
    last = fatal[0].rpartition('.')[2]
    # What no layer has is another kind of network; what some lack is an incomplete file.
    everywhere = {name for name in target.shapes if name.rpartition('.')[2] == last} <= set(fatal)
    if last in _REMEDIES and everywhere:
        remedy = f'set {_REMEDIES[last]} of the backbone to match'
    elif fatal[0].startswith('backbone.'):
        remedy = 'name a complete checkpoint'
    else:
        remedy = 'name a checkpoint trained with this config'
    what = fatal[0] if len(fatal) == 1 else summarise(fatal, limit=2)
    raise InputError(f'{report.source} lacks {what}, which the model needs: {remedy}')


def check_finite(state_dict: dict[str, Tensor], source: str) -> None:
    """Refuses weights that are not numbers.

    Raises:
        InputError: A tensor holds NaN or infinity.
    """
    for name, tensor in state_dict.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f'{source}: tensor {name!r} holds NaN or infinity: its training diverged, name an earlier checkpoint'
            )


def _size(shape: Iterable[int]) -> str:
    return 'x'.join(map(str, shape))
