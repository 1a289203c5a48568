"""The classes that the rendered scenes hold, by their index in ADE20K's scene-parsing masks."""

#: Mask value of a pixel that belongs to no class (lamp posts, bins, benches).
UNLABELLED = 0

#: ADE20K index (1..150, as ``objectInfo150.txt`` counts) of every class that the renderer draws.
LABELS = {
    'building': 2,
    'sky': 3,
    'tree': 5,
    'road': 7,
    'grass': 10,
    'sidewalk': 12,
    'person': 13,
    'earth': 14,
    'mountain': 17,
    'car': 21,
    'water': 22,
    'fence': 33,
}
