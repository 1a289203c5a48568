# AdamW with layer-wise learning rate decay, linear warm-up times linear decay to zero over 160k steps of 16 images.
# A config sets `optimizer.lr` and `paramwise_cfg.layer_decay_rate`; the depth is read from the backbone.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',  # --amp turns it into AmpOptimWrapper; the published runs used mixed precision
    optimizer=dict(type='AdamW', lr=3e-5, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='LayerDecayOptimizerConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.9),
)

# Two chained factors, both from iteration 0, whose product is the official curve. mmengine counts a schedule's last
# iteration as its end value, mmcv 1.x counted the first iteration after it: hence 1501 and 160001 for 1500 and 160000.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1501),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=160001),
]
