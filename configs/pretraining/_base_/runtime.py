# What ../../_base_/default_runtime.py says, for training by epochs on pictures without labels: no validation, no masks.
# Every stage before fine-tuning needs the module in `custom_imports`; nothing else does.
custom_imports = dict(imports=['mmseg_beit.models.pretraining'], allow_failed_imports=False)
default_scope = 'mmseg_beit'

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=False, gradient_as_bucket_view=True)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='SafeCheckpointHook', by_epoch=True, interval=20, max_keep_ckpts=2),
    non_finite_loss=dict(type='NonFiniteLossHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)

log_processor = dict(by_epoch=True)
log_level = 'INFO'
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends, name='visualizer')

load_from = None  # a whole pre-training model; its backbone may also come from `model.backbone.init_cfg`
resume = False
