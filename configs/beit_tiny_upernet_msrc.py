"""Tiny BEiT + UperNet on MSRC v2's photographs, from scratch on a CPU: training on real pictures within minutes.

Source    this project; data: MSRC v2 (Shotton et al., ECCV 2006), every fourth picture for validation
Expected  measured 2026-11-21 at half the steps (200, windows of 160): mIoU 10.5, mean of three seeds; docs/results.md.
          From scratch on 444 pictures: far from published figures, which start from pre-trained weights
Hardware  2 CPU cores, 400 steps of 8 crops; time not measured
Command   MSRC_ROOT=/where/msrc/lies python tools/train.py configs/beit_tiny_upernet_msrc.py
          (without MSRC_ROOT it is read from data/msrc)
Start     none, random weights
Input     ImageNet mean/std, as the other UperNet configs
"""

_base_ = [
    './_base_/models/beit_tiny_upernet.py',
    './_base_/datasets/msrc.py',
    './_base_/schedules/adamw_tiny.py',
    './_base_/default_runtime.py',
]

model = dict(decode_head=dict(num_classes=23), auxiliary_head=dict(num_classes=23))
randomness = dict(seed=0)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=400, max_keep_ckpts=1, save_best=None),
)
