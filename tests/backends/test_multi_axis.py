"""Multi-axis positions in every backend and dtype, traced too, against the paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import Backend, select
from tests import oracle
from tests.backends.test_rotate import assert_rotated, dtype, features  # noqa: F401

SPEC = rs.RotarySpec(12, layout="half", rotary_dim=8, sections=(1, 1, 2))
SPECS = {
    "chunked": SPEC,
    "interleaved": replace(SPEC, sections=rs.Sections((2, 1, 1), order="interleaved")),
    "restart-within": replace(
        SPEC, sections=rs.Sections((1, 1, 2), frequencies="restart", pairing="within")
    ),
    "crossed": replace(SPEC, output_layout="interleaved", attention_factor=0.5),
}
PLACES = np.asarray([[0, 1, 7, 90], [0, 5, -3, 131_000], [2, 4, 6, 8]])
COORDINATES = np.asarray([[-0.5, 0.25, 7.0, 90.125], [0, 5, -3, 511.5], [0.1, 0.2, 0.3, 0.4]])


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_rotation(backend: Backend, dtype: str, spec: rs.RotarySpec) -> None:  # noqa: F811
    x = features(backend, dtype, (2, 4, 12))
    y = backend.rotate(x, backend.framework.asarray(PLACES, "int64"), spec)
    assert_rotated(backend, y, x, PLACES, spec)


@pytest.mark.parametrize("given", ["float32", "float64"])
def test_coordinates(backend: Backend, given: str) -> None:
    """NumPy's and the framework's own; never rounded without a word."""
    x, coordinates = features(backend, "float32", (4, 12)), COORDINATES.astype(given)
    if given not in backend.framework.supported_dtypes():
        with pytest.raises(rs.PositionError, match="would be rounded to float32"):
            backend.rotate(x, coordinates, SPEC)
        return
    y = backend.rotate(x, coordinates, SPEC)
    host = backend.framework.to_numpy(x)
    exact = oracle.rotate(host, coordinates, SPEC)
    # Without float64, fractions are held to 2^-31 turn at one radian per unit.
    fraction = 2.0**-31 * oracle.weights(host, SPEC)
    bound = oracle.tolerance(host, coordinates, SPEC, "float32", "float32") + fraction
    assert np.all(np.abs(backend.framework.to_numpy(y) - exact) <= bound)
    native = backend.rotate(x, backend.framework.asarray(coordinates, given), SPEC)
    np.testing.assert_array_equal(*map(backend.framework.to_numpy, (y, native)))


def test_refused(backend: Backend) -> None:
    x = features(backend, "float32", (4, 12))
    with pytest.raises(rs.PositionError, match=r"\(axes, ...\) with 3 axes"):
        backend.rotate(x, np.arange(4), SPEC)
    with pytest.raises(rs.PositionError, match="must be integers, got float32"):
        backend.rotate(x, np.zeros(4, np.float32), rs.RotarySpec(12))


def test_gradient(backend: Backend) -> None:
    """The backward pass is the rotation by the transposed spec."""
    g = features(backend, "float32", (4, 12), seed=3)
    back = backend.framework.to_numpy(backend.rotate_back(g, PLACES, SPECS["crossed"]))
    matrix = oracle.rotation_matrix(PLACES, SPECS["crossed"])
    host = backend.framework.to_numpy(g)
    np.testing.assert_allclose(back, np.einsum("sij,si->sj", matrix, host), atol=4e-6)


def test_traced() -> None:
    """Under torch.compile and jax.jit with traced places: what eager calls give."""
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    x = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)

    def call(backend: Backend) -> Any:
        return lambda x, m: backend.rotate(x, m, SPECS["interleaved"])

    expected = rs.rotate(x, PLACES, SPECS["interleaved"])
    compiled = torch.compile(call(select("torch")), fullgraph=True, backend="eager")
    np.testing.assert_allclose(
        compiled(torch.asarray(x), torch.asarray(PLACES)), expected, atol=1e-6
    )
    jitted = jax.jit(call(select("jax")))
    np.testing.assert_allclose(jitted(x, PLACES.astype(np.int32)), expected, atol=1e-6)
