"""BEiT v2-B on ImageNet-1k at 224, start: self-supervised for 1600 epochs.

Source    BEiT v2 (arXiv 2208.06366) and microsoft/unilm, beit2/get_started_for_image_classification.md
Expected  untested here; 85.5 top-1 (paper)
Hardware  8 GPUs x 128 images = 1024 per step, 100 epochs; time not measured
Command   bash tools/dist_train.sh configs/classification/beitv2_base_in1k_pt1k.py 8 --amp
Start     pretrain/beitv2_base_patch16_224_pt1k.pth, the official file of that name: the model table of
          https://github.com/microsoft/unilm/tree/master/beit2
Input     ImageNet mean/std, as v2 throughout
"""

_base_ = [
    './_base_/beit_base.py',
    './_base_/imagenet_224_v2.py',
    './_base_/adamw.py',
    './_base_/runtime.py',
]

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='pretrain/beitv2_base_patch16_224_pt1k.pth'),
    ),
)
optim_wrapper = dict(
    optimizer=dict(lr=5e-4),
    paramwise_cfg=dict(layer_decay_rate=0.6),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-6 / 5e-4,
        by_epoch=True,
        begin=20,
        end=100,
        convert_to_iter_based=True,
    ),
]
