"""Classification stage of the life-cycle demo: what covers most of a picture, from the pre-trained backbone.

Source    this project
Expected  61.7 top-1 of seven classes of rendered scenes (measured 2026-11-21, two cores of an AMD EPYC)
Hardware  2 CPU cores, 240 steps of 32 pictures: a minute and a half in bfloat16
Command   bash tools/lifecycle_demo.sh, or
          python tools/train.py configs/lifecycle/classification.py --amp --cfg-options
              model.backbone.init_cfg.checkpoint=work_dirs/pretraining/iter_1500.pth
Start     model.backbone.init_cfg: what the stage before wrote
Input     ImageNet mean/std, as all stages of the demo
"""

_base_ = [
    './_base_/beit.py',
    '../classification/_base_/folder_128.py',
    '../classification/_base_/adamw.py',
    '../classification/_base_/runtime.py',
]

data_root = '{{$LIFECYCLE_FOLDERS:work_dirs/lifecycle/folders}}'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='mmpretrain.RandomResizedCrop',
        scale=96,
        crop_ratio_range=(0.35, 1.0),
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.ResizeEdge', scale=96, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=96),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(
    batch_size=32,
    drop_last=False,
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
model = dict(
    type='mmpretrain.ImageClassifier',
    data_preprocessor=dict(
        type='mmpretrain.ClsDataPreprocessor',
        _scope_='mmpretrain',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
        num_classes=12,
    ),
    backbone=dict(
        out_type='pooled',
        pooling='mean',
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/pretraining/iter_1500.pth'),
    ),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=12,
        in_channels=128,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3, fused=True), paramwise_cfg=dict(layer_decay_rate=0.8))
# By steps, not epochs: as many for a large folder as for a small one.
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=240, val_interval=240)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, by_epoch=False, begin=40, end=240),
]
default_hooks = dict(
    logger=dict(interval=40, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=240, max_keep_ckpts=1, save_best=None),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
