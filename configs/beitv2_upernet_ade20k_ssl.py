"""BEiT v2-B + UperNet on ADE20K, 512x512, start: self-supervised only, ImageNet-1k, 1600 epochs.

Source    BEiT v2 (arXiv 2208.06366) and microsoft/unilm, beit2/semantic_segmentation, base recipe
Expected  mIoU 53.1 single scale (paper); untested here
Hardware  8 GPUs x 2 images = 16 per step, 160k steps; time not measured. The published runs used mixed precision
Command   bash tools/dist_train.sh configs/beitv2_upernet_ade20k_ssl.py 8 --amp
Start     pretrain/beitv2_base_patch16_224_pt1k.pth, the official file of that name: the model table of
          https://github.com/microsoft/unilm/tree/master/beit2;
          the finished model there is beitv2_base_patch16_224_pt1k_ftade20k.pth
Input     ImageNet mean/std, as the official segmentation recipe, and as v2's own classifiers
"""

_base_ = [
    './_base_/models/beit_base_upernet.py',
    './_base_/datasets/ade20k_512.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        drop_path_rate=0.15,
        init_cfg=dict(type='Pretrained', checkpoint='pretrain/beitv2_base_patch16_224_pt1k.pth'),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=5e-5), paramwise_cfg=dict(layer_decay_rate=0.75))
