"""The streaming multi-view model against mmseg's, which keeps every view."""

import weakref

import pytest
import torch
from mmseg.models.segmentors import SegTTAModel as MMSegSegTTAModel
from mmseg.structures import SegDataSample

from mmseg_beit.models.segmentors import EncoderDecoder, SegTTAModel

WIDTH, CLASSES, SIZE = 32, 7, (40, 56)


@pytest.fixture
def segmentor():
    model = EncoderDecoder(
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[124, 116, 104], std=[58, 57, 57], bgr_to_rgb=True, size_divisor=1
        ),
        backbone=dict(type='BEiT', img_size=32, embed_dims=WIDTH, num_layers=2, num_heads=2, out_indices=(1,)),
        decode_head=dict(
            type='FCNHead', in_channels=WIDTH, channels=WIDTH, num_classes=CLASSES, num_convs=1, in_index=0,
            norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss'),
        ),
        test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(21, 21)),
    )  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def views_of_two_pictures():
    inputs, samples = [], []
    for scale in (1.0, 1.5):
        for flip in (False, True):
            height, width = int(SIZE[0] * scale), int(SIZE[1] * scale)
            inputs.append([torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(2)])
            meta = dict(img_shape=(height, width), ori_shape=SIZE, img_path='picture.jpg')
            meta.update(flip=flip, flip_direction='horizontal')
            samples.append([SegDataSample(metainfo=dict(meta)) for _ in range(2)])
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parity
@torch.no_grad()
def test_predictions_are_those_of_mmseg(segmentor):
    torch.manual_seed(0)
    ours = SegTTAModel(segmentor).test_step(views_of_two_pictures())
    torch.manual_seed(0)
    theirs = MMSegSegTTAModel(segmentor).test_step(views_of_two_pictures())
    assert len(ours) == 2
    for our, their in zip(ours, theirs, strict=True):
        assert our.pred_sem_seg.data.shape == (1, *SIZE)
        assert our.pred_sem_seg.data.unique().numel() > 1
        assert torch.equal(our.pred_sem_seg.data, their.pred_sem_seg.data)
        assert (our.img_path, our.flip) == ('picture.jpg', False)


@torch.no_grad()
def test_only_one_view_is_kept(segmentor, monkeypatch):
    made, alive = [], []
    step = segmentor.test_step

    def counting_step(data):
        alive.append(sum(ref() is not None for ref in made))
        samples = step(data)
        made.extend(weakref.ref(sample.seg_logits.data) for sample in samples)
        return samples

    monkeypatch.setattr(segmentor, 'test_step', counting_step)
    SegTTAModel(segmentor).test_step(views_of_two_pictures())
    assert alive == [0, 0, 0, 0]
