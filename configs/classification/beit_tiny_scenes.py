"""Tiny BEiT as a classifier of the rendered scenes (what covers most of each), from scratch on a CPU.

Source    this project
Expected  62.7 top-1 of 59 pictures at the end, 64.4 at best (measured 2026-11-21); the largest class has 37 %
Hardware  16 epochs of 237 pictures; 140 s of CPU time on one thread of an AMD EPYC
Command   python tools/make_image_folder.py data/scenes/images --out data/scenes_folders
              --from-masks data/scenes/annotations 2=building 5=tree 7=road 10=grass
          python tools/train.py configs/classification/beit_tiny_scenes.py
Start     none, random weights
Input     ImageNet mean/std, as the tiny segmentation configs
"""

_base_ = [
    './_base_/beit_tiny.py',
    './_base_/folder_128.py',
    './_base_/adamw.py',
    './_base_/runtime.py',
]

work_dir = 'work_dirs/beit_tiny_scenes_cls'  # the pre-training config has the same name
data_root = 'data/scenes_folders'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
# Top-5 of four classes says nothing.
val_evaluator = dict(topk=(1,))
test_evaluator = dict(topk=(1,))
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=1.0))  # nothing to protect
train_cfg = dict(max_epochs=16, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, by_epoch=True, begin=2, end=16, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=4, max_keep_ckpts=1))
randomness = dict(seed=0)
