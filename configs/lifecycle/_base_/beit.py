# The backbone of every stage of the life-cycle demo: 1.2M parameters, patches of 8 pixels, windows of 96 (144 patches).
model = dict(
    backbone=dict(
        type='BEiT',
        img_size=96,
        patch_size=8,
        embed_dims=128,
        num_layers=6,
        num_heads=4,
        mlp_ratio=4,
        qv_bias=True,
        norm_cfg=dict(type='LN', eps=1e-6),
        init_values=0.1,
    ),
)
