# BEiT-L (v1); see beit_base.py.
model = dict(
    type='MaskedImageModeling',
    data_preprocessor=dict(
        type='PretrainingDataPreprocessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
    ),
    backbone=dict(
        type='BEiT',
        img_size=224,
        patch_size=16,
        embed_dims=1024,
        num_layers=24,
        num_heads=16,
        mlp_ratio=4,
        qv_bias=True,
        drop_path_rate=0.1,
        norm_cfg=dict(type='LN', eps=1e-6),
        init_values=1e-5,
        rel_pos='shared',
        use_mask_token=True,
        final_norm=True,
        out_indices=(23,),
        out_type='tokens',
    ),
    head=dict(type='BEiTV1Head', embed_dims=1024, num_embed=8192),
    tokenizer=dict(
        type='DalleEncoder',
        num_codes=8192,
        init_cfg=dict(type='Pretrained', checkpoint='pretrain/dalle_encoder.pth'),
    ),
)
