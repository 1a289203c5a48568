# AdamW for 2048 pictures a step, clipped at a norm of 3, one learning rate for all layers. A config sets the epochs and
# the schedule: linear warm-up over 10 epochs, then cosine to 1e-5, both step by step.
# NOTE(reference): the official code decays the relative position table and the mask token, and not the class token;
# our 'official' groups decay all three, `no_decay='model'` none.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=800)

optim_wrapper = dict(
    type='OptimWrapper',  # --amp turns it into AmpOptimWrapper; the published runs used mixed precision
    optimizer=dict(type='AdamW', lr=1.5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=3.0),
    constructor='LayerDecayOptimizerConstructor',
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
