"""BEiT-L (v1), masked image modelling on ImageNet-1k, 800 epochs, target: DALL-E's dVAE.

Source    BEiT (arXiv 2106.08254) and microsoft/unilm, beit/get_started_for_image_classification.md
Expected  untested here; fine-tuned on ImageNet-1k: 85.2 top-1 (paper)
Hardware  8 GPUs x 256 images = 2048 per step; time not measured. The published runs used mixed precision
Command   bash tools/dist_train.sh configs/pretraining/beit_large_in1k_800e.py 8 --amp
Start     none, random weights; the tokenizer's are pretrain/dalle_encoder.pth (docs/pretraining.md)
Input     mean/std 0.5 / 0.5, as v1 throughout; the tokenizer normalises its own view
"""

_base_ = [
    './_base_/beit_large.py',
    './_base_/imagenet_v1.py',
    './_base_/adamw.py',
    './_base_/runtime.py',
]

train_cfg = dict(max_epochs=800)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-06 / 0.0015, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=10, end=800, convert_to_iter_based=True),
]
