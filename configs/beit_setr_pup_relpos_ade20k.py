"""BEiT-B (v1) + SETR-PUP on ADE20K, 512x512, with relative positions, start: self-supervised only.

Source    BEiT (arXiv 2106.08254), section 3.2 and Table 14 on the backbone of the published weights
Expected  untested; no published figure
Hardware  8 GPUs x 2 images = 16 per step, 160k steps; time not measured
Command   bash tools/dist_train.sh configs/beit_setr_pup_relpos_ade20k.py 8 --amp
Start     pretrain/beit_base_patch16_224_pt22k.pth, the official file of that name: the model table of
          https://github.com/microsoft/unilm/tree/master/beit
Input     ImageNet mean/std, as the official segmentation recipe (v1's own pre-training used 0.5 / 0.5)
"""

_base_ = [
    './_base_/models/beit_base_setr_pup.py',
    './_base_/datasets/ade20k_512.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        use_abs_pos=False,
        rel_pos='layer',
        init_values=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='pretrain/beit_base_patch16_224_pt22k.pth'),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.65))
