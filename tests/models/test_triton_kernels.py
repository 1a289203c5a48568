"""Our Triton kernels without a GPU: their results by Triton's interpreter, and that they build for GPUs.

On a GPU they run in ``tests/test_gpu.py``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmseg_beit.models.layers import triton_support

triton = pytest.importorskip('triton')

POINTERS = dict(
    logits='*{dtype}', grad='*{dtype}', labels='*i64', grad_loss='*fp32', class_weight='*fp32', losses='*fp32',
    hits='*i32', logsumexp='*fp32', windows='*fp32', row_of='*i32', col_of='*i32',
)  # fmt: skip
for axis in ('rows', 'cols'):
    POINTERS |= {f'{axis}_{name}': '*i32' for name in ('left', 'first', 'end')}
    POINTERS |= {f'{axis}_{name}': '*fp32' for name in ('fraction', 'weight')}


@pytest.mark.parametrize('which', ['not slow', pytest.param('slow', marks=pytest.mark.slow)])
def test_results_in_the_interpreter(which):
    path = Path(__file__).with_name('interpreted_kernels.py')
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-o', 'addopts=--import-mode=importlib', '-m', which, str(path)],
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
    )
    # Triton 3.6 interprets a loop's bounds by a conversion that NumPy 2.5 has dropped; kernels that are built are well.
    if "InterpreterError: TypeError('only 0-dimensional arrays can be converted" in done.stdout:
        pytest.skip("this Triton's interpreter does not work with this NumPy")
    assert done.returncode == 0, done.stdout[-5000:]
    assert ' passed' in done.stdout


@pytest.mark.parametrize(
    ('dtype', 'capability'),
    [
        ('bf16', 90),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [('fp16', 80), ('fp32', 80), ('fp32', 90)]),
    ],
)
@pytest.mark.parametrize('name', ['forward_kernel', 'backward_kernel', 'labels_kernel'])
def test_builds_for_gpus(name, dtype, capability, tmp_path, monkeypatch):
    """Down to machine code, with Triton's own assembler; few enough registers to spill none."""
    compiler = pytest.importorskip('triton.compiler')
    backends = pytest.importorskip('triton.backends.compiler')
    if not (hasattr(compiler, 'ASTSource') and hasattr(backends, 'GPUTarget')):
        pytest.skip('this Triton has no ASTSource or GPUTarget to build for a GPU that is not there')
    if name == 'labels_kernel':
        if dtype != 'bf16' and (dtype, capability) != ('fp32', 80):
            pytest.skip('its logits are float32 always')
        from mmseg_beit.models.layers import triton_labels as module

        sizes = dict(ROW_READS=2, COL_READS=2, PIXELS=module._PIXELS, CLASSES=module._CLASSES)
    else:
        from mmseg_beit.models.losses import triton_cross_entropy as module

        forward = name == 'forward_kernel'
        block = module._FORWARD_BLOCK if forward else module._BACKWARD_BLOCK
        sizes = {'HAS_WEIGHT': True, 'PIXELS' if forward else 'LOGITS': block[0], 'CLASSES': block[1]}
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    kernel = getattr(module, name)
    signature = {arg: POINTERS.get(arg, 'i32').format(dtype=dtype) for arg in kernel.arg_names}
    source = compiler.ASTSource(kernel, signature | dict.fromkeys(sizes, 'constexpr'), constexprs=sizes)
    built = triton.compile(source, target=backends.GPUTarget('cuda', capability, 32))
    assert f'.target sm_{capability}' in built.asm['ptx']
    assert built.asm['cubin'][:4] == b'\x7fELF'
    tool = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin' / 'cuobjdump'
    if tool.is_file():
        (tmp_path / 'kernel.cubin').write_bytes(built.asm['cubin'])
        usage = subprocess.run(
            [tool, '-res-usage', tmp_path / 'kernel.cubin'], capture_output=True, text=True, check=True
        ).stdout
        # What does not fit into registers goes onto the stack.
        assert ' STACK:0 ' in usage, usage


def test_where_triton_does_not_work_a_warning_says_so_once_and_graphs_take_it_as_a_constant(caplog):
    if torch.cuda.is_available():
        pytest.skip('says what happens without a GPU')
    triton_support._has_worked_on.cache_clear()

    def function(x):
        return x + 1 if triton_support._works_on(0) else x - 1

    compiled = torch.compile(function, backend='eager', fullgraph=True)
    assert compiled(torch.zeros(1)) == function(torch.zeros(1)) == -1
    (record,) = [record for record in caplog.records if record.name == 'mmseg_beit']
    assert record.getMessage().startswith('Triton does not work on GPU 0, plain torch operators serve instead: ')
