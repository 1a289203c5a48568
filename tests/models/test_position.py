"""Position tables: resizing against SciPy's spline, and the bias against an explicit index."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from mmseg_beit.checkpoint import convert_state_dict
from mmseg_beit.models.backbones import BEiT
from mmseg_beit.models.layers import (
    num_relative_positions,
    relative_position_bias,
    resize_absolute_position,
    resize_relative_position_table,
    square_grid,
)


def indexed_bias(table: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """The definition, pair by pair: row (dy + h - 1)(2w - 1) + dx + w - 1 for query minus key, then three more."""
    rows = table.shape[0]
    index = np.empty((1 + h * w, 1 + h * w), dtype=int)
    for q in range(h * w):
        for k in range(h * w):
            dy, dx = q // w - k // w, q % w - k % w
            index[1 + q, 1 + k] = (dy + h - 1) * (2 * w - 1) + dx + w - 1
    index[0, :], index[:, 0], index[0, 0] = rows - 3, rows - 2, rows - 1
    return table[torch.from_numpy(index)].permute(2, 0, 1)


@pytest.mark.parametrize('grid', [(4, 4), (3, 5), (5, 2), (1, 4), (1, 1)])
def test_bias_equals_its_definition(grid):
    table = torch.randn(num_relative_positions(grid), 3)
    torch.testing.assert_close(relative_position_bias(table, grid), indexed_bias(table, *grid), rtol=0, atol=0)


@pytest.mark.parametrize('grid', [(3, 3), (2, 4), (4, 1)])
def test_bias_gradient(grid):
    table = torch.randn(num_relative_positions(grid), 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda t: relative_position_bias(t, grid), (table,))


def test_bias_gradient_equals_the_gathers_for_a_real_grid():
    table = torch.randn(num_relative_positions((14, 10)), 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 141, 141, dtype=torch.float64)
    (expected,) = torch.autograd.grad((indexed_bias(table, 14, 10) * weight).sum(), table)
    (actual,) = torch.autograd.grad((relative_position_bias(table, (14, 10)) * weight).sum(), table)
    torch.testing.assert_close(actual, expected)


def official_resize(table: np.ndarray, src: int, dst: int) -> np.ndarray:
    """The official square resizing with SciPy's bicubic spline in place of ``interp2d``, which was the same spline."""
    interpolate = pytest.importorskip('scipy.interpolate')
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q ** (src - 1)) / (1 - q) > dst - 1:
            high = q
        else:
            low = q
    reach = [sum(q**j for j in range(i + 1)) for i in range(src - 1)]
    nodes = np.array([-r for r in reversed(reach)] + [0.0] + reach)
    queries = np.clip(np.arange(-(dst - 1), dst, dtype=float), nodes[0], nodes[-1])
    spline = interpolate.RectBivariateSpline(nodes, nodes, table, s=0)
    return spline(queries, queries)


@pytest.mark.parity
@pytest.mark.parametrize(('src', 'dst'), [(14, 32), (14, 40), (24, 40), (4, 8), (32, 14), (16, 15), (3, 7)])
def test_resized_table_equals_the_official_one(src, dst):
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=(2 * src - 1, 2 * src - 1))
    cls_rows = rng.normal(size=(3, 1))
    table = torch.from_numpy(np.concatenate([offsets.reshape(-1, 1), cls_rows])).float()
    resized = resize_relative_position_table(table, (src, src), (dst, dst))
    expected = official_resize(offsets, src, dst)
    np.testing.assert_allclose(resized[:-3, 0].view(2 * dst - 1, -1).numpy(), expected, atol=1e-4)
    torch.testing.assert_close(resized[-3:], table[-3:])


def test_axes_resize_independently():
    """A separable table resized to a non-square grid is the outer product of its resized axes."""
    y, x = torch.randn(7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    cls_rows = torch.zeros(3, 1, dtype=torch.float64)

    def resized(values: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        table = torch.cat([values.reshape(-1, 1), cls_rows])
        return resize_relative_position_table(table, (4, 4), grid)[:-3, 0].view(2 * grid[0] - 1, -1)

    along_y = resized(y[:, None].expand(7, 7), (6, 6))[:, 0]
    along_x = resized(x[None].expand(7, 7), (9, 9))[0]
    torch.testing.assert_close(resized(y[:, None] * x, (6, 9)), along_y[:, None] * along_x)


@pytest.mark.parametrize(('src', 'dst'), [((1, 1), (3, 2)), ((2, 2), (4, 4)), ((2, 5), (5, 2)), ((3, 3), (1, 1))])
def test_constant_table_stays_constant_on_tiny_grids(src, dst):
    table = torch.full((num_relative_positions(src), 2), 0.7)
    expected = torch.full((num_relative_positions(dst), 2), 0.7)
    torch.testing.assert_close(resize_relative_position_table(table, src, dst), expected)


def test_resizing_is_differentiable():
    table = torch.randn(num_relative_positions((3, 3)), 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda t: resize_relative_position_table(t, (3, 3), (4, 2)), (table,))


def test_table_of_another_grid_is_refused():
    table = torch.zeros(num_relative_positions((4, 4)), 2)
    with pytest.raises(ValueError, match=r'52 rows does not fit the grid \(4, 5\), which needs 66'):
        resize_relative_position_table(table, (4, 5), (3, 3))
    with pytest.raises(ValueError, match='does not fit'):
        relative_position_bias(table, (4, 5))


def test_square_grid_of_a_table():
    assert square_grid(732) == (14, 14)
    assert square_grid(num_relative_positions((32, 32))) == (32, 32)
    assert square_grid(num_relative_positions((3, 5))) is None


def test_absolute_embeddings_resize_bicubically_and_keep_the_class_token():
    pos_embed = torch.randn(1, 1 + 4 * 6, 5)
    resized = resize_absolute_position(pos_embed, (4, 6), (7, 3))
    maps = pos_embed[:, 1:].transpose(1, 2).reshape(1, 5, 4, 6)
    expected = torch.nn.functional.interpolate(maps, size=(7, 3), mode='bicubic', align_corners=False)
    torch.testing.assert_close(resized[:, :1], pos_embed[:, :1])
    torch.testing.assert_close(resized[:, 1:], expected.flatten(2).transpose(1, 2))
    assert resize_absolute_position(pos_embed, (4, 6), (4, 6)) is pos_embed
    with pytest.raises(ValueError, match='do not fit the grid'):
        resize_absolute_position(pos_embed, (5, 5), (4, 4))


@pytest.mark.parametrize('mode', ['bicubic', 'bilinear'])
def test_backbone_resizes_absolute_embeddings_as_it_is_told_in_loading_and_running(mode):
    small = dict(patch_size=8, embed_dims=32, num_layers=1, num_heads=2, use_abs_pos=True, rel_pos='none')
    model = BEiT(img_size=(32, 48), interpolate_mode=mode, **small).eval()
    torch.nn.init.normal_(model.pos_embed)
    maps = model.pos_embed[:, 1:].transpose(1, 2).reshape(1, 32, 4, 6)
    expected = torch.nn.functional.interpolate(maps, size=(7, 3), mode=mode, align_corners=False).flatten(2)
    loaded = BEiT(img_size=(56, 24), interpolate_mode=mode, **small).eval()
    state_dict, _ = convert_state_dict(model.state_dict(), loaded, source_grid=(4, 6))
    loaded.load_state_dict(state_dict)
    torch.testing.assert_close(loaded.pos_embed[:, 1:].transpose(1, 2), expected)
    img = torch.randn(1, 3, 56, 24)
    torch.testing.assert_close(model(img)[0], loaded(img)[0])
