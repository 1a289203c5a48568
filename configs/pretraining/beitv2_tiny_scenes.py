"""Tiny BEiT in v2's manner (class-token head, exactly 40 of 100 patches hidden) on the rendered scenes, without labels.

Source    this project
Expected  two losses from 5.5 = log(256) to 5.0 each, 2.8 % right (measured 2026-11-21 on one busy CPU thread): so few
          steps learn how often each word occurs and little more; train_cfg.max_iters takes it further
Hardware  2 CPU cores, 100 steps of 16 pictures: two to three minutes
Command   python tools/train.py configs/tokenizer/vqkd_tiny_scenes.py
          python tools/train.py configs/pretraining/beitv2_tiny_scenes.py
Start     none, random weights; the tokenizer's are work_dirs/vqkd_tiny_scenes/iter_200.pth
Input     ImageNet mean/std, as the tiny segmentation configs; the tokenizer normalises its own view
"""

_base_ = ['./_base_/beit_tiny.py', './_base_/tiny_runtime.py']

model = dict(
    backbone=dict(final_norm=False, out_indices=(8, 11)),  # the neck's norm serves both predictions
    neck=dict(type='BEiTV2Neck', embed_dims=192, num_heads=3, depth=12, early_layer=9, num_layers=2),
    head=dict(type='BEiTV2Head'),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
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
            dict(type='BlockwiseMask', grid=10, num_masked=40, min_block=8, min_aspect=0.3, exact=True),
            dict(type='PackViews'),
        ]
    )
)
