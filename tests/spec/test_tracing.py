"""Gradients, vmap, jit and torch.compile: the reference and the backends are ordinary array code.

Each test runs over the three functions that rotate: the reference, its complex form, the backend.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import select
from tests import oracle

SPEC = rs.RotarySpec(
    8,
    layout="half",
    output_layout="interleaved",
    rotary_dim=6,
    rotary_start=1,
    attention_factor=1.3,
)
POSITIONS = np.asarray([[0, 5, 1000], [7, -3, 131_071]])
X = np.random.default_rng(0).normal(size=(2, 3, 8))
SEED = np.random.default_rng(1).normal(size=(2, 3, 8))

# array_api_compat caches its type checks; Dynamo notes that it traces through the cache.
traces_through_compat = pytest.mark.filterwarnings(
    r"ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function at "
    r"'_helpers.py:UserWarning"
)


def close(y: Any, exact: Any, spec: rs.RotarySpec, dtype: str, x: Any = X) -> bool:
    bound = oracle.tolerance(x, POSITIONS, spec, dtype, dtype)
    return bool(np.all(np.abs(np.asarray(y, dtype=np.float64) - exact) <= bound))


@pytest.fixture(params=["reference", "complex", "backend"])
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture
def jax() -> Any:
    return pytest.importorskip("jax")


def rotation(form: str, framework: str) -> Callable[..., Any]:
    forms = {"reference": rs.rotate, "complex": rs.rotate_complex}
    return forms[form] if form in forms else select(framework).rotate


class TestTorch:
    def test_gradcheck(self, torch: Any, form: str) -> None:
        x = torch.tensor(X, requires_grad=True)
        ids = torch.tensor(POSITIONS)
        rotate = rotation(form, "torch")
        assert torch.autograd.gradcheck(lambda x: rotate(x, ids, SPEC), x)
        assert torch.autograd.gradgradcheck(lambda x: rotate(x, ids, SPEC), x)

    def test_gradient_is_the_transposed_rotation(self, torch: Any, form: str) -> None:
        x = torch.tensor(X, requires_grad=True)
        y = rotation(form, "torch")(x, torch.tensor(POSITIONS), SPEC)
        (gradient,) = torch.autograd.grad(y, x, torch.tensor(SEED))
        transposed = SPEC.transposed()
        exact = oracle.rotate(SEED, POSITIONS, transposed)
        assert close(gradient, exact, transposed, "float64", x=SEED)

    def test_vmap(self, torch: Any, form: str) -> None:
        """Over x and positions together: positions are traced, and never read."""
        rotate = rotation(form, "torch")
        batched = torch.func.vmap(lambda x, m: rotate(x, m, SPEC))
        y = batched(torch.tensor(X), torch.tensor(POSITIONS))
        assert close(y, oracle.rotate(X, POSITIONS, SPEC), SPEC, "float64")

    def test_jacobian_is_the_matrix(self, torch: Any, form: str) -> None:
        rotate = rotation(form, "torch")
        ids = torch.tensor(5)
        jacobian = torch.func.jacrev(lambda x: rotate(x, ids, SPEC))(torch.tensor(X[0, 0]))
        matrix = rs.rotation_matrix(ids, SPEC, dtype=torch.float64)
        assert torch.allclose(jacobian, matrix, rtol=0, atol=1e-15)

    @traces_through_compat
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_compile_traces_one_graph(self, torch: Any, form: str, dtype: str) -> None:
        """No graph break, and no second compilation for other values of the positions."""
        torch._dynamo.reset()
        rotate = rotation(form, "torch")
        graphs = []

        def count(graph: Any, example_inputs: Any) -> Any:
            graphs.append(graph)
            return graph.forward

        compiled = torch.compile(lambda x, m: rotate(x, m, SPEC), fullgraph=True, backend=count)
        x = torch.tensor(X, dtype=getattr(torch, dtype))
        for ids in (torch.tensor(POSITIONS), torch.tensor(POSITIONS) + 9):
            assert torch.equal(compiled(x, ids), rotate(x, ids, SPEC))
        assert len(graphs) == 1

    @traces_through_compat
    @pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
    @pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")
    @pytest.mark.parametrize("form", ["reference", "backend"])
    def test_compile_with_inductor(self, torch: Any, form: str) -> None:
        """Generated code may fuse and reorder, within the bound; the gradient goes through it."""
        torch._dynamo.reset()
        rotate = rotation(form, "torch")
        compiled = torch.compile(lambda x, m: rotate(x, m, SPEC), fullgraph=True)
        x = torch.tensor(X, dtype=torch.float32, requires_grad=True)
        y = compiled(x, torch.tensor(POSITIONS))
        host = x.detach().double().numpy()
        assert close(y.detach(), oracle.rotate(host, POSITIONS, SPEC), SPEC, "float32", x=host)
        seed = torch.tensor(SEED, dtype=torch.float32)
        (gradient,) = torch.autograd.grad(y, x, seed)
        transposed, g = SPEC.transposed(), seed.double().numpy()
        exact = oracle.rotate(g, POSITIONS, transposed)
        assert close(gradient, exact, transposed, "float32", x=g)


@pytest.fixture(params=["float32", "float64"])
def precision(request: pytest.FixtureRequest, jax: Any) -> Iterator[str]:
    """JAX as it comes, and with 64-bit types switched on."""
    with jax.enable_x64(True) if request.param == "float64" else nullcontext():
        yield request.param


class TestJax:
    @staticmethod
    def arrays(jax: Any, precision: str) -> tuple[Any, Any, Any]:
        jnp = jax.numpy
        return jnp.asarray(X, precision), jnp.asarray(POSITIONS), jnp.asarray(SEED, precision)

    def test_gradient_is_the_transposed_rotation(self, jax: Any, form: str, precision: str) -> None:
        x, ids, seed = self.arrays(jax, precision)
        rotate = rotation(form, "jax")
        gradient = jax.jit(jax.grad(lambda x: (rotate(x, ids, SPEC) * seed).sum()))(x)
        host, transposed = np.asarray(seed, dtype=np.float64), SPEC.transposed()
        exact = oracle.rotate(host, POSITIONS, transposed)
        assert close(gradient, exact, transposed, precision, x=host)

    @pytest.mark.parametrize("transform", ["jit", "jit of vmap"])
    def test_traced_positions(self, jax: Any, form: str, precision: str, transform: str) -> None:
        x, ids, _ = self.arrays(jax, precision)
        rotate = rotation(form, "jax")

        def function(x: Any, m: Any) -> Any:
            return rotate(x, m, SPEC)

        for name in reversed(transform.split(" of ")):
            function = getattr(jax, name)(function)
        host = np.asarray(x, dtype=np.float64)
        exact = oracle.rotate(host, POSITIONS, SPEC)
        y = function(x, ids)
        assert y.dtype == precision
        assert close(y, exact, SPEC, precision, x=host)

    def test_phases_do_not_depend_on_jit(self, jax: Any, precision: str) -> None:
        """The same 64 bits, with and without jit and x64."""
        jnp = jax.numpy
        turns = rs.turns(SPEC)
        here = rs.phases(POSITIONS, turns, np)
        traced = jax.jit(lambda m: rs.phases(m, turns, jnp))(jnp.asarray(POSITIONS))
        for mine, theirs in zip(here, traced):
            assert np.array_equal(mine, np.asarray(theirs))
