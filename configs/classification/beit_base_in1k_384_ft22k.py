"""BEiT-B (v1) on ImageNet-1k at 384, start: fine-tuned on ImageNet-22k.

Source    BEiT (arXiv 2106.08254) and microsoft/unilm, beit/get_started_for_image_classification.md
Expected  untested here; 86.8 top-1, 98.12 top-5 (official model table)
Hardware  8 GPUs x 32 images, gradients of 2 iterations added up = 512 per step, 30 epochs; time not measured
Command   bash tools/dist_train.sh configs/classification/beit_base_in1k_384_ft22k.py 8 --amp
Start     pretrain/beit_base_patch16_224_pt22k_ft22k.pth, the official file of that name: the model table of
          https://github.com/microsoft/unilm/tree/master/beit
Input     mean/std 0.5 / 0.5, as v1 throughout
"""

_base_ = [
    './_base_/beit_base.py',
    './_base_/imagenet_384.py',
    './_base_/adamw.py',
    './_base_/runtime.py',
]

model = dict(
    backbone=dict(
        img_size=384,
        init_cfg=dict(type='Pretrained', checkpoint='pretrain/beit_base_patch16_224_pt22k_ft22k.pth'),
    ),
    train_cfg=None,  # neither mixup nor cutmix
)
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(
    accumulative_counts=2,
    optimizer=dict(lr=2e-5, weight_decay=1e-8),
    paramwise_cfg=dict(layer_decay_rate=0.85),
)
train_cfg = dict(max_epochs=30)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-6 / 2e-5,
        by_epoch=True,
        begin=5,
        end=30,
        convert_to_iter_based=True,
    ),
]
