# Pictures below data/imagenet/{train,val}, labels not needed. 8 GPUs x 64 images; the learning rate is 5e-5 for every
# 128 of them. Validation gives usage and perplexity of the codebook, and the cosine with the teacher.
train_dataloader = dict(
    batch_size=64,
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
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='RandomResizedCropTwoViews', size=224, scale=(0.08, 1.0), interpolation='bicubic'),
            dict(type='PackViews'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='UnlabelledImages',
        data_root='data/imagenet',
        data_prefix=dict(img_path='val'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='ResizeAndCenterCrop', size=224, share=0.875),
            dict(type='PackViews'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CodebookUsage')
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',  # --amp turns it into AmpOptimWrapper; the published runs used mixed precision
    optimizer=dict(type='AdamW', lr=5e-5 * 8 * 64 / 128, betas=(0.9, 0.99), weight_decay=1e-4, fused=True),
    constructor='LayerDecayOptimizerConstructor',
    paramwise_cfg=dict(layer_decay_rate=1.0, no_decay='model'),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 2e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=10, end=100, convert_to_iter_based=True),
]
