"""BEiT-B + SETR-PUP on ADE20K as in the paper, 512x512, start: self-supervised only, absolute positions.

Source    BEiT (arXiv 2106.08254), section 3.2 and Table 14; the head as in SETR and mmseg
Expected  mIoU 45.6 (paper, 800 epochs on ImageNet-1k); untested here
Hardware  8 GPUs x 2 images = 16 per step, 160k steps; time not measured
Command   bash tools/dist_train.sh configs/beit_setr_pup_ade20k.py 8 --amp
Start     pretrain/beit_base_patch16_224_pt1k_abspos.pth: weights pre-trained with absolute positions. The authors
          publish none: make them yourself, or use beit_setr_pup_relpos_ade20k.py, which takes the published files
Input     ImageNet mean/std, as the UperNet recipes; the paper does not say
Variants  _ft1k: start after intermediate fine-tuning on ImageNet-1k
"""

_base_ = [
    './_base_/models/beit_base_setr_pup.py',
    './_base_/datasets/ade20k_512.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='pretrain/beit_base_patch16_224_pt1k_abspos.pth')),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.65))
