"""BEiT v2-L + UperNet on ADE20K, 512x512, start: intermediate fine-tuned on ImageNet-21k.

Source    BEiT v2 (arXiv 2208.06366) and microsoft/unilm, beit2/semantic_segmentation, large `21ktoade20k`
Expected  mIoU 57.5 single scale (paper); untested here
Hardware  8 GPUs x 2 images = 16 per step, 160k steps; time not measured. The published runs used mixed precision
Command   bash tools/dist_train.sh configs/beitv2_large_upernet_ade20k.py 8 --amp
Start     pretrain/beitv2_large_patch16_224_pt1k_ft21k.pth, the official file of that name: the model table of
          https://github.com/microsoft/unilm/tree/master/beit2;
          the finished model there is beitv2_large_patch16_224_pt1k_ft21ktoade20k.pth
Input     ImageNet mean/std, as the official segmentation recipe, and as v2's own classifiers
Variants  _ssl: start from self-supervised weights only
"""

_base_ = [
    './_base_/models/beit_large_upernet.py',
    './_base_/datasets/ade20k_512.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='pretrain/beitv2_large_patch16_224_pt1k_ft21k.pth')),
)
optim_wrapper = dict(optimizer=dict(lr=3e-5), paramwise_cfg=dict(layer_decay_rate=0.9))
