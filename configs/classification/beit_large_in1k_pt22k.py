"""BEiT-L (v1) on ImageNet-1k at 224, start: self-supervised on ImageNet-22k.

Source    BEiT (arXiv 2106.08254) and microsoft/unilm, beit/get_started_for_image_classification.md
Expected  untested here; 86.0 top-1 (paper)
Hardware  8 GPUs x 64 images, gradients of 2 iterations added up = 1024 per step, 50 epochs; time not measured
Command   bash tools/dist_train.sh configs/classification/beit_large_in1k_pt22k.py 8 --amp
Start     pretrain/beit_large_patch16_224_pt22k.pth, the official file of that name: the model table of
          https://github.com/microsoft/unilm/tree/master/beit
Input     mean/std 0.5 / 0.5, as v1 throughout
"""

_base_ = [
    './_base_/beit_large.py',
    './_base_/imagenet_224.py',
    './_base_/adamw.py',
    './_base_/runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='pretrain/beit_large_patch16_224_pt22k.pth')),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    accumulative_counts=2,
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(layer_decay_rate=0.75),
)
train_cfg = dict(max_epochs=50)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-6 / 1e-3,
        by_epoch=True,
        begin=5,
        end=50,
        convert_to_iter_based=True,
    ),
]
