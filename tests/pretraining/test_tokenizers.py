"""dVAE encoder and VQ-KD: parity with mmpretrain, reading their files, teachers, what a user can get wrong."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmseg_beit.errors import InputError, MissingFileError
from mmseg_beit.models.pretraining.dalle import map_pixels
from mmseg_beit.registry import MODELS

DALLE = dict(type='DalleEncoder', hidden_dims=16, num_codes=64)


def pretrained(path):
    return dict(type='Pretrained', checkpoint=str(path))


@pytest.fixture
def pictures():
    return torch.rand(2, 3, 64, 64) * 255


# --- DALL-E ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def dalle_peer():
    from mmpretrain.models.selfsup.cae import DALLEEncoder

    return DALLEEncoder(n_hid=16, vocab_size=64)


def test_map_pixels():
    torch.testing.assert_close(map_pixels(torch.tensor([0.0, 127.5, 255.0])), torch.tensor([0.1, 0.5, 0.9]))


@pytest.mark.parity
def test_dalle_is_mmpretrains(tmp_path, dalle_peer):
    torch.save(dict(state_dict=dalle_peer.state_dict()), tmp_path / 'dalle_encoder.pth')
    ours = MODELS.build(DALLE | dict(init_cfg=pretrained(tmp_path / 'dalle_encoder.pth')))
    ours.init_weights()
    picture = torch.rand(2, 3, 48, 64) * 255
    with torch.no_grad():
        # As mmpretrain's preprocessor maps pixels.
        theirs = dalle_peer((picture + 31.875) / 318.75)
        torch.testing.assert_close(ours(map_pixels(picture)), theirs, atol=1e-4, rtol=1e-4)
    codes = ours.tokenize(picture)
    assert codes.shape == (2, 6, 8)
    assert torch.equal(codes, theirs.argmax(dim=1))


def test_dalle_has_the_published_size():
    with torch.device('meta'):
        encoder = MODELS.build(dict(type='DalleEncoder'))
    assert sum(p.numel() for p in encoder.parameters()) == 53_786_240
    assert not any(p.requires_grad for p in encoder.parameters())


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / 'encoder.pkl')
    with pytest.raises(InputError, match=r'encoder\.pkl wants to use torch\.nn'):
        MODELS.build(DALLE).load_tokenizer(tmp_path / 'encoder.pkl')


def test_dalle_file_of_another_kind_or_size(tmp_path, dalle_peer):
    state = dalle_peer.state_dict()
    path = tmp_path / 'a.pth'
    torch.save(state, path)
    with pytest.raises(InputError, match='has 64 codes but the config says 32: set num_codes=64'):
        MODELS.build(DALLE | dict(num_codes=32)).load_tokenizer(path)
    with pytest.raises(InputError, match='set hidden_dims'):
        MODELS.build(DALLE | dict(hidden_dims=8)).load_tokenizer(path)
    torch.save({name: state[name] for name in list(state)[:-3]}, path)
    with pytest.raises(InputError, match='lacks blocks'):
        MODELS.build(DALLE).load_tokenizer(path)
    torch.save(dict(weight=torch.zeros(1)), path)
    with pytest.raises(InputError, match='holds no DALL-E encoder'):
        MODELS.build(DALLE).load_tokenizer(path)
    with pytest.raises(MissingFileError):
        MODELS.build(DALLE).load_tokenizer(tmp_path / 'none.pth')


def test_dalle_says_which_sides_it_takes():
    with pytest.raises(InputError, match='multiples of 8, not 60x64: set second_size'):
        MODELS.build(DALLE).tokenize(torch.zeros(1, 3, 60, 64))


# --- VQ-KD ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def vqkd_peer():
    """mmpretrain's tokenizer in the size of `vqkd_config`, with random weights everywhere."""
    from mmpretrain.models.selfsup.beit import VQKD

    peer = VQKD(
        encoder_config=dict(
            arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128), img_size=64, patch_size=16,
            out_type='featmap', final_norm=True, norm_cfg=dict(type='LN', eps=1e-6), use_abs_pos_emb=True,
            use_rel_pos_bias=False, use_shared_rel_pos_bias=False, layer_scale_init_value=0.0,
        ),
        num_embed=16, embed_dims=8, quantize_kmeans_init=False,
    )  # fmt: skip
    for parameter in peer.parameters():
        nn.init.normal_(parameter, std=0.2)
    peer.quantize.embedding.weight.data = F.normalize(torch.randn(16, 8), dim=-1)
    return peer.eval()


@pytest.mark.parity
def test_vqkd_gives_mmpretrains_codes(tmp_path, vqkd_peer, vqkd_config, pictures):
    torch.save(vqkd_peer.state_dict(), tmp_path / 'vqkd_encoder.pth')
    ours = MODELS.build(vqkd_config(trains=False, init_cfg=pretrained(tmp_path / 'vqkd_encoder.pth')))
    ours.init_weights()
    ours.eval()
    with torch.no_grad():
        normalised = pictures / 127.5 - 1
        features = vqkd_peer.encoder(normalised)[0]
        projected = vqkd_peer.encode_task_layer(features.permute(0, 2, 3, 1).flatten(1, 2))
        torch.testing.assert_close(ours.encode(pictures)[0], projected, atol=1e-4, rtol=1e-4)
        theirs = vqkd_peer(normalised)
    codes = ours.tokenize(pictures)
    assert torch.equal(codes.flatten(1), theirs)
    assert len(codes.unique()) > 2


def as_official(state_dict):
    """Our tokenizer's tensors under the official names."""
    pairs = [
        ('.ffn.layers.0.0.', '.mlp.fc1.'), ('.ffn.layers.1.', '.mlp.fc2.'), ('.layers.', '.blocks.'),
        ('patch_embed.projection', 'patch_embed.proj'),
    ]  # fmt: skip
    renamed = {}
    for name, tensor in state_dict.items():
        official = name
        for ours, theirs in pairs:
            official = official.replace(ours, theirs)
        if '.blocks.' in official:
            official = official.replace('.ln1.', '.norm1.').replace('.ln2.', '.norm2.')
        renamed[official.replace('coder.ln1.', 'coder.fc_norm.')] = tensor
    return renamed


def test_vqkd_reads_official_files(tmp_path, vqkd_config, pictures):
    source = MODELS.build(vqkd_config())
    source.init_weights()
    source.train()(pictures, mode='loss')
    with torch.no_grad():  # A final norm that can be told from a new one.
        source.encoder.ln1.weight.normal_()
    state = as_official(source.state_dict())
    assert {'encoder.blocks.0.mlp.fc1.weight', 'encoder.fc_norm.weight', 'decoder.blocks.0.norm1.bias'} <= set(state)
    torch.save(dict(model=state), tmp_path / 'official.pth')
    target = MODELS.build(vqkd_config(init_cfg=pretrained(tmp_path / 'official.pth')))
    target.init_weights()
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name]), name


def test_losses_by_hand(vqkd_config, pictures):
    """The teacher's loss is 1 - cosine; the commitment is the quantizer's; every trained parameter has a gradient."""
    model = MODELS.build(vqkd_config(quantizer=dict(kmeans_init=False)))
    model.init_weights()
    model.train()
    tokens, grid = model.encode(pictures)
    codes = model.quantize.nearest(F.normalize(tokens, dim=-1).flatten(0, 1))
    quantized = model.quantize.embedding.weight[codes].view_as(tokens)
    features = model.reconstruct(quantized, grid)
    target = model.teacher(pictures, grid)
    agreement = (features * target).sum(-1) / features.norm(dim=-1) / target.norm(dim=-1)
    losses = model(pictures, mode='loss')
    torch.testing.assert_close(losses['loss_teacher'], 1 - agreement.mean())
    torch.testing.assert_close(losses['loss_commit'], F.mse_loss(F.normalize(tokens, dim=-1), quantized))
    assert losses['used_codes'].item() == pytest.approx(len(codes.unique()) / 16)
    (losses['loss_teacher'] + losses['loss_commit']).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_prediction_leaves_the_codebook_alone(vqkd_config, pictures):
    model = MODELS.build(vqkd_config())
    model.init_weights()
    model.train()(pictures, mode='loss')
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predictions = model.eval()(pictures, mode='predict')
    model.tokenize(pictures)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(predictions[1]['codes'], model.tokenize(pictures)[1].flatten())
    assert -1 <= predictions[0]['cosine'] <= 1


def test_checkpoint_holds_the_codebook_and_no_teacher(vqkd_config):
    state = MODELS.build(vqkd_config()).state_dict()
    assert {'quantize.embedding.weight', 'quantize.embedding.initted', 'quantize.cluster_size'} <= set(state)
    assert not [name for name in state if name.startswith('teacher')]
    MODELS.build(vqkd_config()).load_state_dict(state)  # strictly


def test_a_tokenizer_of_another_codebook_is_one_sentence(tmp_path, vqkd_config):
    source = MODELS.build(vqkd_config())
    path = tmp_path / 'vqkd.pth'
    torch.save(source.state_dict(), path)
    with pytest.raises(InputError, match='has 16 codes but the config says 32: set num_codes=16 in the tokenizer'):
        MODELS.build(vqkd_config(num_codes=32)).load_tokenizer(path)
    with pytest.raises(InputError, match=r'shape \(8, 32\), the config wants \(4, 32\): correct code_dims'):
        MODELS.build(vqkd_config(code_dims=4)).load_tokenizer(path)
    torch.save(dict(weight=torch.zeros(1)), path)
    with pytest.raises(InputError, match='holds no VQ-KD tokenizer'):
        MODELS.build(vqkd_config()).load_tokenizer(path)


def test_encoder_only_files_start_training_but_cannot_be_tested(vqkd_config):
    state = MODELS.build(vqkd_config(trains=False)).state_dict()
    model = MODELS.build(vqkd_config())
    assert model.fit_state_dict(state, 'a.pth', strict=False)
    with pytest.raises(InputError, match='lacks decoder'):
        model.fit_state_dict(state, 'a.pth', strict=True)


def test_decoder_and_teacher_come_together(vqkd_config):
    with pytest.raises(InputError, match='give both or none'):
        MODELS.build(vqkd_config(teacher=None))
    with pytest.raises(InputError, match='neither decoder nor teacher'):
        MODELS.build(vqkd_config(trains=False))(torch.zeros(1, 3, 64, 64), mode='loss')


# --- teachers -------------------------------------------------------------------------------------------------------


def test_unknown_timm_teacher():
    pytest.importorskip('timm')
    with pytest.raises(InputError, match='no network that timm knows: did you mean vit_base_patch16_clip_224'):
        MODELS.build(dict(type='TimmTeacher', name='vit_base_patch16_clip_225.openai'))
    with pytest.raises(InputError, match="timm has no weights 'nobody' of vit_base_patch16_224"):
        MODELS.build(dict(type='TimmTeacher', name='vit_base_patch16_224.nobody'))


def test_timm_teacher_weights_that_cannot_be_read(tmp_path):
    pytest.importorskip('timm')
    teacher = dict(type='TimmTeacher', name='vit_tiny_patch16_224')
    with pytest.raises(MissingFileError):
        MODELS.build(teacher | dict(checkpoint=str(tmp_path / 'none.pth'))).init_weights()
    torch.save(dict(weight=torch.zeros(2)), tmp_path / 'other.pth')
    with pytest.raises(InputError, match=r'weights of teacher vit_tiny.* cannot be read from .*other\.pth'):
        MODELS.build(teacher | dict(checkpoint=str(tmp_path / 'other.pth'))).init_weights()


@pytest.mark.parity
def test_timm_teacher_gives_timms_features(tmp_path):
    """From a file, normalised as timm says, patch tokens only, also through the head."""
    timm = pytest.importorskip('timm')
    name = 'vit_tiny_patch16_224'
    peer = timm.create_model(name, num_classes=1000).eval()
    torch.save(peer.state_dict(), tmp_path / 'teacher.pth')
    pictures = torch.rand(2, 3, 224, 224) * 255
    with torch.no_grad():
        tokens = peer.forward_features((pictures / 255 - 0.5) / 0.5)[:, 1:]
        projected = peer.head(tokens)
    for project, expected in ((False, tokens), (True, projected)):
        teacher = dict(type='TimmTeacher', name=name, project=project, checkpoint=str(tmp_path / 'teacher.pth'))
        ours = MODELS.build(teacher)
        assert ours.out_dims == expected.shape[-1]
        torch.testing.assert_close(ours(pictures, (14, 14)), expected, atol=1e-4, rtol=1e-4)


def test_a_backbone_teaches_from_its_checkpoint(tmp_path, encoder_config, pictures):
    backbone = MODELS.build(dict(type='BEiT', **encoder_config))
    backbone.init_weights()
    torch.save(backbone.state_dict(), tmp_path / 'backbone.pth')
    teacher = MODELS.build(
        dict(
            type='FeatureTeacher', backbone=dict(type='BEiT', **encoder_config), out_dims=32,
            checkpoint=str(tmp_path / 'backbone.pth'), mean=[0, 0, 0], std=[255, 255, 255],
        )
    )  # fmt: skip
    expected = backbone.eval()(pictures / 255)[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(teacher(pictures, (4, 4)), expected)
    # On a coarser grid: the mean of the patches in each cell.
    coarse = expected.unflatten(1, (2, 2, 2, 2)).mean(dim=(2, 4)).flatten(1, 2)
    torch.testing.assert_close(teacher(pictures, (2, 2)), coarse)


def test_a_descriptor_teaches_without_weights(pictures):
    hog = dict(type='mmpretrain.HOGGenerator', nbins=9, pool=4, gaussian_window=16)
    teacher = MODELS.build(dict(type='FeatureTeacher', backbone=hog, out_dims=27))
    assert teacher(pictures, (4, 4)).shape == (2, 16, 27)
    with pytest.raises(InputError, match='not a map of out_dims=9 channels'):
        MODELS.build(dict(type='FeatureTeacher', backbone=hog, out_dims=9))(pictures, (4, 4))


def test_random_teachers_are_the_same_every_time(vqkd_config, pictures):
    torch.manual_seed(1)
    first = MODELS.build(vqkd_config()).teacher(pictures, (4, 4))
    torch.manual_seed(2)
    torch.testing.assert_close(MODELS.build(vqkd_config()).teacher(pictures, (4, 4)), first)
