"""Pre-training: tokenizers and masked image modelling.

The only part of the package that needs mmpretrain, and timm where a teacher comes from there. Configs that train or use
these stages import it with ``custom_imports = dict(imports=['mmseg_beit.models.pretraining'])``; nothing else does, so
segmentation starts without either.
"""

from .dalle import DalleEncoder
from .data_preprocessor import PretrainingDataPreprocessor
from .descriptor import PatchDescriptor
from .heads import BEiTV1Head, BEiTV2Head
from .masked_image_modeling import MaskedImageModeling
from .neck import BEiTV2Neck
from .quantizer import EMAVectorQuantizer
from .teachers import FeatureTeacher, TimmTeacher
from .vqkd import VQKD

__all__ = [
    'VQKD',
    'BEiTV1Head',
    'BEiTV2Head',
    'BEiTV2Neck',
    'DalleEncoder',
    'EMAVectorQuantizer',
    'FeatureTeacher',
    'MaskedImageModeling',
    'PatchDescriptor',
    'PretrainingDataPreprocessor',
    'TimmTeacher',
]
