"""Tiny BEiT as a classifier of the 20 scene groups of MSRC v2, from scratch on a CPU.

Source    this project; data: MSRC v2 (Shotton et al., ECCV 2006), every fourth picture for validation
Expected  51.0 top-1, 85.0 top-5 of 147 photographs (measured 2026-11-21, 2 CPU cores; chance is 5); from scratch
Hardware  2 CPU cores, 20 epochs of 444 photographs; about 5 minutes of CPU time
Command   python tools/make_image_folder.py data/msrc/images --out data/msrc_folders --from-names '([0-9]+)_'
          python tools/train.py configs/classification/beit_tiny_msrc.py
Start     none, random weights
Input     ImageNet mean/std, as the tiny segmentation configs
"""

_base_ = [
    './_base_/beit_tiny.py',
    './_base_/folder_128.py',
    './_base_/adamw.py',
    './_base_/runtime.py',
]

data_root = 'data/msrc_folders'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
model = dict(data_preprocessor=dict(num_classes=20), head=dict(num_classes=20))
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=1.0))  # nothing to protect
train_cfg = dict(max_epochs=20, val_interval=5)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, by_epoch=True, begin=2, end=20, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=5, max_keep_ckpts=1))
randomness = dict(seed=0)
