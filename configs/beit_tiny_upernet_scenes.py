"""Tiny BEiT + UperNet on the rendered scenes, from scratch on a CPU: what tools/quickstart.sh trains.

Source    this project
Expected  measured 2026-11-21 on two cores of an AMD EPYC: mIoU 28.2, mAcc 40.3, aAcc 64.5
Hardware  2 CPU cores, 400 steps of 8 crops: 3 min 41 s
Command   python tools/make_scenes.py && python tools/train.py configs/beit_tiny_upernet_scenes.py
Start     none, random weights
Input     ImageNet mean/std, as the other UperNet configs
"""

_base_ = [
    './_base_/models/beit_tiny_upernet.py',
    './_base_/datasets/scenes.py',
    './_base_/schedules/adamw_tiny.py',
    './_base_/default_runtime.py',
]

randomness = dict(seed=0)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=400, max_keep_ckpts=1, save_best=None),
)
