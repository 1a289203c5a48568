"""BEiT-L (v1) + UperNet on ADE20K, 640x640, start: intermediate fine-tuned on ImageNet-22k.

Source    BEiT (arXiv 2106.08254) and microsoft/unilm, beit/semantic_segmentation, large 640 `pt2ft` recipe
Expected  mIoU 56.7 single scale, 57.0 with --tta (paper); untested here
Hardware  8 GPUs x 1 image x 2 accumulated = 16 per step, 320k iterations; time not measured. The published runs used
          mixed precision
Command   bash tools/dist_train.sh configs/beit_large_upernet_ade20k_640.py 8 --amp
Start     pretrain/beit_large_patch16_224_pt22k_ft22k.pth, the official file of that name: the model table of
          https://github.com/microsoft/unilm/tree/master/beit;
          the finished model there is beit_large_patch16_640_pt22k_ft22ktoade20k.pth
Input     ImageNet mean/std, as the official segmentation recipe (v1's own pre-training used 0.5 / 0.5)
"""

_base_ = [
    './_base_/models/beit_large_upernet.py',
    './_base_/datasets/ade20k_640.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        img_size=(640, 640),
        init_cfg=dict(type='Pretrained', checkpoint='pretrain/beit_large_patch16_224_pt22k_ft22k.pth'),
    ),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)),
)

# One image per GPU and two iterations per step keep 16 images per step in the memory of one: 320k iterations are 160k
# steps, and every count of the schedule is in iterations, hence doubled, to the very end.
train_dataloader = dict(batch_size=1)
train_cfg = dict(max_iters=320000, val_interval=32000)
default_hooks = dict(checkpoint=dict(interval=32000))
optim_wrapper = dict(accumulative_counts=2, optimizer=dict(lr=2e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
param_scheduler = [  # ends are one past the official 3000 and 320000: see _base_/schedules/adamw_160k.py
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=3001),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=320001),
]
