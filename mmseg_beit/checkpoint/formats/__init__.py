"""The families of checkpoints: how each is recognised, and its tensors' names and ours.

A family only renames. What changes tensors (query, key and value in one matrix or three, index buffers, shared tables)
is in :mod:`mmseg_beit.checkpoint.tables`, and the order of the steps in :mod:`mmseg_beit.checkpoint.convert`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import InputError
from ..naming import NameMap
from .official import OFFICIAL, OFFICIAL_SEGMENTATION, TIMM
from .openmmlab import MMPRETRAIN, MMSEG, OWN
from .transformers import HF, HF_FILE, HF_FILE_PRETRAINING

__all__ = ['FAMILIES', 'Family', 'detect', 'strip_prefixes']


@dataclass(frozen=True)
class Family:
    """A family of checkpoints.

    Attributes:
        name: What ``--to`` calls it.
        title: What a report calls it.
        index_buffers: Its files hold a ``relative_position_index`` beside each table.
        split_qkv: Query, key and value are three matrices.
        wrapper: The key that holds the tensors in its pickled files, ``None`` for bare tensors.
        segmentation: It has a place for decode heads.
        pretraining: It has a place for the mask token and the pre-training head.
    """

    name: str
    title: str
    index_buffers: bool = False
    split_qkv: bool = False
    wrapper: str | None = None
    segmentation: bool = True
    pretraining: bool = True


FAMILIES = {
    family.name: family
    for family in (
        Family('mmseg_beit', 'mmseg_beit', wrapper='state_dict'),
        Family('mmseg', 'mmsegmentation', index_buffers=True, wrapper='state_dict', pretraining=False),
        Family('mmpretrain', 'mmpretrain', index_buffers=True, wrapper='state_dict', segmentation=False),
        Family('timm', 'timm', segmentation=False, pretraining=False),
        Family('hf', 'transformers', split_qkv=True),
        Family('official', 'official (microsoft/unilm)', index_buffers=True, wrapper='model'),
    )
}

_PREFIXES = ('module.', '_orig_mod.', 'model.')
_SEGMENTATION_PARTS = ('decode_head.', 'auxiliary_head.')
_PRETRAINING_PARTS = ('mask_token', 'lm_head.', 'cls_pt_layers.')


def strip_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Names without what wrappers put before all of them (``module.`` of DDP, ``_orig_mod.`` of ``torch.compile``).

    Returns:
        Stripped name to original name.
    """
    stripped = {name.replace('._orig_mod.', '.'): name for name in names}
    changed = True
    while changed:
        changed = False
        for prefix in _PREFIXES:
            if stripped and all(name.startswith(prefix) for name in stripped):
                stripped = {name[len(prefix) :]: original for name, original in stripped.items()}
                changed = True
    return stripped


def detect(names: Iterable[str], source: str = 'the checkpoint', wrapper: str | None = None) -> Family:
    """The family whose names these are.

    timm's and bare official files share their names: those with a wrapper, index buffers, or parts that timm lacks are
    official.

    Args:
        names: Names of tensors, stripped of wrappers' prefixes.
        source: The file, for the error message.
        wrapper: The key that held the tensors in the file, if any.

    Raises:
        InputError: No family knows the names.
    """
    names = list(names)

    def has(*markers: str) -> bool:
        return any(marker in name for name in names for marker in markers)

    def begins(*markers: str) -> bool:
        return any(name.startswith(markers) for name in names)

    if begins('encoder.blocks.', 'encoder.layers.') and begins('quantize.'):
        raise InputError(
            f'{source} is a VQ-KD tokenizer, not a BEiT: name it in the tokenizer of a pre-training config instead'
        )
    if has('patch_embeddings.projection.', '.layernorm_before.', '.lambda_1'):
        return FAMILIES['hf']
    if begins('blocks.', 'backbone.blocks.'):
        official = has('relative_position_index') or begins('backbone.', *_PRETRAINING_PARTS) or wrapper is not None
        return FAMILIES['official' if official else 'timm']
    if begins('layers.', 'backbone.layers.') and has('.ln1.', '.ffn.layers.', '.gamma_1', '.attn.'):
        if not has('relative_position_index'):
            return FAMILIES['mmseg_beit']
        # A bare backbone may be either's: the names agree.
        pretrain = begins(
            'head.', 'neck.patch', 'neck.norm.', 'backbone.ln2.', 'ln2.', 'backbone.mask_token', 'mask_token'
        )
        return FAMILIES['mmpretrain' if pretrain else 'mmseg']
    raise InputError(
        f'{source} is no checkpoint of a BEiT family (official, timm, transformers, mmpretrain, mmseg, mmseg_beit): '
        f'its tensors are named like {", ".join(map(repr, names[:3])) or "nothing at all"}; name a BEiT checkpoint'
    )


def reading_map(family: Family, names: Iterable[str]) -> tuple[NameMap, str]:
    """The names of a family's file.

    Returns:
        The map, and what to put before each name first (``backbone.`` or ``beit.`` where a backbone is alone).
    """
    names = list(names)
    if family.name == 'hf':
        # BeitModel alone has no prefix, neither in old files nor in new ones.
        alone = not any(name.startswith('beit.') for name in names)
        return HF, 'beit.' if alone else ''
    if family.name in ('timm', 'official'):
        segmentation = any(name.startswith(('backbone.', *_SEGMENTATION_PARTS)) for name in names)
        return (OFFICIAL_SEGMENTATION, '') if segmentation else (OFFICIAL, '')
    alone = not any(name.startswith('backbone.') for name in names)
    return (MMPRETRAIN if family.name == 'mmpretrain' else OWN), 'backbone.' if alone else ''


def writing_map(family: Family, names: Iterable[str]) -> NameMap:
    """The map that gives a family's names of ours.

    Args:
        family: The family to write.
        names: Our names of the tensors to be written.
    """
    names = list(names)
    segmentation = any(name.startswith(_SEGMENTATION_PARTS) for name in names)
    if family.name == 'hf':
        pretraining = any(name.startswith('head.cls_head.') for name in names)
        return HF_FILE_PRETRAINING if pretraining else HF_FILE
    if family.name == 'timm':
        return TIMM
    if family.name == 'official':
        return OFFICIAL_SEGMENTATION if segmentation else OFFICIAL
    return {'mmpretrain': MMPRETRAIN, 'mmseg': MMSEG, 'mmseg_beit': OWN}[family.name]
