"""Exported files: the model's numbers at any size, in the place of a checkpoint, errors in one sentence."""

import json
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmseg_beit.apis import Inferencer, init_model
from mmseg_beit.apis.export import export_model
from mmseg_beit.apis.export_hf import export_transformers
from mmseg_beit.errors import InputError, MissingFileError
from mmseg_beit.models.exportable import ExportableSegmentor
from mmseg_beit.models.layers import num_relative_positions, relative_position_bias, resize_relative_position_table
from mmseg_beit.models.layers.dynamic import OpenGridBias, OpenSizePool

SIZES = [(1, 32, 32), (2, 29, 64), (1, 96, 41)]


@pytest.mark.parametrize('grid', [(4, 5), (7, 3), (9, 9), (1, 6)])
def test_open_bias_is_the_resized_bias(grid):
    table = torch.randn(num_relative_positions((4, 5)), 3)
    expected = relative_position_bias(resize_relative_position_table(table, (4, 5), grid), grid)
    torch.testing.assert_close(OpenGridBias((4, 5), max_patches=9)(table, *grid), expected)


@pytest.mark.parametrize('size', [1, 2, 3, 6])
@pytest.mark.parametrize('shape', [(16, 16), (7, 11), (1, 1), (2, 6)])
def test_open_pool_is_adaptive_pooling(size, shape):
    x = torch.randn(2, 3, *shape)
    torch.testing.assert_close(OpenSizePool(size)(x), torch.nn.functional.adaptive_avg_pool2d(x, size))


@pytest.mark.parametrize('size', SIZES)
def test_graph_in_eager_mode_is_the_model(demo, size):
    model = init_model('config.py', 'checkpoint.pth', device='cpu')
    model.test_cfg.mode = 'whole'
    img = torch.randn(size[0], 3, *size[1:])
    with torch.no_grad():
        torch.testing.assert_close(ExportableSegmentor(model, 128)(img), model.inference(img), rtol=1e-4, atol=1e-4)
    assert model.backbone.layers[0].attn.open_bias is None


@pytest.mark.slow
@pytest.mark.parametrize(('fmt', 'options'), [
    ('onnx', dict()),
    ('onnx', dict(output='mask', uint8_input=True)),
    ('pt2', dict()),
    ('pt2', dict(output='mask', uint8_input=True)),
], ids=['onnx', 'onnx mask', 'pt2', 'pt2 mask'])  # fmt: skip
def test_file_predicts_as_the_checkpoint_does(demo, fmt, options):
    if fmt == 'onnx':
        pytest.importorskip('onnxruntime')
        pytest.importorskip('onnxscript')
    comparisons = export_model('config.py', 'checkpoint.pth', f'model.{fmt}', fmt, max_size=384, **options)
    assert len(comparisons) == 3
    assert all(c.same_labels > 0.999 for c in comparisons)
    assert any(c.shape[1] != c.shape[2] for c in comparisons)
    # Resized and brought back, through the usual interface; logits by windows too, masks would vote there.
    cfg = Config.fromfile('config.py')
    cfg.model.test_cfg.mode = 'whole' if options else 'slide'
    expected = Inferencer(cfg, 'checkpoint.pth', device='cpu')('photo.jpg').mask
    same = (Inferencer(cfg, f'model.{fmt}', device='cpu')('photo.jpg').mask == expected).mean()
    assert same > (0.97 if options else 0.999)
    assert Inferencer(cfg, f'model.{fmt}', device='cpu').device == torch.device('cpu')
    with pytest.raises(InputError, match=r'exists: give another name or --overwrite'):
        export_model('config.py', 'checkpoint.pth', f'model.{fmt}', fmt)
    with pytest.raises(InputError, match='cannot be trained'):
        init_model('config.py', f'model.{fmt}', device='cpu')(torch.zeros(1, 3, 32, 32), mode='loss')
    assert not list(demo.glob('.model*'))


@pytest.mark.parametrize(('kwargs', 'message'), [
    (dict(path='m.pth', fmt='onnx'), 'm.pth does not end in .onnx'),
    (dict(path='m.onnx', fmt='tflite'), '--format tflite is unknown'),
    (dict(path='m.onnx', fmt='onnx', output='boxes'), '--output boxes is unknown'),
    (dict(path='m.onnx', fmt='onnx', opset=11), '--opset 11 is too old'),
    (dict(path='m.pt2', fmt='pt2', max_size=16), '--max-size 16 is too small'),
])  # fmt: skip
def test_unusable_arguments(demo, kwargs, message):
    with pytest.raises(InputError, match=message):
        export_model('config.py', 'checkpoint.pth', **kwargs)


@pytest.mark.parametrize('suffix', ['.onnx', '.pt2'])
def test_unusable_files(demo, suffix):
    with pytest.raises(MissingFileError, match='does not exist'):
        init_model('config.py', f'none{suffix}', device='cpu')
    (demo / f'broken{suffix}').write_bytes(b'not a model')
    with pytest.raises(InputError, match=f'broken{suffix} cannot be read'):
        init_model('config.py', f'broken{suffix}', device='cpu')


@pytest.mark.parity
def test_transformers_folder_gives_our_logits_and_pixels(demo):
    transformers = pytest.importorskip('transformers')
    figures = dict(mIoU=12.3, mAcc=20.0, aAcc=50.0, images=7)
    (demo / 'metrics.json').write_text(json.dumps(figures))
    # transformers' networks read four blocks and pool at four scales.
    options = {
        'model.backbone.num_layers': 4,
        'model.backbone.out_indices': (0, 1, 2, 3),
        'model.neck': dict(type='Feature2Pyramid', embed_dim=32, rescales=[4, 2, 1, 0.5], norm_cfg=dict(type='BN')),
        'model.decode_head.in_channels': [32] * 4,
        'model.decode_head.in_index': [0, 1, 2, 3],
        'model.decode_head.pool_scales': (1, 2, 3, 6),
        'model.decode_head.channels': 32,
        'model.auxiliary_head': dict(
            type='FCNHead', in_channels=32, in_index=2, channels=16, num_convs=1, concat_input=False, num_classes=3,
            norm_cfg=dict(type='BN')),
    }  # fmt: skip
    model = init_model('config.py', device='cpu', cfg_options=options)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    torch.save(dict(state_dict=model.state_dict(), meta={}), 'four.pth')
    check = export_transformers('config.py', 'four.pth', 'hf', metrics='metrics.json', cfg_options=options)
    assert check.largest_difference < 1e-4 * check.largest_logit
    processor = transformers.AutoImageProcessor.from_pretrained('hf')
    picture = np.asarray(Image.open('photo.jpg'))[:32, :32]
    pixels = torch.as_tensor(np.asarray(processor(images=picture)['pixel_values'][0]))
    bgr = torch.from_numpy(picture[..., ::-1].transpose(2, 0, 1).copy())
    ours = model.data_preprocessor(dict(inputs=[bgr]))['inputs'][0]
    torch.testing.assert_close(pixels, ours, rtol=1e-4, atol=1e-4)
    card = (demo / 'hf' / 'README.md').read_text()
    assert 'mIoU 12.3' in card
    assert '0 sky, 1 road, 2 tree' in card
    assert transformers.BeitForSemanticSegmentation.from_pretrained('hf').config.id2label[1] == 'road'
    with pytest.raises(InputError, match='exists and is not an empty folder'):
        export_transformers('config.py', 'four.pth', 'hf', cfg_options=options)
    shutil.rmtree('hf')
    with pytest.raises(MissingFileError, match=r'--metrics none.json does not exist'):
        export_transformers('config.py', 'four.pth', 'hf', metrics='none.json', cfg_options=options)


@pytest.mark.slow
def test_setr_pup_with_absolute_positions_at_open_sizes(demo):
    config = Config.fromfile('config.py')
    config.model.backbone.update(use_abs_pos=True, rel_pos='none')
    config.model.decode_head = dict(
        type='SETRUPHead', in_channels=32, channels=16, in_index=1, num_classes=3, num_convs=2, up_scale=2,
        kernel_size=3, norm_cfg=dict(type='BN'), align_corners=False)  # fmt: skip
    config.dump('setr.py')
    torch.save(dict(state_dict=init_model('setr.py', device='cpu').state_dict(), meta={}), 'setr.pth')
    comparisons = export_model('setr.py', 'setr.pth', 'setr.pt2', 'pt2', max_size=256)
    assert all(c.same_labels > 0.999 for c in comparisons)
