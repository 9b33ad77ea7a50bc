"""The three forms against their equations, written out sample by sample and head by head."""

from itertools import product
from typing import Any

import pytest
import torch
from helpers import normal
from torch import Tensor
from torch.nn import functional as F

from agent_attention.compute.guard import using
from agent_attention.mixers.grids import GridRule
from agent_attention.swap import Agent, Nystrom, PooledKeys
from agent_attention.swap.landmarks import grid_on, key_map

SIZE, EXTRA, HEADS, D = (6, 9), 2, 3, 8
REDUCED = (3, 4)  # of SIZE by 2
FORMS = [Agent((2, 3)), Nystrom((2, 3), rcond=1e-12, limit=1e9), PooledKeys((2, 3))]


def projected(extra: int = EXTRA, keys: tuple[int, int] = SIZE) -> list[Tensor]:
    """Queries, keys and values (2, h, T, d) in float64."""
    counts = [SIZE[0] * SIZE[1], *(2 * [keys[0] * keys[1]])]
    shapes = [(2, HEADS, extra + count, D) for count in counts]
    return [normal(i, shape).double() for i, shape in enumerate(shapes)]


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, weights: Any = 1.0) -> Tensor:
    """Of one head: (T, d); each key counts ``weights`` times."""
    exp = (q @ k.T / D**0.5).exp() * weights
    return exp / exp.sum(1, keepdim=True) @ v


def cell_means(x: Tensor, size: tuple[int, int], grid: tuple[int, int], extra: int) -> Any:
    """Landmarks of one head, and how many tokens each stands for, cell by cell."""
    on_map, means, counts = x[extra:].reshape(*size, -1), [*x[:extra]], [1] * extra
    for i, j in product(range(grid[0]), range(grid[1])):
        rows, columns = (
            slice(at * side // cells, -(-(at + 1) * side // cells))
            for at, side, cells in ((i, size[0], grid[0]), (j, size[1], grid[1]))
        )
        cell = on_map[rows, columns].flatten(0, 1)
        means.append(cell.mean(0))
        counts.append(len(cell))
    return torch.stack(means), torch.tensor(counts, dtype=x.dtype)


def written_out(form: Any, q: Tensor, k: Tensor, v: Tensor, keys: Any, extra: int) -> Tensor:
    """The equation of one head."""
    a, _ = cell_means(q, SIZE, form.grid, extra)
    k_pool, counts = cell_means(k, keys, form.grid, extra)
    if isinstance(form, PooledKeys):
        return softmax_attention(q, k_pool, cell_means(v, keys, form.grid, extra)[0], counts)
    v_a = softmax_attention(a, k, v)
    if isinstance(form, Nystrom):
        middle = (a @ k_pool.T / D**0.5).softmax(1)
        return (q @ k_pool.T / D**0.5).softmax(1) @ torch.linalg.pinv(middle) @ v_a
    places = torch.arange(SIZE[0] * SIZE[1]).reshape(SIZE)
    ratio = SIZE[0] // keys[0]
    near = [
        min(i * keys[0] // SIZE[0], keys[0] - 1) * keys[1]
        + min(j * keys[1] // SIZE[1], keys[1] - 1)
        for i, j in product(range(SIZE[0]), range(SIZE[1]))
    ]
    assert ratio > 1 or near == places.flatten().tolist()
    at_query = torch.cat([v[:extra], v[extra:][near]])
    scores = q @ a.T * D ** (-form.scale2 / 2)
    return scores.softmax(1) @ v_a + form.shortcut * at_query


@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
@pytest.mark.parametrize(("extra", "keys"), [(0, SIZE), (EXTRA, SIZE), (0, REDUCED)])
def test_forms_are_their_equations(form: Any, extra: int, keys: tuple[int, int]) -> None:
    q, k, v = projected(extra, keys)
    found = form(q, k, v, SIZE, extra)
    for b, h in product(range(2), range(HEADS)):
        wanted = written_out(form, q[b, h], k[b, h], v[b, h], keys, extra)
        torch.testing.assert_close(found[b, h], wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_fused_kernels_are_the_definition(form: Any) -> None:
    grads = []
    for way in ("plain", None):
        q, k, v = (x.requires_grad_() for x in projected())
        with using(way=way):
            out = form(q, k, v, SIZE, EXTRA)
        out.square().sum().backward()
        grads.append([out, q.grad, k.grad, v.grad])
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("extra", [0, EXTRA])
@pytest.mark.parametrize("keys", [SIZE, REDUCED])
def test_the_whole_map_as_grid_is_softmax(extra: int, keys: tuple[int, int]) -> None:
    if extra and keys != SIZE:
        return  # no model has both
    q, k, v = projected(extra, keys)
    wanted = F.scaled_dot_product_attention(q, k, v)
    for form in (PooledKeys(lambda size: size), Nystrom(lambda size: size)):
        for dtype, off in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            found = form(*(x.to(dtype) for x in (q, k, v)), SIZE, extra)  # type: ignore[operator]
            torch.testing.assert_close(found.double(), wanted, rtol=0, atol=off)


def test_of_equal_tokens_the_shortcut_alone_remains() -> None:
    q, k, v = (x[:, :, :1].expand(-1, -1, SIZE[0] * SIZE[1], -1) for x in projected())
    torch.testing.assert_close(Agent((2, 2))(q, k, v, SIZE), 1.075 * v)
    for form in (Agent((2, 2), shortcut=0), Nystrom((2, 2)), PooledKeys((4, 4))):
        torch.testing.assert_close(form(q, k, v, SIZE), v)  # type: ignore[operator]


def test_an_inverse_that_blows_up_is_given_up_by_head() -> None:
    cells = [normal(i, (2, HEADS * D, 2, 3)).double() for i in range(2)]
    of_cells = [F.interpolate(3 * x, SIZE).flatten(2).unflatten(1, (HEADS, D)).mT for x in cells]
    random = projected(0)
    q, k = of_cells  # exact where tokens of a cell are alike
    q[0, 1], k[0, 1] = 3 * random[0][0, 1], 3 * random[1][0, 1]
    found = Nystrom((2, 3), rcond=1e-12)(q, k, random[2], SIZE)
    exact = F.scaled_dot_product_attention(q, k, random[2])
    agent = Agent((2, 3), shortcut=0)(q, k, random[2], SIZE)
    torch.testing.assert_close(found[1], exact[1])
    torch.testing.assert_close(found[0, 1], agent[0, 1])
    free = Nystrom((2, 3), rcond=1e-12, limit=1e30)(q, k, random[2], SIZE)
    assert (free[0, 1] - exact[0, 1]).abs().max() > 2 * random[2].abs().max()


def test_grids() -> None:
    assert grid_on((12, 12), (6, 40)) == (6, 12)  # no more landmarks than tokens along a side
    assert grid_on(16, (8, 32)) == (2, 8)
    assert grid_on(GridRule(aspect=True, within=True, agents=100), (50, 50)) == (10, 10)
    assert grid_on(lambda size: (size[0] // 2, 3), (8, 8)) == (4, 3)
    for wrong in ((0, 3), (1, 2, 3), "12", None):
        with pytest.raises(ValueError, match="a grid is a pair"):
            grid_on(wrong, (8, 8))  # type: ignore[arg-type]
    assert key_map((7, 9), 12) == (3, 4) and key_map((7, 9), 63) == (7, 9)
    assert key_map((7, 9), 11) is None
    with pytest.raises(ValueError, match="11 keys are no map of 6x9"):
        PooledKeys()(*projected(0)[:1], *(2 * [projected(0)[1][:, :, :11]]), SIZE)


def test_what_pays() -> None:
    assert Agent().pays(4096, 4096, 144) and not Agent().pays(4096, 256, 256)
    assert Agent().pays(4096, 256, 144) and not Nystrom().pays(200, 200, 100)
    assert PooledKeys().pays(200, 200, 144) and not PooledKeys().pays(4096, 144, 144)
