"""BEiT-B (v2), masked image modelling on ImageNet-1k, 1600 epochs, target: VQ-KD taught by CLIP.

Source    BEiT v2 (arXiv 2208.06366) and microsoft/unilm, beit2/PRETRAINING.md
Expected  untested here; fine-tuned on ImageNet-1k: 85.5 top-1 (paper)
Hardware  8 GPUs x 256 images = 2048 per step; time not measured. The published runs used mixed precision
Command   bash tools/dist_train.sh configs/pretraining/beitv2_base_in1k_1600e.py 8 --amp
Start     none, random weights; the tokenizer's are what configs/tokenizer/vqkd_base_clip.py ends with
Input     ImageNet mean/std, as v2 throughout; the tokenizer normalises its own view
"""

_base_ = [
    './_base_/beitv2_base.py',
    './_base_/imagenet_v2.py',
    './_base_/adamw.py',
    './_base_/runtime.py',
]

train_cfg = dict(max_epochs=1600)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-06 / 0.0015, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=10, end=1600, convert_to_iter_based=True),
]
