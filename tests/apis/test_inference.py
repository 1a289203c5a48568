"""init_model, inference_model and Inferencer with a tiny model."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmseg_beit.apis import Inferencer, inference_model, init_model
from mmseg_beit.datasets.base import ADE20KDataset
from mmseg_beit.errors import InputError, MissingFileError
from mmseg_beit.scenes.labels import LABELS

from .conftest import photo

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.fixture
def infer(demo):
    return Inferencer('config.py', 'checkpoint.pth', device='cpu')


def test_the_model_is_ready(demo):
    scope = DefaultScope.get_current_instance()
    model = init_model('config.py', 'checkpoint.pth', device='cpu')
    assert not model.training
    assert model.dataset_meta['classes'] == ('sky', 'road', 'tree')
    assert model.dataset_meta['palette'][0] == [70, 130, 180]
    assert model.dataset_meta['reduce_zero_label'] is True
    assert DefaultScope.get_current_instance() is scope


def test_all_weights_are_the_checkpoints(demo):
    state = torch.load('checkpoint.pth', weights_only=True)['state_dict']
    for name, value in init_model('config.py', 'checkpoint.pth', device='cpu').state_dict().items():
        assert torch.equal(value, state[name]), name


def test_without_a_word_in_the_checkpoint_the_config_names_the_classes(demo):
    content = torch.load('checkpoint.pth', weights_only=True)
    torch.save(content['state_dict'], 'bare.pth')
    meta = init_model('config.py', 'bare.pth', device='cpu').dataset_meta
    assert meta['classes'] == ('sky', 'road', 'tree') and meta['reduce_zero_label'] is True


def test_classes_that_are_not_the_models_are_not_used(demo):
    config = Config.fromfile('config.py')
    config.test_dataloader.dataset.metainfo = dict(classes=('one', 'two'))
    assert init_model(config, device='cpu').dataset_meta['classes'] == ('class 0', 'class 1', 'class 2')


def test_a_given_config_is_not_changed(demo):
    config = Config.fromfile('config.py')
    before = copy.deepcopy(config._cfg_dict.to_dict())
    model = init_model(config, device='cpu', cfg_options={'model.test_cfg.mode': 'whole'})
    assert config._cfg_dict.to_dict() == before
    assert model.test_cfg.mode == 'whole'


@pytest.mark.parity
@pytest.mark.parametrize('mode', ['slide', 'whole'])
def test_predictions_are_those_of_the_config_pipeline(demo, mode):
    model = init_model('config.py', 'checkpoint.pth', device='cpu', cfg_options={'model.test_cfg.mode': mode})
    with DefaultScope.overwrite_default_scope('mmseg'):
        steps = [TRANSFORMS.build(step) for step in model.cfg.test_pipeline if step['type'] != 'LoadAnnotations']
    with torch.no_grad():
        for path in ('photo.jpg', 'photos/1.png'):
            expected = model.test_step(pseudo_collate([Compose(steps)(dict(img_path=path))]))[0].pred_sem_seg.data[0]
            result = inference_model(model, path)
            assert (result.mask == expected.numpy()).all()
            assert len(np.unique(result.mask)) > 1


def test_paths_arrays_and_images_are_one_picture(infer):
    expected = infer('photo.jpg')
    rgb = np.asarray(Image.open('photo.jpg'))
    assert expected.mask.dtype == np.uint8 and expected.path == Path('photo.jpg')
    assert (expected.image == rgb).all()
    for same in (Path('photo.jpg'), rgb, Image.open('photo.jpg')):
        assert (infer(same).mask == expected.mask).all()
    bgr = Inferencer(infer.model, channel_order='bgr')
    assert (bgr(rgb[..., ::-1]).mask == expected.mask).all()
    assert (bgr('photo.jpg').mask == expected.mask).all()


def test_batches_give_the_same_in_the_same_order(infer):
    pictures = [photo(48, 64, 0), photo(30, 60, 1), photo(48, 64, 2), photo(48, 64, 3), photo(30, 60, 4)]
    batches = Inferencer(infer.model, batch_size=2)
    sizes = []
    step = infer.model.test_step
    infer.model.test_step = lambda data: sizes.append(len(data['inputs'])) or step(data)
    results = batches(pictures)
    del infer.model.test_step
    assert sizes == [2, 1, 2]  # what the pipeline makes one size, together
    for picture, result in zip(pictures, results, strict=True):
        assert (result.image == picture).all()
        assert (result.mask == infer(picture).mask).all()


def test_folders_are_read_by_name(infer):
    assert [result.path.name for result in infer('photos')] == ['0.png', '1.png', '2.png']
    assert infer([]) == []


@pytest.mark.parametrize('size', [(8, 8), (1, 1), (1, 300), (300, 1), (1, 3000), (3000, 1), (33, 31), (200, 50)])
@pytest.mark.parametrize('mode', ['slide', 'whole'])
def test_any_size(infer, size, mode):
    infer.model.test_cfg.mode = mode
    result = infer(photo(*size))
    assert result.mask.shape == size
    assert result.overlay().shape == (*size, 3)


def test_logits_where_they_are_wanted(infer):
    assert infer('photo.jpg').logits is None
    result = Inferencer(infer.model, with_logits=True)('photo.jpg')
    assert result.logits.shape == (3, 48, 64) and result.logits.dtype == np.float32
    assert (result.logits.argmax(0) == result.mask).all()
    assert not infer.model.test_cfg.get('keep_logits')


def test_mmseg_configs_work(demo):
    config = Config.fromfile('config.py')
    config.default_scope = 'mmseg'
    config.model.test_cfg = dict(mode='whole')
    config.test_dataloader.dataset.pipeline[1] = dict(type='Resize', scale=(32, 32))
    model = init_model(config, device='cpu')
    assert type(model).__module__.startswith('mmseg.')
    assert inference_model(model, photo()).mask.shape == (48, 64)


@pytest.mark.parametrize('batch_size', [1, 3])
def test_a_failing_picture_is_told_and_the_others_go_on(infer, batch_size):
    Path('cut.jpg').write_bytes(Path('photo.jpg').read_bytes()[:300])
    told = []
    images = ['photo.jpg', 'cut.jpg', 'gone.jpg', 'photos/1.png']
    stream = Inferencer(infer.model, batch_size=batch_size).stream(images, lambda *what: told.append(what))
    assert [str(result.path) for result in stream] == ['photo.jpg', 'photos/1.png']
    assert [path for path, _ in told] == ['cut.jpg', 'gone.jpg']
    assert all(path in str(error) for path, error in told)
    with pytest.raises(InputError, match=r'cut.jpg'):
        infer(['photo.jpg', 'cut.jpg'])


def test_a_picture_too_large_for_the_memory_is_told(infer, monkeypatch):
    def test_step(data):
        raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(infer.model, 'test_step', test_step, raising=False)
    with pytest.raises(InputError, match=r'photo.jpg does not fit into the memory of cpu'):
        infer('photo.jpg')


def test_mistakes_are_sentences(demo):
    Path('cut.pth').write_bytes(Path('checkpoint.pth').read_bytes()[:3000])
    wider = Config.fromfile('config.py')
    wider.model.backbone.embed_dims = 64
    wider.model.decode_head.in_channels = [64, 64]
    grey = Config.fromfile('config.py')
    grey.test_dataloader.dataset.pipeline[0]['color_type'] = 'grayscale'
    for call, said in (
        (lambda: init_model('gone.py', device='cpu'), 'gone.py does not exist'),
        (lambda: init_model(3, device='cpu'), 'int is no config'),
        (lambda: init_model('config.py', 'gone.pth', device='cpu'), 'gone.pth'),
        (lambda: init_model('config.py', 'cut.pth', device='cpu'), 'cut.pth'),
        (lambda: init_model(wider, 'checkpoint.pth', device='cpu'), 'checkpoint.pth'),
        (lambda: init_model('config.py', device='tpu'), 'device tpu is unknown'),
        (lambda: init_model('config.py', device='cuda:99'), 'device cuda:99'),
        (lambda: init_model('config.py', device='cpu', cfg_options={'model.nonsense': 1}), 'nonsense'),
        (lambda: Inferencer('config.py', device='cpu', batch_size=0), 'batch_size=0'),
        (lambda: Inferencer(grey, device='cpu'), "color_type='color'"),
        (lambda: Inferencer(torch.nn.Linear(1, 1)), 'init_model'),
    ):
        with pytest.raises(InputError, match=said):
            call()
    with pytest.raises(MissingFileError):
        init_model('config.py', 'gone.pth', device='cpu')


@pytest.mark.gpu
def test_on_a_gpu(demo):
    infer = Inferencer('config.py', 'checkpoint.pth')
    assert infer.device.type == 'cuda'
    same = infer('photo.jpg').mask == Inferencer('config.py', 'checkpoint.pth', device='cpu')('photo.jpg').mask
    assert same.mean() > 0.99


def test_a_model_without_checkpoint_has_the_classes_and_colours_of_its_data():
    model = init_model(CONFIGS / 'beit_tiny_upernet_scenes.py', device='cpu')
    names, palette = ADE20KDataset.METAINFO['classes'], ADE20KDataset.METAINFO['palette']
    assert model.dataset_meta['classes'] == tuple(LABELS)
    assert list(model.dataset_meta['palette']) == [palette[names.index(name)] for name in LABELS]


def test_mixed_precision_changes_numbers_little_and_gives_float32_logits(demo):
    image = photo(40, 56)
    exact = Inferencer('config.py', 'checkpoint.pth', device='cpu', with_logits=True)(image).logits
    half = Inferencer('config.py', 'checkpoint.pth', device='cpu', with_logits=True, amp='bf16')(image).logits
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.05 * np.abs(exact).max()


def test_mixed_precision_that_cannot_be_is_refused(demo):
    with pytest.raises(InputError, match='--amp fp16 needs a GPU: use --amp bf16'):
        Inferencer('config.py', 'checkpoint.pth', device='cpu', amp='fp16')
    with pytest.raises(InputError, match=r'model.onnx computes in the precision it was exported in: leave --amp out'):
        Inferencer('config.py', 'model.onnx', device='cpu', amp='bf16')
