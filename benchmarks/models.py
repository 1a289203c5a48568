"""Our segmentor and its peers with the same weights."""

import copy
import tempfile
import warnings
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from mmseg_beit.checkpoint import convert_checkpoint
from mmseg_beit.registry import MODELS

CONFIGS = Path(__file__).parent.parent / 'configs'
SIZES = {'base': 'beit_upernet_ade20k.py', 'large': 'beit_large_upernet_ade20k.py'}


def segmentor_config(size: str, tiny: bool) -> dict:
    """The ADE20K config's model without start weights; ``tiny`` keeps its shape at a fraction of the widths."""
    model = Config.fromfile(CONFIGS / SIZES[size]).model.to_dict()
    model['backbone'].pop('init_cfg', None)
    # Synchronised statistics have nobody to synchronise with here.
    for part in (model['neck'], model['decode_head'], model['auxiliary_head']):
        part['norm_cfg'] = dict(type='BN')
    if tiny:
        model['backbone'].update(img_size=(64, 64), embed_dims=32, num_layers=4, num_heads=2, out_indices=(0, 1, 2, 3))
        model['data_preprocessor']['size'] = (64, 64)
        model['neck']['embed_dim'] = 32
        model['decode_head'].update(in_channels=[32] * 4, channels=32)
        model['auxiliary_head'].update(in_channels=32, channels=16)
        model['test_cfg'] = dict(mode='slide', crop_size=(64, 64), stride=(43, 43))
    return model


def build_ours(config: dict) -> nn.Module:
    """Our segmentor with random weights, every parameter non-zero."""
    torch.manual_seed(0)
    with _Quiet(), DefaultScope.overwrite_default_scope('mmseg_beit'):
        model = MODELS.build(copy.deepcopy(config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


def build_mmseg(config: dict, ours: nn.Module) -> nn.Module:
    """Mmsegmentation's own classes with our weights."""
    with _Quiet(), DefaultScope.overwrite_default_scope('mmseg'):
        from mmseg.registry import MODELS as MMSEG_MODELS

        # mmseg reads test_cfg by attribute.
        model = MMSEG_MODELS.build(ConfigDict(copy.deepcopy(config)))
    missing, unexpected = model.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected and all(name.endswith('relative_position_index') for name in missing), (missing, unexpected)
    return model


def build_transformers(ours: nn.Module, config: dict) -> nn.Module:
    """Transformers' ``BeitForSemanticSegmentation`` (sdpa) with our weights."""
    from transformers import BeitForSemanticSegmentation

    backbone = config['backbone']
    with tempfile.TemporaryDirectory() as folder:
        torch.save(ours.state_dict(), Path(folder, 'ours.pth'))
        convert_checkpoint(
            Path(folder, 'ours.pth'),
            Path(folder, 'hf'),
            to='hf',
            out_indices=backbone['out_indices'],
            norm_eps=backbone['norm_cfg']['eps'],
        )
        return BeitForSemanticSegmentation.from_pretrained(Path(folder, 'hf'), attn_implementation='sdpa')


class _Quiet(warnings.catch_warnings):
    """Keeps the peers' own deprecation warnings off the tables."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter('ignore')
