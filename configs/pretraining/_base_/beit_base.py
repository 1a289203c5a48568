# BEiT-B (v1): one table of relative positions for all layers, a mask token, a linear head on the normalised tokens. The
# target is DALL-E's dVAE, whose weights are not ours to ship: docs/pretraining.md says where they are.
model = dict(
    type='MaskedImageModeling',
    data_preprocessor=dict(
        type='PretrainingDataPreprocessor',
        mean=[127.5, 127.5, 127.5],  # as v1 throughout
        std=[127.5, 127.5, 127.5],
    ),
    backbone=dict(
        type='BEiT',
        img_size=224,
        patch_size=16,
        embed_dims=768,
        num_layers=12,
        num_heads=12,
        mlp_ratio=4,
        qv_bias=True,
        drop_path_rate=0.1,
        norm_cfg=dict(type='LN', eps=1e-6),
        init_values=0.1,
        rel_pos='shared',
        use_mask_token=True,
        final_norm=True,
        out_indices=(11,),
        out_type='tokens',
    ),
    head=dict(type='BEiTV1Head', embed_dims=768, num_embed=8192),
    tokenizer=dict(
        type='DalleEncoder',
        num_codes=8192,
        init_cfg=dict(type='Pretrained', checkpoint='pretrain/dalle_encoder.pth'),
    ),
)
