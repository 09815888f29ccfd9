"""JAX arrays on the CPU kernel: which calls go there, and that they come back as JAX's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import select
from rotary_spec_backends.host.route import ENVIRONMENT
from tests import fresh
from tests.backends.test_rotate import assert_rotated

jax = pytest.importorskip("jax")
pytest.importorskip("numba")

BACKEND: Any = select("jax")
SPEC = rs.RotarySpec(64, layout="half")
POSITIONS = np.arange(2100) * 91


def large(dtype: str = "float32") -> Any:
    """More than enough bytes."""
    host = np.random.default_rng(0).normal(size=(2, 4, len(POSITIONS), SPEC.head_dim))
    return jax.numpy.asarray(host, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_large_arrays(dtype: str) -> None:
    x = large(dtype)
    before = np.asarray(x).copy()
    assert BACKEND.route(x, POSITIONS, SPEC) == "cpu"
    out = BACKEND.rotate(x, POSITIONS, SPEC)
    assert_rotated(BACKEND, out, x, POSITIONS, SPEC)
    assert out.dtype == x.dtype
    assert np.array_equal(np.asarray(x), before)


def test_devices() -> None:
    """The output is where x is, and bound to it only if x is."""
    free, bound = large(), jax.device_put(large(), jax.devices("cpu")[0])
    for x in (free, bound):
        out = BACKEND.rotate(x, POSITIONS, SPEC)
        assert (out.device, out.committed) == (x.device, x.committed)


def test_traced_calls_are_one_function_with_eager_ones() -> None:
    """The same within rounding, under jit, grad and vmap."""
    x = large()

    def rotate(x: Any) -> Any:
        return BACKEND.rotate(x, POSITIONS, SPEC)

    exact = np.asarray(rotate(x))
    allowed = 4 * np.finfo(np.float32).eps * np.abs(np.asarray(x)).max()
    assert np.abs(np.asarray(jax.jit(rotate)(x)) - exact).max() <= allowed
    assert np.abs(np.asarray(jax.vmap(rotate)(x)) - exact).max() <= allowed
    _, back = jax.vjp(rotate, x)
    turned_back = BACKEND.rotate(x, POSITIONS, SPEC.transposed())
    assert np.abs(np.asarray(back(x)[0]) - np.asarray(turned_back)).max() <= allowed


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    x, said = large(), []

    def traced(x: Any) -> Any:
        said.append(BACKEND.route(x, POSITIONS, SPEC))
        return x

    jax.jit(traced)(x)
    said.append(BACKEND.route(x[..., :5, :], POSITIONS[:5], SPEC))
    monkeypatch.setenv(ENVIRONMENT, "0")
    said.append(BACKEND.route(x, POSITIONS, SPEC))
    reasons = ("traced", "small arrays", f"${ENVIRONMENT}=0")
    assert said == [f"xla (cpu: {reason})" for reason in reasons]


def test_several_devices() -> None:
    """What lies on two devices stays there, in XLA's hands; what lies on the second, in ours."""
    found = fresh.run(
        """
import json, os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import rotary_spec as rs
from rotary_spec_backends import select
backend, spec, positions = select("jax"), rs.RotarySpec(64), np.arange(2100)
x = np.random.default_rng(0).normal(size=(2, 4, 2100, 64)).astype(np.float32)
first, second = jax.devices()
parts = NamedSharding(Mesh(np.array([first, second]), ("batch",)), PartitionSpec("batch"))
placed = [jax.device_put(x, place) for place in (first, second, parts)]
outs = [backend.rotate(y, positions, spec) for y in placed]
close = [bool(np.allclose(y, outs[0], rtol=0, atol=1e-5)) for y in outs]
same = [y.sharding == out.sharding for y, out in zip(placed, outs)]
print(json.dumps([[backend.route(y, positions, spec) for y in placed], close, same]))
"""
    )
    assert found == [["cpu", "cpu", "xla (cpu: several devices)"], [True] * 3, [True] * 3]
