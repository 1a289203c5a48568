"""Counting what autograd keeps, with fake tensors of a GPU."""

import pytest
import torch

from benchmarks.activations import HAS_FAKE_GPU, kept_bytes, main
from benchmarks.models import build_mmseg, build_ours, segmentor_config
from mmseg_beit.errors import InputError

pytestmark = pytest.mark.skipif(not HAS_FAKE_GPU, reason='this torch has no fake CUDA tensors without a GPU')


def test_prints_a_table(capsys):
    assert main(['--tiny', '--batch', '2']) == 0
    printed = capsys.readouterr().out
    assert '2 images of 64, bfloat16' in printed
    assert 'heads and losses' in printed


@pytest.mark.parametrize('batch', ['1', '0', '-2'])
def test_too_few_images_are_refused(batch):
    with pytest.raises(InputError, match=f'--batch {batch}: batch norm trains on 2 images or more'):
        main(['--batch', batch])


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_attention_is_what_differs(dtype):
    """mmseg keeps each layer's probabilities, in float32 under autocast too; the count grows with the batch.

    Under autocast the weights in half precision are kept as well, whatever the batch.
    """
    config = segmentor_config('base', tiny=True)
    kept = {
        (name, batch): kept_bytes(build(), batch, 64, dtype)['backbone']
        for batch in (2, 4, 6)
        for name, build in (
            ('ours', lambda: build_ours(config).train()),
            ('mmseg', lambda: build_mmseg(config, build_ours(config)).train()),
        )
    }
    layers, heads, tokens = 4, 2, 17
    probabilities = layers * 2 * heads * tokens**2 * 4
    assert kept['mmseg', 2] - kept['ours', 2] > probabilities
    for name in ('ours', 'mmseg'):
        growth = [kept[name, 4] - kept[name, 2], kept[name, 6] - kept[name, 4]]
        assert growth[0] > 0
        assert growth[0] == pytest.approx(growth[1], rel=0.01)


def test_recomputing_the_backbone_keeps_its_inputs_only():
    models = [build_ours(segmentor_config('base', tiny=True)).train() for _ in range(2)]
    models[1].backbone.with_cp = True
    plain, recomputed = (kept_bytes(model, 2, 64, torch.bfloat16)['backbone'] for model in models)
    assert recomputed < 0.5 * plain
