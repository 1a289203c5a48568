# BEiT-L with UperNet and an auxiliary FCN head: what differs from BEiT-B (304M backbone, 441M in all).
_base_ = ['./beit_base_upernet.py']

model = dict(
    backbone=dict(
        embed_dims=1024,
        num_layers=24,
        num_heads=16,
        out_indices=(7, 11, 15, 23),
        drop_path_rate=0.2,
        init_values=1e-6,
    ),
    neck=dict(embed_dim=1024),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024),
    auxiliary_head=dict(in_channels=1024),
)
