"""BEiT-B (v1) + UperNet on ADE20K at 512x512, start: intermediate fine-tuned on ImageNet-22k.

Source    BEiT (arXiv 2106.08254) and microsoft/unilm, beit/semantic_segmentation, the base 512 `pt2ft` recipe
Expected  untested here; no figure published for this size and start (the same start at 640 gives 53.6, paper)
Hardware  8 GPUs x 2 images = 16 per step, 160k steps; time not measured here. Published runs used mixed precision: --amp
Command   bash tools/dist_train.sh configs/beit_upernet_ade20k.py 8 --amp
Start     pretrain/beit_base_patch16_224_pt22k_ft22k.pth, the official file of that name: the model table of
          https://github.com/microsoft/unilm/tree/master/beit (a 224 checkpoint, position tables are resized on loading)
Input     ImageNet mean/std, as the official segmentation recipe (v1's pre-training itself used 0.5 / 0.5)
Variants  _ssl: start from self-supervised weights only; _640: 640x640 crops
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
