"""BEiT v2-B, intermediate fine-tuning on ImageNet-21k at 224, start: self-supervised for 1600 epochs.

Source    BEiT v2 (arXiv 2208.06366) and microsoft/unilm, beit2/get_started_for_image_classification.md
Expected  untested here; 86.5 top-1 after fine-tuning on ImageNet-1k (paper)
Hardware  32 GPUs x 128 images = 4096 per step, 90 epochs; time not measured
Command   NNODES=4 NODE_RANK=0 MASTER_ADDR=... bash tools/dist_train.sh
              configs/classification/beitv2_base_in21k_pt1k.py 8 --amp
Start     pretrain/beitv2_base_patch16_224_pt1k.pth, the official file of that name: the model table of
          https://github.com/microsoft/unilm/tree/master/beit2
Input     ImageNet mean/std, as v2 throughout
Data      data/imagenet21k/train/nXXXXXXXX/*.JPEG, 21841 class folders; trained without validation, as official
"""

_base_ = [
    './_base_/beit_base.py',
    './_base_/imagenet_224_v2.py',
    './_base_/adamw.py',
    './_base_/runtime.py',
]

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], num_classes=21841),
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='pretrain/beitv2_base_patch16_224_pt1k.pth')),
    head=dict(num_classes=21841),
)
train_dataloader = dict(
    batch_size=128,
    dataset=dict(data_root='data/imagenet21k', class_names=None),
)
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
optim_wrapper = dict(
    optimizer=dict(lr=6e-4),
    paramwise_cfg=dict(layer_decay_rate=0.75),
)
train_cfg = dict(max_epochs=90)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-6 / 6e-4,
        by_epoch=True,
        begin=20,
        end=90,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(checkpoint=dict(save_best=None))
