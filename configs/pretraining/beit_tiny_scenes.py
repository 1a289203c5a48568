"""Tiny BEiT in v1's manner (one prediction, up to 40 of 100 patches hidden) on the rendered scenes, without labels.

Source    this project
Expected  loss from 5.5 = log(256) to 5.0, 1-4 % of the hidden patches right (measured 2026-11-21): so few steps learn
          how often each word occurs and little more; train_cfg.max_iters takes it further
Hardware  100 steps of 16 pictures; 96 s of CPU time on one thread of an AMD EPYC
Command   python tools/train.py configs/tokenizer/vqkd_tiny_scenes.py
          python tools/train.py configs/pretraining/beit_tiny_scenes.py
Start     none, random weights; the tokenizer's are work_dirs/vqkd_tiny_scenes/iter_200.pth
Input     ImageNet mean/std, as the tiny segmentation configs; the tokenizer normalises its own view
"""

_base_ = ['./_base_/beit_tiny.py', './_base_/tiny_runtime.py']
