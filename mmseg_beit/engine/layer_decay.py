"""Layer-wise learning-rate decay.

The groups are those of the official code (microsoft/unilm, ``beit/semantic_segmentation/mmcv_custom``): the learning
rate of a parameter is scaled by ``layer_decay_rate`` to the power of its distance from the head. The backbone says at
which depth a parameter sits; this module only multiplies.
"""

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from ..errors import InputError
from ..registry import OPTIM_WRAPPER_CONSTRUCTORS

_KNOWN_KEYS = ('num_layers', 'layer_decay_rate', 'decay_rate', 'decay_type', 'no_decay')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimizerConstructor(DefaultOptimWrapperConstructor):
    """Parameter groups with a learning rate that falls with depth.

    Args:
        optim_wrapper_cfg: Config of the optimizer wrapper; its optimizer needs ``lr``.
        paramwise_cfg: ``layer_decay_rate`` (or ``decay_rate``): the factor from one layer to the one below, in (0, 1].
            ``num_layers``: the backbone's depth, read from the model when absent. ``no_decay``: which parameters get no
            weight decay. ``'official'`` (default): vectors and biases; ``'model'``: also the backbone's own list
            (tokens and position tables). ``decay_type``: accepted for mmseg's configs, ``layer_wise`` or
            ``layer_wise_vit``.

    The model has a ``backbone`` or is one; the backbone tells ``layer_id(name)``, ``num_layers`` and
    ``no_weight_decay()``.

    NOTE(reference): the official code means to leave class token and position tables undecayed, but tests names without
    their ``backbone.`` prefix and so decays them; published results were trained that way. ``no_decay='model'`` mends
    it.

    Raises:
        InputError: A key or value is unknown, or the backbone tells no depths.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        paramwise_cfg = dict(paramwise_cfg or {})
        if unknown := sorted(set(paramwise_cfg) - set(_KNOWN_KEYS)):
            raise InputError(f'paramwise_cfg.{unknown[0]} is unknown to layer decay: use {", ".join(_KNOWN_KEYS)}')
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        self.decay_rate = paramwise_cfg.get('layer_decay_rate', paramwise_cfg.get('decay_rate'))
        self.no_decay = paramwise_cfg.get('no_decay', 'official')
        decay_type = paramwise_cfg.get('decay_type', 'layer_wise')
        if not isinstance(self.decay_rate, float | int) or not 0 < self.decay_rate <= 1:
            raise InputError(f'paramwise_cfg.layer_decay_rate={self.decay_rate!r} must be a number in (0, 1]')
        if self.no_decay not in ('official', 'model'):
            raise InputError(f"paramwise_cfg.no_decay={self.no_decay!r} is unknown: use 'official' or 'model'")
        if decay_type not in ('layer_wise', 'layer_wise_vit'):
            raise InputError(f"paramwise_cfg.decay_type={decay_type!r} is unknown: use 'layer_wise'")
        if self.base_lr is None:
            raise InputError('optim_wrapper.optimizer.lr is missing: layer decay scales it')

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Appends the model's parameter groups to ``params``, in the order in which the model first names them.

        Each group holds ``params``, ``param_names``, ``group_name``, ``lr``, ``lr_scale`` and ``weight_decay``.
        """
        prefix, backbone = ('backbone.', module.backbone) if hasattr(module, 'backbone') else ('', module)
        num_layers = self._num_layers(backbone)
        undecayed = {prefix + name for name in backbone.no_weight_decay()} if self.no_decay == 'model' else set()
        groups: dict[str, dict] = {}
        for name, param in module.named_parameters():
            if not param.requires_grad:
                continue
            in_backbone = name.startswith(prefix)
            layer_id = backbone.layer_id(name.removeprefix(prefix)) if in_backbone else num_layers + 1
            decayed = param.ndim > 1 and not name.endswith('.bias') and name not in undecayed
            key = f'layer_{layer_id}_{"decay" if decayed else "no_decay"}'
            scale = self.decay_rate ** (num_layers + 1 - layer_id)
            group = groups.setdefault(
                key,
                dict(
                    params=[],
                    param_names=[],
                    group_name=key,
                    lr=self.base_lr * scale,
                    lr_scale=scale,
                    weight_decay=(self.base_wd or 0.0) if decayed else 0.0,
                ),
            )
            group['params'].append(param)
            group['param_names'].append(name)
        params.extend(groups.values())
        print_log(
            f'Layer decay {self.decay_rate:g} over {num_layers} layers: {len(groups)} parameter groups, '
            f'lr from {min(g["lr"] for g in groups.values()):.3g} to {max(g["lr"] for g in groups.values()):.3g}',
            logger='current',
        )

    def _num_layers(self, backbone: nn.Module) -> int:
        for name in ('layer_id', 'no_weight_decay', 'num_layers'):
            if not hasattr(backbone, name):
                raise InputError(
                    f'{type(backbone).__name__} does not tell {name}, which layer decay asks of a backbone: '
                    "use mmseg_beit's BEiT or another optimizer constructor"
                )
        given = self.paramwise_cfg.get('num_layers', backbone.num_layers)
        if given != backbone.num_layers:
            raise InputError(
                f'paramwise_cfg.num_layers={given} but the backbone has {backbone.num_layers} layers: '
                'correct it or leave it out'
            )
        return backbone.num_layers
