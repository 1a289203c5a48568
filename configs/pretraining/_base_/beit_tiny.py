# The backbone of configs/_base_/models/beit_tiny_upernet.py with what pre-training adds, and the tokenizer that
# configs/tokenizer/vqkd_tiny_scenes.py trains.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomResizedCropTwoViews',
        size=160,
        second_size=160,
        scale=(0.2, 1.0),
        interpolation='bicubic',
        second_interpolation='bicubic',
    ),
    dict(type='BlockwiseMask', grid=10, num_masked=40, min_block=8, min_aspect=0.3),
    dict(type='PackViews'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='UnlabelledImages',
        data_root='data/scenes',
        data_prefix=dict(img_path='images/training'),
        pipeline=train_pipeline,
    ),
)
model = dict(
    type='MaskedImageModeling',
    data_preprocessor=dict(
        type='PretrainingDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
    ),
    backbone=dict(
        type='BEiT',
        img_size=160,
        patch_size=16,
        embed_dims=192,
        num_layers=12,
        num_heads=3,
        mlp_ratio=4,
        qv_bias=True,
        norm_cfg=dict(type='LN', eps=1e-6),
        init_values=0.1,
        rel_pos='shared',
        use_mask_token=True,
        final_norm=True,
        out_indices=(11,),
        out_type='tokens',
    ),
    head=dict(type='BEiTV1Head', embed_dims=192, num_embed=256),
    tokenizer=dict(
        type='VQKD',
        encoder=dict(
            img_size=160,
            patch_size=16,
            embed_dims=96,
            num_layers=4,
            num_heads=3,
            norm_cfg=dict(type='LN', eps=1e-6),
            use_abs_pos=True,
            rel_pos='none',
            init_values=None,
            final_norm=True,
        ),
        num_codes=256,
        code_dims=16,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vqkd_tiny_scenes/iter_200.pth'),
    ),
)
