"""The official code's names (microsoft/unilm, ``beit`` and ``beit2``), which are timm's too.

Official files wrap the tensors in ``model`` or ``module``, segmentation ones (mmsegmentation 0.x) in ``state_dict``
with the backbone under ``backbone.`` and its pyramid, ``fpn1`` and ``fpn2``, inside the backbone. timm's are bare and
hold what its ``Beit`` holds: no mask token, no pre-training or segmentation heads, no index buffers.
"""

from ..naming import NameMap, block_pairs

BLOCK = [
    ('ln1.*', 'norm1.*'),
    ('ln2.*', 'norm2.*'),
    ('attn.*', 'attn.*'),
    ('ffn.layers.0.0.*', 'mlp.fc1.*'),
    ('ffn.layers.1.*', 'mlp.fc2.*'),
    ('gamma_1', 'gamma_1'),
    ('gamma_2', 'gamma_2'),
]

BACKBONE = [
    ('backbone.cls_token', 'cls_token'),
    ('backbone.pos_embed', 'pos_embed'),
    ('backbone.patch_embed.projection.*', 'patch_embed.proj.*'),
    ('backbone.rel_pos_bias.*', 'rel_pos_bias.*'),
    *block_pairs('backbone.layers.{i}.', 'blocks.{i}.', BLOCK),
    ('backbone.ln1.*', 'norm.*'),
    ('backbone.fc_norm.*', 'fc_norm.*'),
]

CLASSIFIER = [('head.fc.*', 'head.*')]

PRETRAINING = [
    ('backbone.mask_token', 'mask_token'),
    ('head.cls_head.*', 'lm_head.*'),
    # v2's second head, when it does not share the first one's output layer.
    ('head.cls_pt_head.*', 'cls_pt_lm_head.*'),
    ('neck.cls_pt_norm.*', 'cls_pt_norm.*'),
    *block_pairs('neck.patch_aggregation.{i}.', 'cls_pt_layers.{i}.', BLOCK),
]

SEGMENTATION = [
    ('neck.upsample_4x.*', 'backbone.fpn1.*'),
    ('neck.upsample_2x.*', 'backbone.fpn2.*'),
    *((ours, 'backbone.' + theirs) for ours, theirs in [*BACKBONE, ('backbone.mask_token', 'mask_token')]),
    ('decode_head.*', 'decode_head.*'),
    ('auxiliary_head.*', 'auxiliary_head.*'),
]

TIMM = NameMap([*BACKBONE, *CLASSIFIER])
OFFICIAL = NameMap([*BACKBONE, *CLASSIFIER, *PRETRAINING])
OFFICIAL_SEGMENTATION = NameMap(SEGMENTATION)
