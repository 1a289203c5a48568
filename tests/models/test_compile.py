"""``torch.compile`` takes backbone, neck and head as one graph, with the same numbers."""

import pytest
import torch
from mmengine.registry import DefaultScope

from mmseg_beit.registry import MODELS


def make_segmentor() -> torch.nn.Module:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg_beit'):
        return MODELS.build(
            dict(
                type='EncoderDecoder',
                backbone=dict(
                    type='BEiT', img_size=64, patch_size=8, embed_dims=32, num_layers=4, num_heads=2,
                    out_indices=(0, 1, 2, 3),
                ),
                neck=dict(type='Feature2Pyramid', embed_dim=32, norm_cfg=dict(type='BN')),
                decode_head=dict(
                    type='UPerHead', in_channels=[32] * 4, in_index=[0, 1, 2, 3], channels=16, num_classes=5,
                    dropout_ratio=0.0, norm_cfg=dict(type='BN'), align_corners=False,
                ),
                test_cfg=dict(mode='whole'),
            )
        )  # fmt: skip


@pytest.mark.parametrize('training', [True, False])
def test_no_graph_breaks(training):
    model = make_segmentor().train(training)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(lambda x: model.decode_head(model.extract_feat(x)))(torch.randn(2, 3, 64, 64))
    assert explained.graph_count == 1
    assert explained.graph_break_count == 0


def test_compiled_gradients_are_the_eager_ones():
    model = make_segmentor().train()
    img = torch.randn(2, 3, 64, 64)
    grads = []
    # The graphs are traced and differentiated, but not turned into machine code, which takes a minute.
    for run in (model._forward, torch.compile(model._forward, backend='aot_eager', fullgraph=True)):
        torch.manual_seed(1)
        model.zero_grad()
        run(img).square().mean().backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    # Some gradients are zero but for rounding: biases before a batch norm.
    atol = 1e-5 * max(grad.abs().max().item() for grad in grads[0].values())
    for name, expected in grads[0].items():
        torch.testing.assert_close(grads[1][name], expected, rtol=1e-4, atol=atol)
