"""Tiny VQ-KD tokenizer on the rendered scenes, taught by histograms of gradients: 256 codes.

Source    this project
Expected  usage 99.6 %, perplexity 158 of 256, cosine 0.50 (measured 2026-11-21)
Hardware  200 steps of 16 pictures; 54 s of CPU time on one thread of an AMD EPYC
Command   python tools/make_scenes.py && python tools/train.py configs/tokenizer/vqkd_tiny_scenes.py
Start     none, random weights. The teacher (HOG, mmpretrain's) needs none; a backbone with a checkpoint takes its place
          as in docs/pretraining.md
Input     0..255; the tokenizer takes it to [-1, 1], the teacher to ImageNet's mean and deviation
"""

_base_ = '../pretraining/_base_/tiny_runtime.py'

layers = dict(
    embed_dims=96,
    num_heads=3,
    norm_cfg=dict(type='LN', eps=1e-6),
    use_abs_pos=True,
    rel_pos='none',
    init_values=None,
    final_norm=True,
)
model = dict(
    type='VQKD',
    encoder=dict(img_size=160, patch_size=16, num_layers=4, **layers),
    decoder=dict(num_layers=1, **layers),
    teacher=dict(
        type='FeatureTeacher',
        backbone=dict(type='mmpretrain.HOGGenerator', nbins=9, pool=8, gaussian_window=16),
        out_dims=27,  # 9 directions for each colour
        centre=True,
    ),
    num_codes=256,
    code_dims=16,
    # A short run forgets faster, and gives up on a code sooner.
    quantizer=dict(decay=0.95, restart_below=0.1),
)

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
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='RandomResizedCropTwoViews', size=160, scale=(0.2, 1.0), interpolation='bicubic'),
            dict(type='PackViews'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=20,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='UnlabelledImages',
        data_root='data/scenes',
        data_prefix=dict(img_path='images/validation'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='ResizeAndCenterCrop', size=160, share=1.0),
            dict(type='PackViews'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CodebookUsage')
test_evaluator = val_evaluator

train_cfg = dict(max_iters=200, val_interval=100)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    optimizer=dict(lr=5e-4, betas=(0.9, 0.99), weight_decay=1e-4),
    paramwise_cfg=dict(no_decay='model'),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=20, end=200),
]
default_hooks = dict(checkpoint=dict(interval=200))
