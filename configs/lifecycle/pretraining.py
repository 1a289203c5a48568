"""Masked image modelling of the life-cycle demo, in v1's manner: up to 60 of 144 patches hidden, one prediction.

Source    this project
Expected  loss from 4.9 to 3.4, 20 % right (measured 2026-11-21, two cores of an AMD EPYC, bfloat16); how often each of
          the words occurs tells 4.7
Hardware  2 CPU cores, 1500 steps of 32 pictures: 8 min 20 s in bfloat16
Command   bash tools/lifecycle_demo.sh, or
          python tools/train.py configs/lifecycle/pretraining.py --amp --cfg-options
              model.tokenizer.init_cfg.checkpoint=work_dirs/tokenizer/iter_150.pth
Start     none, random weights; the tokenizer's are named in model.tokenizer.init_cfg
Input     ImageNet mean/std, as all stages of the demo; the tokenizer normalises its own view
"""

_base_ = ['./_base_/beit.py', '../pretraining/_base_/tiny_runtime.py']

data_root = '{{$LIFECYCLE_DATA:data/lifecycle_scenes}}'
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
            dict(
                type='RandomResizedCropTwoViews',
                size=96,
                second_size=96,
                scale=(0.3, 1.0),
                interpolation='bicubic',
                second_interpolation='bicubic',
            ),
            dict(type='BlockwiseMask', grid=12, num_masked=60, min_block=6, min_aspect=0.3),
            dict(type='PackViews'),
        ],
    ),
)
model = dict(
    type='MaskedImageModeling',
    data_preprocessor=dict(
        type='PretrainingDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
    ),
    backbone=dict(rel_pos='shared', use_mask_token=True, final_norm=True, out_indices=(5,), out_type='tokens'),
    head=dict(type='BEiTV1Head', embed_dims=128, num_embed=128),
    tokenizer=dict(
        type='VQKD',
        encoder=dict(
            img_size=96,
            patch_size=8,
            embed_dims=96,
            num_layers=2,
            num_heads=3,
            norm_cfg=dict(type='LN', eps=1e-6),
            use_abs_pos=True,
            rel_pos='none',
            init_values=None,
            final_norm=True,
        ),
        num_codes=128,
        code_dims=16,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/tokenizer/iter_150.pth'),
    ),
)
train_cfg = dict(max_iters=1500)
optim_wrapper = dict(optimizer=dict(lr=3e-3, fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=40, end=1500),
]
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=300))
