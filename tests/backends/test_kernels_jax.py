"""The JAX primitive and the expressions that XLA compiles: one rotation, whoever asks for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import select
from tests import oracle

jax = pytest.importorskip("jax")
jnp = jax.numpy

SPEC = rs.RotarySpec(8, output_layout="half", rotary_dim=4, rotary_start=1)
POSITIONS = np.arange(5, dtype=np.int32)


def rotate(x: Any, positions: Any = POSITIONS, spec: rs.RotarySpec = SPEC) -> Any:
    return select("jax", device="cpu").rotate(x, positions, spec)


def features(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize(
    ("head_dim", "rotary_dim", "start"),
    [(8, 8, 0), (16, 8, 4), (12, 4, 8), (16, 8, 3), (12, 6, 6)],
    ids=str,
)
def test_the_form_for_gpus(
    dtype: str, layout: Any, head_dim: int, rotary_dim: int, start: int
) -> None:
    """Run here on the CPU, it is the same rotation."""
    from rotary_spec_backends.kernels.jax_formulations import wide

    spec = rs.RotarySpec(head_dim, layout=layout, rotary_dim=rotary_dim, rotary_start=start)
    x = features(2, 3, 5, head_dim, dtype=dtype)
    cos, sin = (t[None, None] for t in rs.cos_sin(jnp.asarray(POSITIONS), spec))
    y = np.asarray(jax.jit(wide, static_argnums=3)(x, cos, sin, spec))
    host = np.asarray(x).astype(np.float64)
    exact = oracle.rotate(host, POSITIONS, spec)
    bound = oracle.tolerance(host, POSITIONS, spec, "float32", dtype)
    assert y.dtype == x.dtype
    assert np.all(np.abs(y.astype(np.float64) - exact) <= bound)


def test_sixteen_bytes() -> None:
    """The form for GPUs works on words of two lanes, in both layouts."""
    from rotary_spec_backends.kernels.jax_formulations import wide

    for layout in ("half", "interleaved"):
        spec = rs.RotarySpec(128, layout=layout)  # type: ignore[arg-type]
        shapes = [(2, 4, 128), (4, 64), (4, 64)]
        dtypes = ["bfloat16", "float32", "float32"]
        arguments = [jax.ShapeDtypeStruct(s, d) for s, d in zip(shapes, dtypes)]
        text = str(jax.make_jaxpr(lambda x, c, s, spec=spec: wide(x, c, s, spec))(*arguments))
        assert "u32[2,4,64]" in text


def test_derivatives() -> None:
    """Forward and reverse mode give the operator's own matrix, second derivatives its square."""
    x = features(5, 8)
    blocks = oracle.rotation_matrix(POSITIONS, SPEC)
    matrix = np.zeros((5, 8, 5, 8))
    matrix[np.arange(5), :, np.arange(5), :] = blocks
    for jacobian in (jax.jacfwd(rotate)(x), jax.jacrev(rotate)(x)):
        np.testing.assert_allclose(jacobian, matrix, atol=2**-23)
    hessian = jax.hessian(lambda x: (rotate(x) ** 2).sum() / 2)(x)
    np.testing.assert_allclose(
        hessian.reshape(40, 40), matrix.reshape(40, 40).T @ matrix.reshape(40, 40), atol=2**-21
    )
    rematerialised = jax.grad(jax.checkpoint(lambda x: rotate(x).sum()))(x)
    np.testing.assert_array_equal(rematerialised, jax.grad(lambda x: rotate(x).sum())(x))


def test_batches() -> None:
    """``vmap`` over features, positions, both, and the gradient of it."""
    x, y = features(5, 8), features(5, 8, seed=1)
    both, ids = jnp.stack([x, y]), jnp.stack([POSITIONS, POSITIONS + 3])
    np.testing.assert_array_equal(jax.vmap(rotate)(both), [rotate(x), rotate(y)])
    expected = [rotate(x), rotate(y, POSITIONS + 3)]
    np.testing.assert_array_equal(jax.vmap(rotate)(both, ids), expected)
    last = jax.vmap(rotate, in_axes=(2, 0), out_axes=2)(jnp.moveaxis(both, 0, 2), ids)
    np.testing.assert_array_equal(jnp.moveaxis(last, 2, 0), expected)
    one = jax.vmap(rotate, in_axes=(None, 0))(x, ids)
    np.testing.assert_array_equal(one, [rotate(x), rotate(x, POSITIONS + 3)])
    gradients = jax.vmap(jax.grad(lambda x, m: rotate(x, m)[:, 1].sum()))(both, ids)
    np.testing.assert_array_equal(gradients[0], jax.grad(lambda x: rotate(x)[:, 1].sum())(x))


def test_without_jit() -> None:
    x = features(5, 8)
    with jax.disable_jit():
        np.testing.assert_allclose(rotate(x), jax.jit(rotate)(x), atol=2**-22)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_tables_are_computed_once(layout: Any) -> None:
    """Not anew for every head: the compiled rotation has cosines of the table's size alone."""
    spec = rs.RotarySpec(16, layout=layout)
    x = jax.ShapeDtypeStruct((3, 64, 16), "float32")
    m = jax.ShapeDtypeStruct((64,), "int32")
    text = jax.jit(lambda x, m: rotate(x, m, spec)).lower(x, m).compile().as_text()
    computations = text.split("\n\n")
    with_cosine = [c for c in computations if " cosine(" in c]
    assert with_cosine
    assert all("[3,64" not in c for c in with_cosine)


def test_donated_memory_is_used_again() -> None:
    """In place: the result takes the memory of a donated input."""
    donating = jax.jit(rotate, donate_argnums=0)
    x = features(5, 8)
    assert "input_output_alias" in donating.lower(x, POSITIONS).compile().as_text()
    expected = np.asarray(rotate(x))
    np.testing.assert_array_equal(donating(x, POSITIONS), expected)
    assert x.is_deleted()
