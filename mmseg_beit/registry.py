"""Child registries of mmsegmentation's, scope ``mmseg_beit``.

Inside the scope our classes win over mmseg's of the same name (``BEiT``, ``EncoderDecoder``, ...), and every type that
mmseg, mmcv or mmengine registers stays reachable by its plain name. A config enters the scope with
``default_scope = 'mmseg_beit'``; mmengine then imports this module by itself, and a registry imports the modules in its
``locations`` when it is first asked for a class.
"""

from mmengine.registry import Registry
from mmseg import registry as mmseg_registry

__all__ = [
    'DATASETS',
    'DATA_SAMPLERS',
    'EVALUATOR',
    'HOOKS',
    'INFERENCERS',
    'LOG_PROCESSORS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'MODEL_WRAPPERS',
    'OPTIMIZERS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'PARAM_SCHEDULERS',
    'RUNNERS',
    'RUNNER_CONSTRUCTORS',
    'TASK_UTILS',
    'TRANSFORMS',
    'VISBACKENDS',
    'VISUALIZERS',
    'WEIGHT_INITIALIZERS',
]


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    # A registry looks a name up in its parents without importing the parents' modules: mmseg's are imported with ours.
    return Registry(name, parent=parent, scope='mmseg_beit', locations=[*parent._locations, *locations])


MODELS = _child('model', mmseg_registry.MODELS, 'mmseg_beit.models')
DATASETS = _child('dataset', mmseg_registry.DATASETS, 'mmseg_beit.datasets')
TRANSFORMS = _child('transform', mmseg_registry.TRANSFORMS, 'mmseg_beit.datasets.transforms')
HOOKS = _child('hook', mmseg_registry.HOOKS, 'mmseg_beit.engine.hooks', 'mmseg_beit.datasets')
LOOPS = _child('loop', mmseg_registry.LOOPS, 'mmseg_beit.engine')
OPTIM_WRAPPERS = _child('optim wrapper', mmseg_registry.OPTIM_WRAPPERS, 'mmseg_beit.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    'optimizer wrapper constructor', mmseg_registry.OPTIM_WRAPPER_CONSTRUCTORS, 'mmseg_beit.engine'
)
PARAM_SCHEDULERS = _child('parameter scheduler', mmseg_registry.PARAM_SCHEDULERS, 'mmseg_beit.engine')
LOG_PROCESSORS = _child('log processor', mmseg_registry.LOG_PROCESSORS, 'mmseg_beit.engine')
METRICS = _child('metric', mmseg_registry.METRICS, 'mmseg_beit.evaluation')
VISUALIZERS = _child('visualizer', mmseg_registry.VISUALIZERS, 'mmseg_beit.visualization')

# Nothing of ours in these: without a child of its own, mmengine warns on every use of a scope.
DATA_SAMPLERS = _child('data sampler', mmseg_registry.DATA_SAMPLERS)
EVALUATOR = _child('evaluator', mmseg_registry.EVALUATOR)
INFERENCERS = _child('inferencer', mmseg_registry.INFERENCERS)
MODEL_WRAPPERS = _child('model wrapper', mmseg_registry.MODEL_WRAPPERS)
OPTIMIZERS = _child('optimizer', mmseg_registry.OPTIMIZERS)
RUNNERS = _child('runner', mmseg_registry.RUNNERS)
RUNNER_CONSTRUCTORS = _child('runner constructor', mmseg_registry.RUNNER_CONSTRUCTORS)
TASK_UTILS = _child('task util', mmseg_registry.TASK_UTILS)
VISBACKENDS = _child('vis backend', mmseg_registry.VISBACKENDS)
WEIGHT_INITIALIZERS = _child('weight initializer', mmseg_registry.WEIGHT_INITIALIZERS)
