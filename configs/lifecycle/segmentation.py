"""Segmentation stage of the life-cycle demo: a linear layer on the backbone, 100 steps on 60 labelled pictures.

Source    this project
Expected  mIoU 25.0 from scratch, 29.1 from masked image modelling, 29.4 from the classifier: means of three seeds,
          measured 2026-11-21 (docs/lifecycle.md)
Hardware  2 CPU cores, 100 steps of 16 windows of 96x96: under a minute
Command   bash tools/lifecycle_demo.sh, or
          python tools/train.py configs/lifecycle/segmentation.py --amp --cfg-options
              optim_wrapper.paramwise_cfg.layer_decay_rate=0.65 model.backbone.init_cfg.type=Pretrained
              model.backbone.init_cfg.checkpoint=work_dirs/pretraining/iter_1500.pth
Start     none unless model.backbone.init_cfg names a checkpoint; then with a layer decay of 0.65, as the paper
Input     ImageNet mean/std, as all stages of the demo
"""

_base_ = ['./_base_/beit.py', '../_base_/schedules/adamw_tiny.py', '../_base_/default_runtime.py']

data_root = '{{$LIFECYCLE_DATA:data/lifecycle_scenes}}'
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='ScenesDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        reduce_zero_label=True,
        indices=60,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomResize', scale=(160, 120), ratio_range=(0.8, 1.4), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(96, 96), cat_max_ratio=0.9),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,  # pictures of a folder may differ in size
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ScenesDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        reduce_zero_label=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(160, 120), keep_ratio=True),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(96, 96),
        test_cfg=dict(size_divisor=8),
    ),
    backbone=dict(out_indices=(5,), final_norm=True),
    # One linear layer: what it can tell is what the backbone knows, and it learns within a few steps.
    decode_head=dict(
        type='FCNHead',
        in_channels=128,
        in_index=0,
        channels=128,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=12,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
# The best for the start from scratch of 3e-4, 1e-3, 3e-3, 6e-3 and 1e-2, and better than 3e-3 for the others too.
optim_wrapper = dict(optimizer=dict(lr=6e-3))
train_cfg = dict(max_iters=100, val_interval=20)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=21),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=101),
]
randomness = dict(seed=0)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=100, max_keep_ckpts=1, save_best=None))
