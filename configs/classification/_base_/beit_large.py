# BEiT-L with a linear classifier on the mean of the patch tokens, for ImageNet-1k (304M). Types of mmpretrain carry
# its name; `_scope_` is for those that build parts of their own.
model = dict(
    type='mmpretrain.ImageClassifier',
    data_preprocessor=dict(
        type='mmpretrain.ClsDataPreprocessor',
        _scope_='mmpretrain',
        # v1 was pre-trained and fine-tuned with 0.5 / 0.5; v2's configs set ImageNet's statistics.
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        to_rgb=True,
        to_onehot=True,  # what mixup and cutmix need
        num_classes=1000,
    ),
    backbone=dict(
        type='BEiT',
        img_size=224,
        patch_size=16,
        embed_dims=1024,
        num_layers=24,
        num_heads=16,
        mlp_ratio=4,
        qv_bias=True,
        drop_path_rate=0.2,
        norm_cfg=dict(type='LN', eps=1e-6),
        init_values=0.1,  # only from scratch: a checkpoint brings its layer scales
        final_norm=False,
        out_type='pooled',  # the mean of the patch tokens, then normalised; pooling='cls' for the class token
        pooling='mean',
    ),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=1000,
        in_channels=1024,
        # Labels or mixed scores, smoothed to 0.9 y + 0.1 / K.
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        # The official code draws with 0.02 and multiplies by 0.001, so that training begins with equal scores.
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
    # One of the two for each batch, as official (mixup 0.8, cutmix 1.0, equally often). None turns both off.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
