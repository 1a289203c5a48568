# A few minutes on two CPU cores, from scratch: AdamW, a short linear warm-up times linear decay to zero, one learning
# rate for all layers (layer decay is for pre-trained weights). One evaluation and one checkpoint, at the end.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=400, val_interval=400)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='LayerDecayOptimizerConstructor',
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=31),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=401),
]
