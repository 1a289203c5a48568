"""BEiT v2-L on ImageNet-1k at 224, start: fine-tuned on ImageNet-21k.

Source    BEiT v2 (arXiv 2208.06366) and microsoft/unilm, beit2/get_started_for_image_classification.md
Expected  untested here; 88.4 top-1, 98.58 top-5 (official model table)
Hardware  8 GPUs x 64 images, gradients of 2 iterations added up = 1024 per step, 20 epochs; time not measured
Command   bash tools/dist_train.sh configs/classification/beitv2_large_in1k_ft21k.py 8 --amp
Start     pretrain/beitv2_large_patch16_224_pt1k_ft21k.pth, the official file of that name: the model table of
          https://github.com/microsoft/unilm/tree/master/beit2
Input     ImageNet mean/std, as v2 throughout
"""

_base_ = [
    './_base_/beit_large.py',
    './_base_/imagenet_224_v2.py',
    './_base_/adamw.py',
    './_base_/runtime.py',
]

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        drop_path_rate=0.25,
        init_cfg=dict(type='Pretrained', checkpoint='pretrain/beitv2_large_patch16_224_pt1k_ft21k.pth'),
    ),
    train_cfg=None,  # neither mixup nor cutmix
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    accumulative_counts=2,
    optimizer=dict(lr=7e-5),
    paramwise_cfg=dict(layer_decay_rate=0.8),
)
train_cfg = dict(max_epochs=20)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-6 / 7e-5,
        by_epoch=True,
        begin=5,
        end=20,
        convert_to_iter_based=True,
    ),
]
