"""Linear probe of BEiT v2-B on ImageNet-1k, class token and both.

Source    BEiT v2 (arXiv 2208.06366); there is no official script, so v1's settings
Expected  untested here; 80.1 top-1 from the class token of the last layer (paper)
Hardware  one GPU; time not measured. Features are computed once: no augmentation, unlike the paper's
Command   python tools/linear_probe.py configs/classification/beitv2_base_in1k_linear.py
              pretrain/beitv2_base_patch16_224_pt1k.pth
Start     the checkpoint that is probed, any that the package reads
Input     ImageNet mean/std, as v2 throughout
"""

_base_ = ['./beitv2_base_in1k_pt1k.py']

# Layers counted from 0; without them all are probed. `both` joins the class token with the mean of the patch tokens.
linear_probe = dict(features=['cls', 'both'], epochs=100, lr=4e-3, weight_decay=1e-4, batch_size=1024)
