# AdamW with layer-wise learning rate decay, by epochs. A config sets the learning rate, the decay, the epochs and the
# schedule: linear warm-up, then cosine to 1e-6 (times a layer's factor), both step by step.
# NOTE(reference): the official classifier does not decay the class token but does decay the relative position tables;
# our 'official' groups decay both, `no_decay='model'` neither.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',  # --amp turns it into AmpOptimWrapper; the published runs used mixed precision
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, fused=True),
    constructor='LayerDecayOptimizerConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.65),
)
