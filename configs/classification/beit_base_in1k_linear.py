"""Linear probe of BEiT-B (v1) on ImageNet-1k, all layers.

Source    BEiT (arXiv 2106.08254), appendix, and microsoft/unilm, beit/run_linear_eval.py
Expected  untested here; 56.7 top-1 at the best layer, the ninth, for pre-training on ImageNet-1k (paper)
Hardware  one GPU; time not measured. Features are computed once: no augmentation, unlike the paper's
Command   python tools/linear_probe.py configs/classification/beit_base_in1k_linear.py
              pretrain/beit_base_patch16_224_pt22k.pth
Start     the checkpoint that is probed, any that the package reads
Input     mean/std 0.5 / 0.5, as v1 throughout
"""

_base_ = ['./beit_base_in1k_pt22k.py']

# Layers counted from 0; without them all are probed. `both` joins the class token with the mean of the patch tokens.
linear_probe = dict(features=['both'], epochs=100, lr=4e-3, weight_decay=1e-4, batch_size=1024)
