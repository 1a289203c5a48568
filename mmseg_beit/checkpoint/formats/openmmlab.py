"""mmsegmentation's, mmpretrain's and our own names: ours but for a few of mmpretrain's.

mmpretrain calls the norm after mean pooling ``ln2``, and the final norm of a BEiT v2 pre-training model stands in its
neck. A backbone alone comes without the prefix ``backbone.``.
"""

from ..naming import NameMap

MMPRETRAIN = NameMap(
    [
        ('backbone.fc_norm.*', 'backbone.ln2.*'),
        ('backbone.*', 'backbone.*'),
        # mmpretrain's ViT-style classifier head; LinearClsHead is ours already.
        ('head.fc.*', 'head.fc.*'),
        ('head.fc.*', 'head.layers.head.*'),
        ('*', '*'),
    ]
)
MMSEG = NameMap([(part + '.*', part + '.*') for part in ('backbone', 'neck', 'decode_head', 'auxiliary_head')])
# Whatever stands beside the backbone in a model of ours or of mmseg's keeps its name.
OWN = NameMap([('*', '*')])
