"""Tiny plain ViT (absolute positions) + SETR-PUP on the rendered scenes, from scratch on a CPU.

Source    this project
Expected  untested
Hardware  2 CPU cores, 400 steps of 8 crops; time not measured
Command   python tools/make_scenes.py && python tools/train.py configs/beit_tiny_setr_pup_scenes.py
Start     none, random weights
Input     ImageNet mean/std, as the other configs
"""

_base_ = [
    './_base_/models/beit_tiny_setr_pup.py',
    './_base_/datasets/scenes.py',
    './_base_/schedules/adamw_tiny.py',
    './_base_/default_runtime.py',
]

randomness = dict(seed=0)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=400, max_keep_ckpts=1, save_best=None),
)
