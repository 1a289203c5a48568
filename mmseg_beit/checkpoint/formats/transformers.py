"""Hugging Face transformers' names: those its files hold, and those its version 5 has in memory.

Query, key and value are three matrices here; :mod:`..tables` joins and splits them. The pyramid lies outside the
backbone, the decode head is mmsegmentation's with other names. ``out_indices`` of a config counts from 1 and counts the
embedding: its k is our block k - 2.
"""

from ..naming import NameMap, block_pairs

_FILE_BLOCK = [
    ('ln1.*', 'layernorm_before.*'),
    ('ln2.*', 'layernorm_after.*'),
    ('attn.q.*', 'attention.attention.query.*'),
    ('attn.k.*', 'attention.attention.key.*'),
    ('attn.v.*', 'attention.attention.value.*'),
    ('attn.relative_position_*', 'attention.attention.relative_position_bias.relative_position_*'),
    ('attn.proj.*', 'attention.output.dense.*'),
    ('ffn.layers.0.0.*', 'intermediate.dense.*'),
    ('ffn.layers.1.*', 'output.dense.*'),
    ('gamma_1', 'lambda_1'),
    ('gamma_2', 'lambda_2'),
]
_MEMORY_BLOCK = [
    ('ln1.*', 'layernorm_before.*'),
    ('ln2.*', 'layernorm_after.*'),
    ('attn.q.*', 'attention.q_proj.*'),
    ('attn.k.*', 'attention.k_proj.*'),
    ('attn.v.*', 'attention.v_proj.*'),
    ('attn.relative_position_*', 'relative_position_bias.relative_position_*'),
    ('attn.proj.*', 'attention.o_proj.*'),
    ('ffn.layers.0.0.*', 'mlp.fc1.*'),
    ('ffn.layers.1.*', 'mlp.fc2.*'),
    ('gamma_1', 'lambda_1'),
    ('gamma_2', 'lambda_2'),
]
_EMBEDDINGS = [
    ('backbone.cls_token', 'beit.embeddings.cls_token'),
    ('backbone.mask_token', 'beit.embeddings.mask_token'),
    ('backbone.pos_embed', 'beit.embeddings.position_embeddings'),
    ('backbone.patch_embed.projection.*', 'beit.embeddings.patch_embeddings.projection.*'),
]
_FILE_BACKBONE = [
    *_EMBEDDINGS,
    ('backbone.rel_pos_bias.*', 'beit.encoder.relative_position_bias.*'),
    *block_pairs('backbone.layers.{i}.', 'beit.encoder.layer.{i}.', _FILE_BLOCK),
]
_MEMORY_BACKBONE = [
    *_EMBEDDINGS,
    ('backbone.rel_pos_bias.*', 'beit.shared_position_bias.*'),
    *block_pairs('backbone.layers.{i}.', 'beit.layers.{i}.', _MEMORY_BLOCK),
]
# The final norm is the model's own when it pools the class token, the masked image model's otherwise.
_NORM = [('backbone.ln1.*', 'beit.layernorm.*'), ('backbone.fc_norm.*', 'beit.pooler.layernorm.*')]
_CLASSIFIER = [('head.fc.*', 'classifier.*')]
_PRETRAINING = [('backbone.ln1.*', 'layernorm.*'), ('head.cls_head.*', 'lm_head.*')]


def _file_convs(head: str, part: str) -> list[tuple[str, str]]:
    return [(f'{head}.{part}.*', f'{head}.{part}.*')]


def _memory_convs(head: str, ours: str, theirs: str) -> list[tuple[str, str]]:
    return [
        (f'{head}.{ours}.conv.*', f'{head}.{theirs}.convolution.*'),
        (f'{head}.{ours}.bn.*', f'{head}.{theirs}.normalization.*'),
    ]


_FILE_SEGMENTATION = [
    ('neck.upsample_4x.*', 'fpn1.*'),
    ('neck.upsample_2x.*', 'fpn2.*'),
    ('decode_head.conv_seg.*', 'decode_head.classifier.*'),
    ('auxiliary_head.conv_seg.*', 'auxiliary_head.classifier.*'),
    *_file_convs('decode_head', 'psp_modules'),
    *_file_convs('decode_head', 'bottleneck'),
    *_file_convs('decode_head', 'lateral_convs'),
    *_file_convs('decode_head', 'fpn_convs'),
    *_file_convs('decode_head', 'fpn_bottleneck'),
    *_file_convs('auxiliary_head', 'convs'),
    *_file_convs('auxiliary_head', 'conv_cat'),
]
_MEMORY_SEGMENTATION = [
    ('neck.upsample_4x.0.*', 'fpn.fpn1.conv_transpose1.*'),
    ('neck.upsample_4x.1.*', 'fpn.fpn1.normalization.*'),
    ('neck.upsample_4x.3.*', 'fpn.fpn1.conv_transpose2.*'),
    ('neck.upsample_2x.0.*', 'fpn.fpn2.*'),
    ('decode_head.conv_seg.*', 'decode_head.classifier.*'),
    ('auxiliary_head.conv_seg.*', 'auxiliary_head.classifier.*'),
    *_memory_convs('decode_head', 'psp_modules.{i}.1', 'psp_modules.blocks.{i}.conv'),
    *_memory_convs('decode_head', 'bottleneck', 'psp_bottleneck'),
    *_memory_convs('decode_head', 'lateral_convs.{i}', 'lateral_convs.{i}'),
    *_memory_convs('decode_head', 'fpn_convs.{i}', 'fpn_convs.{i}'),
    *_memory_convs('decode_head', 'fpn_bottleneck', 'fpn_bottleneck'),
    *_memory_convs('auxiliary_head', 'convs.{i}', 'convs.{i}'),
    *_memory_convs('auxiliary_head', 'conv_cat', 'conv_cat'),
]

# Reading understands both forms; the first pair that fits wins, so the in-memory names come first.
HF = NameMap(
    [
        *_MEMORY_BACKBONE,
        *_MEMORY_SEGMENTATION,
        *_FILE_BACKBONE,
        *_FILE_SEGMENTATION,
        *_NORM,
        *_CLASSIFIER,
        *_PRETRAINING,
    ]
)
HF_FILE = NameMap([*_FILE_BACKBONE, *_FILE_SEGMENTATION, *_NORM, *_CLASSIFIER, *_PRETRAINING])
HF_FILE_PRETRAINING = NameMap([*_FILE_BACKBONE, *_PRETRAINING])
