# VQ-KD at base size: encoder of 12 layers and decoder of 3, absolute positions, no layer scale. A config adds the
# teacher. Pictures stay in 0..255: tokenizer and teacher normalise for themselves.
layers = dict(
    embed_dims=768,
    num_heads=12,
    norm_cfg=dict(type='LN', eps=1e-6),
    use_abs_pos=True,
    rel_pos='none',
    init_values=None,
    final_norm=True,
)
model = dict(
    type='VQKD',
    encoder=dict(img_size=224, patch_size=16, num_layers=12, **layers),
    decoder=dict(num_layers=3, **layers),
    num_codes=8192,
    code_dims=32,
    quantizer=dict(decay=0.99, commitment=1.0, kmeans_init=True, restart_below=0.01),
)
