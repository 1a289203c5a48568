"""Changes to tensors that tell the families apart, and the fit of position tables to another grid.

All functions take and return dictionaries in our names (see :mod:`.naming`) and write into no tensor of the caller's.
Relative position tables are float (R, n heads); absolute ones float (1, 1 + h w, D).
"""

import re

import torch
from torch import Tensor

from ..errors import InputError
from ..models.layers.position import (
    Grid,
    num_relative_positions,
    resize_absolute_position,
    resize_relative_position_table,
    square_grid,
)

StateDict = dict[str, Tensor]

SHARED_TABLE = 'backbone.rel_pos_bias.relative_position_bias_table'
POS_EMBED = 'backbone.pos_embed'
_TABLE = '.relative_position_bias_table'
_INDEX = '.relative_position_index'
_NETWORK = ('backbone.', 'neck.')


def join_qkv(state_dict: StateDict) -> StateDict:
    """Joins ``attn.{q,k,v}`` into ``attn.qkv.weight``, ``attn.q_bias`` and ``attn.v_bias`` where it finds them."""
    out: StateDict = {}
    for name, tensor in state_dict.items():
        match = re.match(r'(.*\.attn)\.([qkv])\.(weight|bias)\Z', name)
        if not match:
            out[name] = tensor
            continue
        attn, part, kind = match.groups()
        if kind == 'bias':
            out[f'{attn}.{part}_bias'] = tensor
        elif part == 'q':
            parts = [state_dict.get(f'{attn}.{p}.weight') for p in 'qkv']
            if all(p is not None for p in parts):
                out[f'{attn}.qkv.weight'] = torch.cat(parts)
    return out


def split_qkv(state_dict: StateDict) -> StateDict:
    """The inverse of :func:`join_qkv`; where there are no biases they become zeros, which change nothing."""
    out: StateDict = {}
    for name, tensor in state_dict.items():
        attn, _, kind = name.rpartition('.attn.')
        if attn and kind == 'qkv.weight':
            parts = tensor.chunk(3)
            zeros = torch.zeros(len(parts[0]), dtype=tensor.dtype)
            for part, weight in zip('qkv', parts, strict=True):
                out[f'{attn}.attn.{part}.weight'] = weight.contiguous()
            for part in 'qv':
                out[f'{attn}.attn.{part}.bias'] = state_dict.get(f'{attn}.attn.{part}_bias', zeros)
        elif not (attn and kind in ('q_bias', 'v_bias')):
            out[name] = tensor
    return out


def split_bias(state_dict: StateDict) -> tuple[StateDict, list[str]]:
    """Turns one bias of query, key and value into ``q_bias`` and ``v_bias``.

    The key's bias adds the same number to all scores of a query, which softmax cancels, so it is dropped exactly.

    Returns:
        The new dictionary, and our names of the key biases that were not zero.
    """
    out: StateDict = {}
    dropped: list[str] = []
    for name, tensor in state_dict.items():
        attn, _, kind = name.rpartition('.attn.')
        if attn and kind == 'qkv.bias' and name.startswith(_NETWORK):
            q, k, v = tensor.chunk(3)
            out[f'{attn}.attn.q_bias'], out[f'{attn}.attn.v_bias'] = q.contiguous(), v.contiguous()
            if torch.any(k != 0):
                dropped.append(f'{attn}.attn.k_bias')
        elif attn and kind == 'k_bias':
            if torch.any(tensor != 0):
                dropped.append(name)
        else:
            out[name] = tensor
    return out, dropped


def merge_bias(state_dict: StateDict) -> StateDict:
    """Turns ``q_bias`` and ``v_bias`` into one bias of query, key and value, the key's being zero."""
    out: StateDict = {}
    for name, tensor in state_dict.items():
        attn, _, kind = name.rpartition('.attn.')
        v_bias = state_dict.get(f'{attn}.attn.v_bias') if attn else None
        if v_bias is not None and kind == 'q_bias':
            out[f'{attn}.attn.qkv.bias'] = torch.cat([tensor, torch.zeros_like(tensor), v_bias])
        elif not (attn and kind == 'v_bias'):
            out[name] = tensor
    return out


def expand_shared_table(state_dict: StateDict, num_layers: int) -> StateDict:
    """Gives each layer the table that all share. A layer that has one of its own gets the sum, as timm computes it."""
    shared = state_dict.get(SHARED_TABLE)
    if shared is None:
        return dict(state_dict)
    out = {name: tensor for name, tensor in state_dict.items() if name != SHARED_TABLE}
    for i in range(num_layers):
        name = f'backbone.layers.{i}.attn{_TABLE}'
        out[name] = shared + out[name] if name in out else shared.clone()
    return out


def collapse_equal_tables(state_dict: StateDict, num_layers: int) -> StateDict | None:
    """One shared table in place of the layers' own; ``None`` unless every layer has one and all are equal."""
    names = [f'backbone.layers.{i}.attn{_TABLE}' for i in range(num_layers)]
    if not names or any(name not in state_dict for name in names):
        return None
    first = state_dict[names[0]]
    if not all(torch.equal(first, state_dict[name]) for name in names):
        return None
    out = {name: tensor for name, tensor in state_dict.items() if name not in names}
    out[SHARED_TABLE] = first
    return out


def is_index(name: str) -> bool:
    """Whether a tensor is an index buffer, which follows from the grid."""
    return name.endswith(_INDEX)


def table_names(state_dict: StateDict) -> list[str]:
    """Our names of the relative position tables of backbone and pre-training head (not of a tokenizer beside them)."""
    return [name for name in state_dict if name.endswith(_TABLE) and name.startswith(_NETWORK)]


def relative_position_index(grid: Grid) -> Tensor:
    """Index buffer int64 (N, N), N = 1 + h w: the table row that a query (row) and a key (column) read."""
    h, w = grid
    y, x = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)
    index = torch.empty(1 + h * w, 1 + h * w, dtype=torch.int64)
    index[1:, 1:] = (y[:, None] - y + h - 1) * (2 * w - 1) + (x[:, None] - x + w - 1)
    last = num_relative_positions(grid)
    index[0, :], index[:, 0], index[0, 0] = last - 3, last - 2, last - 1
    return index


def add_index_buffers(state_dict: StateDict, grid: Grid | None) -> StateDict:
    """Puts an index buffer beside each relative position table."""
    out = dict(state_dict)
    names = table_names(state_dict)
    if names:
        assert grid is not None
        index = relative_position_index(grid)
        out.update({name[: -len(_TABLE)] + _INDEX: index.clone() for name in names})
    return out


def find_grid(
    state_dict: StateDict,
    hint: Grid | None = None,
    expected: Grid | None = None,
    prefer_expected: bool = False,
    source: str = 'the checkpoint',
) -> Grid | None:
    """The grid (h, w) that a checkpoint's position tables were made for.

    The number of rows of a table alone is ambiguous for grids that are not square. In this order: what the caller says;
    an index buffer in the file, which tells; a square; ``expected``, if the numbers fit; the one grid that fits.

    Args:
        state_dict: Tensors in our names, index buffers included where the file has them.
        hint: The grid, when it is known for certain (an option, a config beside the weights).
        expected: The grid that is likely (the model's).
        prefer_expected: Tries ``expected`` before a square (a checkpoint of the model's own family).
        source: The file, for error messages.

    Returns:
        The grid; ``None`` when there are no position tables.

    Raises:
        InputError: The tables fit no grid, or several and nothing tells which.
    """
    rows = {state_dict[name].shape[0] for name in table_names(state_dict)}
    embeds = state_dict.get(POS_EMBED)
    patches = None if embeds is None else embeds.shape[1] - 1
    if not rows and patches is None:
        return None
    if len(rows) > 1:
        raise InputError(f'{source} has relative position tables of different lengths {sorted(rows)}: it is damaged')
    num_rows = rows.pop() if rows else None

    def fits(grid: Grid | None) -> bool:
        return (
            grid is not None
            and (num_rows is None or num_relative_positions(grid) == num_rows)
            and (patches is None or grid[0] * grid[1] == patches)
        )

    if hint is not None:
        if not fits(hint):
            raise InputError(f'the position tables of {source} do not fit a grid of {hint[0]}x{hint[1]} patches')
        return hint
    side = None if patches is None else round(patches**0.5)
    square = square_grid(num_rows) if num_rows is not None else (side, side)
    for grid in (_grid_of_index(state_dict), expected if prefer_expected else None, square, expected):
        if fits(grid):
            return grid
    candidates = [grid for grid in _grids(num_rows, patches) if fits(grid)]
    if len(candidates) == 1:
        return candidates[0]
    what = f'{num_rows} rows' if num_rows is not None else f'{patches} patches'
    if not candidates:
        raise InputError(f'{source} has position tables of {what}, which fit no grid of patches: it is damaged')
    several = ', '.join(f'{h}x{w}' for h, w in candidates[:4])
    raise InputError(f'{source} has position tables of {what}, which fit several grids ({several}): name its grid')


def _grid_of_index(state_dict: StateDict) -> Grid | None:
    index = next((t for name, t in state_dict.items() if is_index(name) and name.startswith(_NETWORK)), None)
    if index is None or index.ndim != 2 or index.shape[0] < 2 or index.dtype != torch.int64:
        return None
    # Patch (0, 0) against itself is (h - 1)(2w - 1) + w - 1, and the rows of a table are (2h - 1)(2w - 1) + 3.
    patches, centre = index.shape[0] - 1, int(index[1, 1])
    for h in range(1, patches + 1):
        if patches % h == 0 and (h - 1) * (2 * (patches // h) - 1) + patches // h - 1 == centre:
            w = patches // h
            # The same centre arises for (h, w) and (w, h); neighbours along a row differ by one column.
            if w == 1 or h == 1 or int(index[1, 1] - index[1, 1 + w]) == 2 * w - 1:
                return h, w
    return None


def _grids(num_rows: int | None, patches: int | None) -> list[Grid]:
    if num_rows is None:
        return [(h, patches // h) for h in range(1, patches + 1) if patches % h == 0]
    cells = num_rows - 3
    return [((a + 1) // 2, (cells // a + 1) // 2) for a in range(1, max(cells, 0) + 1, 2) if cells % a == 0]


def resize_tables(state_dict: StateDict, src_grid: Grid, dst_grid: Grid, abs_mode: str = 'bicubic') -> StateDict:
    """Resizes all position tables from one grid to another, absolute ones by `abs_mode`; drops index buffers."""
    out: StateDict = {}
    names = set(table_names(state_dict))
    for name, tensor in state_dict.items():
        if is_index(name):
            continue
        if name in names:
            tensor = resize_relative_position_table(tensor, src_grid, dst_grid)
        elif name == POS_EMBED:
            tensor = resize_absolute_position(tensor, src_grid, dst_grid, mode=abs_mode)
        out[name] = tensor
    return out
