# BEiT-B with SETR-PUP as in the BEiT paper: a plain ViT (absolute positions, no relative position bias, no layer scale)
# under a head that upsamples x2 four times, with three auxiliary heads. NOTE(paper): it names no auxiliary layers;
# blocks 4, 7 and 9 are those of SETR's own base-sized config, two x4 stages each as in SETR's and mmseg's for ADE20K.
norm_cfg = dict(type='SyncBN', requires_grad=True)
auxiliary = dict(
    type='SETRUPHead',
    in_channels=768,
    channels=256,
    num_convs=2,
    up_scale=4,
    kernel_size=3,
    dropout_ratio=0.0,
    num_classes=150,
    norm_cfg=norm_cfg,
    align_corners=False,
    loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # ImageNet's statistics, as in the UperNet recipes; the paper does not say.
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(
        type='BEiT',
        img_size=(512, 512),
        patch_size=16,
        in_channels=3,
        embed_dims=768,
        num_layers=12,
        num_heads=12,
        mlp_ratio=4,
        out_indices=(4, 7, 9, 11),
        qv_bias=True,
        attn_drop_rate=0.0,
        drop_path_rate=0.1,
        norm_cfg=dict(type='LN', eps=1e-6),
        act_cfg=dict(type='GELU'),
        final_norm=False,  # the head has its own layer norm
        use_abs_pos=True,
        interpolate_mode='bilinear',  # the paper's choice for these experiments
        rel_pos='none',
        init_values=None,
    ),
    decode_head=dict(
        type='SETRUPHead',
        in_channels=768,
        in_index=3,
        channels=256,
        num_convs=4,
        up_scale=2,
        kernel_size=3,
        dropout_ratio=0.0,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=[dict(in_index=i, **auxiliary) for i in range(3)],
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
del auxiliary
