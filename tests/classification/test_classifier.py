"""The classifier that a config builds, against independent implementations; and the life of its checkpoint."""

from unittest import mock

import pytest
import torch
from mmengine.registry import DefaultScope

from mmseg_beit.checkpoint import load_checkpoint, to_ours
from mmseg_beit.errors import InputError
from mmseg_beit.registry import MODELS
from tests.checkpoint.peers import HEADS, PATCH, WIDTH, hf_config, randomise, segmentor_config, timm_beit

K = 7


@pytest.fixture(autouse=True)
def our_scope():
    import mmpretrain.models  # noqa: F401

    with DefaultScope.overwrite_default_scope('mmseg_beit'):
        yield


def classifier(num_classes=K, pooling='mean', img_size=32, **kwargs):
    """Ours, as the configs of configs/classification write it."""
    backbone = dict(
        type='BEiT', img_size=img_size, patch_size=PATCH, embed_dims=WIDTH, num_layers=2, num_heads=HEADS,
        norm_cfg=dict(type='LN', eps=1e-6), out_type='pooled', pooling=pooling, final_norm=pooling == 'cls',
    )  # fmt: skip
    loss = dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original')
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', num_classes=num_classes),
            backbone=backbone,
            head=dict(type='mmpretrain.LinearClsHead', num_classes=num_classes, in_channels=WIDTH, loss=loss),
            **kwargs,
        )
    )


def close(ours, theirs, tolerance=1e-4):
    assert ours.shape == theirs.shape
    scale = max(float(theirs.detach().abs().max()), 1.0)
    assert float((ours - theirs).detach().abs().max()) <= tolerance * scale


def assert_same_gradients(model, peer, logits, expected):
    weight = torch.randn_like(logits)
    (logits * weight).sum().backward()
    (expected * weight).sum().backward()
    theirs, _ = to_ours({name: p.grad for name, p in peer.named_parameters() if p.grad is not None})
    # mmpretrain's name of the norm after pooling, which tells its files apart from ours by their index buffers.
    theirs = {name.replace('backbone.ln2.', 'backbone.fc_norm.'): gradient for name, gradient in theirs.items()}
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        close(ours[name], gradient)


@pytest.mark.parity
@pytest.mark.parametrize('pool', ['avg', 'token'])
@pytest.mark.parametrize('img_size', [32, (32, 48)], ids=['square', 'oblong'])
def test_timm_classifier(tmp_path, pool, img_size):
    peer = timm_beit(img_size=img_size, global_pool=pool)
    torch.save(peer.state_dict(), tmp_path / 'timm.pth')
    model = classifier(pooling='mean' if pool == 'avg' else 'cls', img_size=img_size)
    load_checkpoint(model, tmp_path / 'timm.pth', role='test')
    image = torch.randn(2, 3, *((img_size,) * 2 if isinstance(img_size, int) else img_size))
    logits, expected = model.eval()(image), peer(image)
    close(logits, expected)
    assert_same_gradients(model, peer, logits, expected)


@pytest.mark.parity
def test_transformers_classifier(tmp_path):
    from transformers import BeitForImageClassification

    peer = randomise(BeitForImageClassification(hf_config(depth=2, num_labels=K, use_mean_pooling=True)))
    peer.save_pretrained(tmp_path)
    model = classifier()
    load_checkpoint(model, tmp_path, role='test')
    image = torch.randn(2, 3, 32, 32)
    logits, expected = model.eval()(image), peer(image).logits
    close(logits, expected)
    assert_same_gradients(model, peer, logits, expected)


@pytest.mark.parity
@pytest.mark.parametrize('pooling, out_type', [('mean', 'avg_featmap'), ('cls', 'cls_token')])
def test_mmpretrain_classifier(tmp_path, pooling, out_type):
    arch = dict(embed_dims=WIDTH, num_layers=2, num_heads=HEADS, feedforward_channels=4 * WIDTH)
    backbone = dict(
        type='BEiTViT', arch=arch, img_size=32, patch_size=PATCH, out_type=out_type,
        final_norm=pooling == 'cls',
    )  # fmt: skip
    head = dict(type='LinearClsHead', num_classes=K, in_channels=WIDTH)
    cfg = dict(type='ImageClassifier', _scope_='mmpretrain', backbone=backbone, head=head)
    peer = randomise(MODELS.build(cfg))
    torch.save(dict(state_dict=peer.state_dict(), meta={}), tmp_path / 'mmpretrain.pth')
    model = classifier(pooling=pooling)
    load_checkpoint(model, tmp_path / 'mmpretrain.pth', role='test')
    image = torch.randn(2, 3, 32, 32)
    close(model.eval().extract_feat(image)[-1], peer.extract_feat(image)[-1])
    logits, expected = model(image), peer(image)
    close(logits, expected)
    assert_same_gradients(model, peer, logits, expected)


def test_loss_of_mixed_and_smoothed_labels_is_the_hand_computed_one():
    from mmpretrain.structures import DataSample

    model = classifier(num_classes=2)
    with torch.no_grad():
        model.head.fc.weight.zero_()
        model.head.fc.bias.copy_(torch.tensor([0.0, 1.0]))
    sample = DataSample().set_gt_score(torch.tensor([0.3, 0.7]))
    loss = model.loss(torch.randn(1, 3, 32, 32), [sample])['loss']
    # 0.9 y + 0.1 / 2 = (0.32, 0.68); -log softmax(0, 1) = (1.313262, 0.313262)
    assert loss.item() == pytest.approx(0.32 * 1.3132617 + 0.68 * 0.3132617, abs=1e-6)


def test_a_head_of_other_classes_starts_anew_when_fine_tuning_and_is_refused_in_a_test(tmp_path):
    source = randomise(classifier(num_classes=5))
    torch.save(dict(state_dict=source.state_dict(), meta={}), tmp_path / 'five.pth')
    model = classifier()
    before = model.head.fc.weight.clone()
    load_checkpoint(model, tmp_path / 'five.pth', role='finetune')
    assert torch.equal(model.head.fc.weight, before)
    assert torch.equal(model.backbone.fc_norm.weight, source.backbone.fc_norm.weight)
    with pytest.raises(InputError, match='5 classes in the file, 7 in the model; set num_classes=5'):
        load_checkpoint(classifier(), tmp_path / 'five.pth', role='test')


def test_segmentation_starts_from_a_trained_classifier_by_its_path(tiny):
    assert tiny.call('train.py', 'tiny.py', '--work-dir', 'run', '--cfg-options', 'train_cfg.max_epochs=1') == 0
    path = tiny.folder / 'run' / 'epoch_1.pth'
    config = segmentor_config(depth=2, out_indices=(0, 0, 1, 1))
    config['backbone']['out_indices'] = (0, 1)
    config.pop('neck')
    for head in ('decode_head', 'auxiliary_head'):
        config[head].update(in_index=[0, 1] if head == 'decode_head' else 1)
    config['decode_head']['in_channels'] = [WIDTH] * 2
    config['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint=str(path))
    model = MODELS.build(config)
    model.init_weights()
    trained = torch.load(path, weights_only=True)['state_dict']
    own = {f'backbone.{name}': value for name, value in model.backbone.state_dict().items()}
    assert set(trained) - set(own) == {
        'backbone.fc_norm.weight', 'backbone.fc_norm.bias', 'head.fc.weight', 'head.fc.bias',
    }  # fmt: skip
    for name, value in own.items():
        assert torch.equal(value, trained[name]), name


def test_only_the_head_and_its_norm_have_the_full_learning_rate():
    from mmseg_beit.engine.layer_decay import LayerDecayOptimizerConstructor

    constructor = LayerDecayOptimizerConstructor(
        dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05)), dict(layer_decay_rate=0.5)
    )
    model = classifier()
    groups = []
    with mock.patch('mmseg_beit.engine.layer_decay.print_log'):
        constructor.add_params(groups, model)
    rates = {name: group['lr'] for group in groups for name in group['param_names']}
    assert rates['head.fc.weight'] == rates['backbone.fc_norm.weight'] == 1.0
    assert rates['backbone.layers.1.attn.qkv.weight'] == 0.5
    assert rates['backbone.cls_token'] == rates['backbone.patch_embed.projection.weight'] == 0.125
