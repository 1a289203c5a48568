# What every config shares: scope, environment, logging, checkpoints. A config overrides single fields of it.
default_scope = 'mmseg_beit'  # our classes win; all types of mmseg, mmcv and mmengine keep their plain names

env_cfg = dict(
    cudnn_benchmark=True,  # crops have one size in training; in evaluation windows do
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),  # workers are the parallelism, not OpenCV's threads
    dist_cfg=dict(backend='nccl'),  # tools/train.py and tools/test.py turn to gloo where there is no GPU
)

# Several processes: gradients live in the buckets that are exchanged, which saves a copy of them all.
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=False, gradient_as_bucket_view=True)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),  # losses, lr, time and the time left
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Ours: a kill at any moment leaves a whole checkpoint.
    checkpoint=dict(type='SafeCheckpointHook', by_epoch=False, interval=16000, max_keep_ckpts=3, save_best='mIoU'),
    # Added also where a config does not name them; None removes one.
    data_check=dict(type='DataCheckHook'),  # looks at all files and labels before the first step; remembers the result
    non_finite_loss=dict(type='NonFiniteLossHook'),  # stops at a NaN, before a checkpoint of it is written
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),  # draws only where --show-dir asks for it
)

log_processor = dict(by_epoch=False)
log_level = 'INFO'
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')

load_from = None  # a whole segmentor's checkpoint; the backbone's start weights are `model.backbone.init_cfg`
resume = False
