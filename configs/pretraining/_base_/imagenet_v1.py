# Pictures below data/imagenet/train, labels not needed; the dVAE sees 112 pixels where the backbone sees 224, and up
# to 75 of the 196 patches are hidden.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomResizedCropTwoViews',
        size=224,
        second_size=112,
        scale=(0.08, 1.0),
        interpolation='bicubic',
        second_interpolation='lanczos',
    ),
    dict(type='BlockwiseMask', grid=14, num_masked=75, min_block=16, min_aspect=0.3),
    dict(type='PackViews'),
]
train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='UnlabelledImages',
        data_root='data/imagenet',
        data_prefix=dict(img_path='train'),
        max_unreadable=0.001,
        pipeline=train_pipeline,
    ),
)
