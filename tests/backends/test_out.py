"""``out=``: results go where they are asked for, in place too, never over what is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import Backend, select
from tests.backends.test_rotate import (  # noqa: F401
    POSITIONS,
    SPECS,
    assert_rotated,
    dtype,
    features,
    ids,
)


@pytest.fixture
def writable(backend: Backend) -> Backend:
    if not backend.framework.mutable:
        pytest.skip(f"{backend.name} arrays never change; see test_arrays_that_never_change")
    return backend


def equal(backend: Backend, x: Any, y: Any) -> bool:
    return np.array_equal(backend.framework.to_numpy(x), backend.framework.to_numpy(y))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_memory_of_its_own(writable: Backend, dtype: str, spec: rs.RotarySpec) -> None:  # noqa: F811
    x, out = (features(writable, dtype, (2, 3, 5, 8), seed=s) for s in (0, 1))
    before = writable.framework.to_numpy(x).copy()
    assert writable.rotate(x, ids(writable), spec, out=out) is out
    assert_rotated(writable, out, x, POSITIONS, spec)
    assert np.array_equal(writable.framework.to_numpy(x), before)
    assert writable.rotate_back(x, ids(writable), spec, out=out) is out
    assert_rotated(writable, out, x, POSITIONS, spec.transposed())


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_in_place(writable: Backend, dtype: str, spec: rs.RotarySpec) -> None:  # noqa: F811
    """The same bits as out of place: crossed layouts too, where a lane lands on another's place."""
    x = features(writable, dtype, (2, 3, 5, 8))
    wanted = writable.rotate(x, ids(writable), spec)
    assert writable.rotate(x, ids(writable), spec, out=x) is x
    assert equal(writable, x, wanted)


def test_several(writable: Backend) -> None:
    """As many as there are arrays; q and k of one packed memory in place, v untouched."""
    packed = features(writable, "float32", (2, 5, 3, 24))
    q, k, v = (packed[..., n : n + 8] for n in (0, 8, 16))
    before = writable.framework.to_numpy(v).copy()
    wanted = writable.rotate((q, k), ids(writable), SPECS["paper"], seq_axis=1)
    got = writable.rotate((q, k), ids(writable), SPECS["paper"], seq_axis=1, out=[q, k])
    assert got[0] is q
    assert got[1] is k
    assert equal(writable, q, wanted[0])
    assert equal(writable, k, wanted[1])
    assert np.array_equal(writable.framework.to_numpy(v), before)


def test_lanes_that_are_no_neighbours(writable: Backend, dtype: str) -> None:  # noqa: F811
    x, wide = features(writable, dtype, (3, 5, 8)), features(writable, dtype, (3, 5, 16))
    out = wide[..., ::2]
    writable.rotate(x, ids(writable), SPECS["half"], out=out)
    assert_rotated(writable, out, x, POSITIONS, SPECS["half"])


def test_refused(writable: Backend) -> None:
    """Before anything is written, with what was given and what was expected."""
    x = features(writable, "float32", (2, 5, 8))
    before = writable.framework.to_numpy(x).copy()
    whole = features(writable, "float32", (3, 5, 8))
    kind = "float64" if "float64" in writable.framework.supported_dtypes() else "float16"
    wrong: list[tuple[Any, Any, type[Exception], str]] = [
        (x, features(writable, "float32", (2, 5, 6)), rs.ShapeError, r"shape of x, \(2, 5, 8\)"),
        (x, features(writable, kind, (2, 5, 8)), rs.DtypeError, f"dtype of x.*{kind}"),
        (x, [1.0], rs.DtypeError, "one array, as x is; got list"),
        (x, 1.0, rs.DtypeError, "builtins.float"),
        ((x,), x, rs.DtypeError, "a tuple of arrays"),
        ((x, x), (whole[:2],), rs.ShapeError, "one array for each x, 2; got 1"),
        (whole[:2], whole[1:], rs.ShapeError, "shares memory with x"),
        ((x, x), (whole[:2], whole[1:]), rs.ShapeError, "must not share memory with each other"),
    ]  # fmt: skip
    for given, out, error, said in wrong:
        with pytest.raises(error, match=said):
            writable.rotate(given, ids(writable), SPECS["paper"], out=out)
    assert np.array_equal(writable.framework.to_numpy(x), before)


def test_numpy_memory_that_cannot_be_written() -> None:
    backend, x = select("numpy"), np.ones((2, 5, 8), dtype=np.float32)
    frozen = x.copy()
    frozen.flags.writeable = False
    with pytest.raises(rs.DtypeError, match="read-only"):
        backend.rotate(x, POSITIONS, SPECS["paper"], out=frozen)
    twice = np.lib.stride_tricks.as_strided(x.copy(), x.shape, (0, 32, 4))
    with pytest.raises(rs.ShapeError, match="an element twice"):
        backend.rotate(x, POSITIONS, SPECS["paper"], out=twice)


def test_arrays_that_never_change() -> None:
    jnp = pytest.importorskip("jax.numpy")
    x = jnp.ones((5, 8))
    with pytest.raises(rs.DtypeError, match="cannot write into out: jax arrays never change"):
        select("jax").rotate(x, POSITIONS, SPECS["paper"], out=x)


class TestTorch:
    def test_no_derivative_goes_through_it(self) -> None:
        torch = pytest.importorskip("torch")
        x = torch.ones(5, 8, requires_grad=True)
        backend = select("torch")
        with pytest.raises(rs.DtypeError, match="records no derivative"):
            backend.rotate(x, POSITIONS, SPECS["paper"], out=torch.empty(5, 8))
        with torch.no_grad():
            out = backend.rotate(x, POSITIONS, SPECS["paper"], out=torch.empty(5, 8))
        assert_rotated(backend, out, x.detach(), POSITIONS, SPECS["paper"])

    def test_a_graph_sees_that_what_it_saved_has_changed(self) -> None:
        torch = pytest.importorskip("torch")
        x, weight = torch.ones(5, 8), torch.ones(5, 8, requires_grad=True)
        product = (x * weight).sum()  # saves x for the gradient of weight
        select("torch").rotate(x, POSITIONS, SPECS["paper"], out=x)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.backward()

    def test_compiled(self) -> None:
        torch = pytest.importorskip("torch")
        backend, x, positions = select("torch"), torch.randn(5, 8), torch.from_numpy(POSITIONS)

        @torch.compile(backend="eager", fullgraph=True)  # type: ignore[untyped-decorator]
        def rotate(x: Any, out: Any) -> Any:
            return backend.rotate(x, positions, SPECS["paper"], out=out)

        out = torch.zeros(5, 8)
        rotate(x, out)
        assert_rotated(backend, out, x, POSITIONS, SPECS["paper"])
