"""BEiT-B (v1) + UperNet on ADE20K, 640x640, start: intermediate fine-tuned on ImageNet-22k.

Source    BEiT (arXiv 2106.08254) and microsoft/unilm, beit/semantic_segmentation, base 640 `pt2ft` recipe
Expected  mIoU 53.6 single scale (mAcc 64.8, aAcc 84.6), 54.2 with --tta (paper); untested here
Hardware  8 GPUs x 2 images = 16 per step, 160k steps; time not measured. The published runs used mixed precision
Command   bash tools/dist_train.sh configs/beit_upernet_ade20k_640.py 8 --amp
Start     pretrain/beit_base_patch16_224_pt22k_ft22k.pth, the official file of that name: the model table of
          https://github.com/microsoft/unilm/tree/master/beit;
          the finished model there is beit_base_patch16_640_pt22k_ft22ktoade20k.pth
Input     ImageNet mean/std, as the official segmentation recipe (v1's own pre-training used 0.5 / 0.5)
"""

_base_ = [
    './_base_/models/beit_base_upernet.py',
    './_base_/datasets/ade20k_640.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        img_size=(640, 640),
        init_cfg=dict(type='Pretrained', checkpoint='pretrain/beit_base_patch16_224_pt22k_ft22k.pth'),
    ),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)),
)
optim_wrapper = dict(optimizer=dict(lr=3e-5), paramwise_cfg=dict(layer_decay_rate=0.9))
