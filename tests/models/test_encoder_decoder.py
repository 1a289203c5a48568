"""The segmentor: mmseg's numbers where mmseg works, any size where it does not."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.models.segmentors import EncoderDecoder as MMSegEncoderDecoder
from mmseg.structures import SegDataSample

from mmseg_beit.errors import InputError
from mmseg_beit.models.backbones import BEiT
from mmseg_beit.models.segmentors import EncoderDecoder

MODEL = dict(
    backbone=dict(
        type='mmseg.BEiT', img_size=32, patch_size=8, embed_dims=32, num_layers=2, num_heads=2, out_indices=(0, 1)
    ),
    decode_head=dict(
        type='mmseg.UPerHead',
        in_channels=[32, 32],
        in_index=[0, 1],
        pool_scales=(1, 2),
        channels=16,
        num_classes=5,
        dropout_ratio=0.0,
        norm_cfg=dict(type='BN'),
        align_corners=False,
    ),
)
SLIDE = dict(mode='slide', crop_size=(32, 32), stride=(20, 24))


def segmentor(cls=EncoderDecoder, test_cfg=None) -> torch.nn.Module:
    torch.manual_seed(0)
    model = cls(**copy.deepcopy(MODEL), test_cfg=ConfigDict(test_cfg or dict(mode='whole'))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


@pytest.mark.parity
@pytest.mark.parametrize('size', [(32, 32), (45, 70), (33, 32), (100, 40)])
@pytest.mark.parametrize('window_batch_size', [1, 3])
def test_sliding_windows_equal_mmseg(size, window_batch_size):
    theirs = segmentor(MMSegEncoderDecoder, SLIDE)
    ours = segmentor(EncoderDecoder, dict(SLIDE, window_batch_size=window_batch_size))
    img = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = theirs.inference(img, [dict(ori_shape=size, img_shape=size, pad_shape=size)] * 2)
        actual = ours.inference(img)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def samples(size, ori_shape, **meta) -> list[SegDataSample]:
    return [SegDataSample(metainfo=dict(ori_shape=ori_shape, img_shape=size, pad_shape=size, **meta)) for _ in range(2)]


@pytest.mark.parity
@pytest.mark.parametrize(
    ('test_cfg', 'size'), [(dict(mode='whole'), (32, 32)), (SLIDE, (45, 70))], ids=['whole', 'slide']
)
@pytest.mark.parametrize('ori_shape', [(45, 70), (90, 101), (20, 31)])
@pytest.mark.parametrize('meta', [
    dict(),
    dict(flip=True, flip_direction='horizontal'),
    dict(flip=True, flip_direction='vertical', padding_size=[2, 3, 1, 0]),
], ids=['plain', 'flipped', 'padded'])  # fmt: skip
def test_predictions_equal_mmseg(test_cfg, size, ori_shape, meta):
    img = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = segmentor(MMSegEncoderDecoder, test_cfg).predict(img, samples(size, ori_shape, **meta))
        labels = segmentor(EncoderDecoder, test_cfg).predict(img, samples(size, ori_shape, **meta))
        logits = segmentor(EncoderDecoder, dict(test_cfg, keep_logits=True)).predict(
            img, samples(size, ori_shape, **meta)
        )
    for theirs, small, full in zip(expected, labels, logits, strict=True):
        torch.testing.assert_close(
            full.seg_logits.data, theirs.seg_logits.data, rtol=0, atol=1e-5 * theirs.seg_logits.data.abs().max().item()
        )
        assert torch.equal(full.pred_sem_seg.data, theirs.pred_sem_seg.data)
        assert torch.equal(small.pred_sem_seg.data, theirs.pred_sem_seg.data)
        assert 'seg_logits' not in small


def test_predictions_without_samples():
    img = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        (expected,) = segmentor(MMSegEncoderDecoder).predict(img)
        (actual,) = segmentor().predict(img)
    assert torch.equal(actual.pred_sem_seg.data, expected.pred_sem_seg.data)


def ours_with_our_backbone(test_cfg: dict) -> EncoderDecoder:
    cfg = copy.deepcopy(MODEL)
    cfg['backbone']['type'] = 'BEiT'
    torch.manual_seed(0)
    return EncoderDecoder(**cfg, test_cfg=test_cfg).eval()


@pytest.mark.parametrize('test_cfg', [dict(mode='whole'), SLIDE], ids=['whole', 'slide'])
@pytest.mark.parametrize('size', [(1, 1), (5, 90), (17, 31), (32, 33), (75, 40)])
def test_any_size_gives_logits_of_that_size(test_cfg, size):
    model = ours_with_our_backbone(test_cfg)
    with torch.no_grad():
        logits = model.inference(torch.randn(1, 3, *size))
    assert logits.shape == (1, 5, *size)
    assert torch.isfinite(logits).all()


def test_padding_is_cropped_back():
    """An odd picture's logits are the corner of those of the same picture with zeros beyond it."""
    model = ours_with_our_backbone(dict(mode='whole'))
    img = torch.randn(1, 3, 27, 21)
    padded = torch.nn.functional.pad(img, (0, 3, 0, 5))
    with torch.no_grad():
        torch.testing.assert_close(model.inference(img), model.inference(padded)[..., :27, :21])


def test_plain_type_names_mean_ours():
    assert isinstance(ours_with_our_backbone(dict(mode='whole')).backbone, BEiT)


@pytest.mark.parametrize(('test_cfg', 'message'), [
    (dict(mode='windows'), r"test_cfg.mode='windows' is unknown: use whole or slide"),
    (dict(mode='slide', stride=(8, 8)), r'test_cfg.crop_size=None must be \(height, width\)'),
    (dict(mode='slide', crop_size=(32, 32), stride=(40, 8)), r'stride=\(40, 8\) exceeds crop_size=\(32, 32\)'),
])  # fmt: skip
def test_unusable_test_cfg(test_cfg, message):
    with pytest.raises(InputError, match=message):
        ours_with_our_backbone(test_cfg)
