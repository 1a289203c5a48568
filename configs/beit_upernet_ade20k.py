"""BEiT-B (v1) + UperNet on ADE20K, 512x512, start: intermediate fine-tuned on ImageNet-22k.

Source    BEiT (arXiv 2106.08254) and microsoft/unilm, beit/semantic_segmentation, base 512 `pt2ft` recipe
Expected  untested; no published figure for this size and start (at 640 this start gives 53.6, paper)
Hardware  8 GPUs x 2 images = 16 per step, 160k steps; time not measured. The published runs used mixed precision
Command   bash tools/dist_train.sh configs/beit_upernet_ade20k.py 8 --amp
Start     pretrain/beit_base_patch16_224_pt22k_ft22k.pth, the official file of that name: the model table of
          https://github.com/microsoft/unilm/tree/master/beit
Input     ImageNet mean/std, as the official segmentation recipe (v1's own pre-training used 0.5 / 0.5)
Variants  _ssl: start from self-supervised weights only; _640: crops of 640
"""

_base_ = [
    './_base_/models/beit_base_upernet.py',
    './_base_/datasets/ade20k_512.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='pretrain/beit_base_patch16_224_pt22k_ft22k.pth')),
)
optim_wrapper = dict(optimizer=dict(lr=3e-5), paramwise_cfg=dict(layer_decay_rate=0.9))
