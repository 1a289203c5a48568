"""Imports point one way, `import mmseg_beit` is light, and segmentation brings in neither mmpretrain nor timm."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / 'mmseg_beit'

# Area -> the areas it may import. An area is a folder or module of the package; models/layers is one of its own.
ALLOWED = {
    '__init__': {'_quiet'},
    '_quiet': set(),
    'errors': set(),
    'registry': {'errors'},
    'launch': {'errors'},
    'scenes': {'errors'},
    'layers': {'errors'},
    'checkpoint': {'layers', 'errors'},
    'models': {'checkpoint', 'layers', 'registry', 'errors'},
    'datasets': {'scenes', 'registry', 'errors'},
    'engine': {'registry', 'errors'},
    'evaluation': {'registry', 'errors'},
    'visualization': {'registry', 'errors'},
}
ALLOWED['apis'] = set(ALLOWED) - {'__init__'}
# What an area may not import, wherever in its modules.
FORBIDDEN = {
    'layers': {'mmengine', 'mmcv', 'mmseg', 'mmpretrain', 'timm', 'transformers'},
    'scenes': {'torch', 'mmengine', 'mmcv', 'mmseg', 'mmpretrain', 'timm'},
}
# What no module may import at its top, so that the import of segmentation does without; and who is exempt.
KERNELS = {'mmseg_beit.models.layers.triton_labels', 'mmseg_beit.models.losses.triton_cross_entropy'}
NOT_AT_TOP = {'mmpretrain', 'timm', 'transformers', 'mmcv.ops', 'triton'} | KERNELS
EXEMPT = ('models/pretraining/', 'models/classifiers/', *(f'{name[11:].replace(".", "/")}.py' for name in KERNELS))


def area_of(parts):
    """('models', 'layers', 'block') -> 'layers'; () -> '__init__'."""
    if parts[:2] == ('models', 'layers'):
        return 'layers'
    return parts[0] if parts else '__init__'


def imported_modules(source, module, is_package):
    """Yields (absolute dotted name, whether at the top level of the module) of every import in a source text.

    `from a.b import c` yields `a.b.c`, as c may be a module.
    """
    tree = ast.parse(source)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        at_top = id(node) not in inside
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split('.')
            base = base[: len(base) - node.level + is_package] if node.level else []
            origin = '.'.join([*base, *([node.module] if node.module else [])])
            yield from ((f'{origin}.{alias.name}', at_top) for alias in node.names)


def all_imports():
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(PROJECT).with_suffix('').parts
        is_package = parts[-1] == '__init__'
        module = '.'.join(parts[:-1] if is_package else parts)
        for name, at_top in imported_modules(path.read_text(), module, is_package):
            yield path.relative_to(PACKAGE), module, name, at_top


def is_under(name, packages):
    return any(name == package or name.startswith(f'{package}.') for package in packages)


def test_relative_and_absolute_imports_are_resolved():
    source = 'import a.b\nfrom . import c\nfrom ..d import e\ndef f():\n    from g import h\n'
    assert list(imported_modules(source, 'p.q.r', is_package=False)) == [
        ('a.b', True),
        ('p.q.c', True),
        ('p.d.e', True),
        ('g.h', False),
    ]
    assert list(imported_modules('from .x import y', 'p.q', is_package=True)) == [('p.q.x.y', True)]


def test_imports_point_one_way():
    violations = []
    for path, module, name, _ in all_imports():
        if not is_under(name, {'mmseg_beit'}):
            continue
        source = area_of(tuple(module.split('.')[1:]))
        target = area_of(tuple(name.split('.')[1:]))
        assert source in ALLOWED, f'{path}: say in this test what the new area {source} may import'
        if target != source and target in ALLOWED and target not in ALLOWED[source]:
            violations.append(f'{path} imports {name}: {source} may import {sorted(ALLOWED[source])}')
    assert not violations, '\n'.join(violations)


def test_layers_and_renderer_stand_on_their_own():
    violations = [
        f'{path} imports {name}'
        for path, module, name, _ in all_imports()
        if is_under(name, FORBIDDEN.get(area_of(tuple(module.split('.')[1:])), ()))
    ]
    assert not violations, '\n'.join(violations)


def test_heavy_packages_are_imported_where_they_are_used():
    violations = [
        f'{path} imports {name} at its top'
        for path, _, name, at_top in all_imports()
        if at_top and is_under(name, NOT_AT_TOP) and not path.as_posix().startswith(EXEMPT)
    ]
    assert not violations, '\n'.join(violations)


def run_python(code, *options):
    return subprocess.run(
        [sys.executable, *options, '-c', code], capture_output=True, text=True, cwd=PROJECT, timeout=120, check=True
    )


def test_importing_the_package_is_light():
    heavy = run_python(
        'import sys, mmseg_beit\n'
        'print([name for name in ("numpy", "torch", "mmengine", "mmcv", "mmseg") if name in sys.modules])'
    )
    assert heavy.stdout.strip() == '[]'


SEGMENTATION = """
import sys
from mmseg_beit.registry import DATASETS, MODELS, METRICS, TRANSFORMS
from mmengine.registry import init_default_scope
init_default_scope('mmseg_beit')
for registry, names in ((MODELS, ['BEiT', 'UPerHead']), (DATASETS, ['ADE20KDataset']),
                        (TRANSFORMS, ['LoadAnnotations']), (METRICS, ['IoUMetric'])):
    assert all(registry.get(name) for name in names), names
import mmseg.apis, mmengine.runner
print([name for name in ('mmpretrain', 'timm', 'mmcv.ops') if name in sys.modules])
"""


def test_segmentation_is_quiet_and_imports_neither_mmpretrain_nor_timm():
    done = run_python(SEGMENTATION)
    assert done.stdout.strip() == '[]'  # nothing else is printed either
    assert done.stderr == ''


def test_chatter_is_silenced_in_pretraining_imports():
    done = run_python('import mmseg_beit, mmseg.models, mmpretrain.datasets')
    assert (done.stdout, done.stderr) == ('', '')


def test_other_messages_come_through():
    done = run_python(
        'from mmseg_beit._quiet import quiet_imports\n'
        'from mmengine.logging import print_log\n'
        'import warnings\n'
        'with quiet_imports(), quiet_imports():\n'
        '    print_log("Could not import OneDL")\n'
        '    print_log("told")\n'
        '    warnings.warn("warned")\n'
        'print_log("Could not import OneDL")\n'
    )
    assert done.stdout.split('\n') == ['told', 'Could not import OneDL', '']
    assert 'UserWarning: warned' in done.stderr


def test_timm_is_imported_when_mmseg_uses_it():
    pytest.importorskip('timm')
    done = run_python(
        'import sys, mmseg_beit, mmseg.models\n'
        'assert "timm" not in sys.modules\n'
        'from mmseg.models.backbones import timm_backbone\n'
        'print(timm_backbone.timm.create_model.__module__, "timm" in sys.modules)'
    )
    assert done.stdout.split()[-1] == 'True'
    assert done.stdout.startswith('timm.')


@pytest.mark.parametrize('tool', sorted((PROJECT / 'tools').glob('[!_]*.py')), ids=lambda path: path.name)
def test_a_tool_tells_its_usage_without_chatter(tool):
    done = subprocess.run([sys.executable, tool, '--help'], capture_output=True, text=True, cwd=PROJECT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: ')
    assert done.stderr == ''
