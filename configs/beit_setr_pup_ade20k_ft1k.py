"""BEiT-B + SETR-PUP on ADE20K as in the paper, 512x512, start: intermediate fine-tuned on ImageNet-1k.

Source    BEiT (arXiv 2106.08254), section 3.2 and Table 14; the head as in SETR and mmseg
Expected  mIoU 47.7 (paper); untested here
Hardware  8 GPUs x 2 images = 16 per step, 160k steps; time not measured
Command   bash tools/dist_train.sh configs/beit_setr_pup_ade20k_ft1k.py 8 --amp
Start     pretrain/beit_base_patch16_224_pt1k_ft1k_abspos.pth: weights pre-trained and fine-tuned with absolute
          positions. The authors publish none: make them yourself
Input     ImageNet mean/std, as the UperNet recipes; the paper does not say
"""

_base_ = [
    './_base_/models/beit_base_setr_pup.py',
    './_base_/datasets/ade20k_512.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='pretrain/beit_base_patch16_224_pt1k_ft1k_abspos.pth')),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.65))
