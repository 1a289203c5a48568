"""Tokenizer of the life-cycle demo: VQ-KD with 128 words for patches of 8 pixels, taught by colours and edges.

Source    this project
Expected  usage 100 %, perplexity 104 of 128, cosine 0.91 (measured 2026-11-21, 2 CPU cores, bfloat16)
Hardware  2 CPU cores, 150 steps of 32 pictures: about a minute
Command   bash tools/lifecycle_demo.sh, or (data/lifecycle_scenes is the demo's; LIFECYCLE_DATA names another folder)
          python tools/train.py configs/lifecycle/tokenizer.py
Start     none, random weights; the teacher (`PatchDescriptor`) has none
Input     0..255; the tokenizer takes it to [-1, 1], the teacher to ImageNet's mean and deviation
"""

_base_ = ['../pretraining/_base_/tiny_runtime.py']

data_root = '{{$LIFECYCLE_DATA:data/lifecycle_scenes}}'
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
    encoder=dict(img_size=96, patch_size=8, num_layers=2, **layers),
    decoder=dict(num_layers=1, **layers),
    teacher=dict(
        type='FeatureTeacher',
        backbone=dict(type='PatchDescriptor', patch_size=8),
        out_dims=20,
    ),
    num_codes=128,
    code_dims=16,
    # A short run forgets faster, and gives up on a code sooner.
    quantizer=dict(decay=0.95, restart_below=0.1),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='UnlabelledImages',
        data_root=data_root,
        data_prefix=dict(img_path='images/training'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='RandomResizedCropTwoViews', size=96, scale=(0.3, 1.0), interpolation='bicubic'),
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
        data_root=data_root,
        data_prefix=dict(img_path='images/validation'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='ResizeAndCenterCrop', size=96, share=1.0),
            dict(type='PackViews'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CodebookUsage')
test_evaluator = val_evaluator

train_cfg = dict(max_iters=150, val_interval=150)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4, fused=True),
    paramwise_cfg=dict(no_decay='model'),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=20, end=150),
]
default_hooks = dict(checkpoint=dict(interval=150))
