"""Chunked and recurrent linear attention of every backend against Eq. 19 in float64.

The allowed error is derived in ``attention_oracle.bound``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import Backend
from tests import attention_oracle, oracle

# float64 JAX: see test_linear_attention_gradients
HOST_BACKENDS = ("numpy", "torch", "torch-plain", "jax")
SPEC = rs.RotarySpec(8)
MAPS = {"elu+1": "elu+1", "softmax": "softmax", "favor": rs.favor(6, 8, seed=3)}
U = oracle.UNIT_ROUNDOFF


@cache
def inputs(length: int, heads: tuple[int, int] = (4, 2), width: int = 8) -> Any:
    """q, k, v of float32 values in float64, positions, and a padding mask."""
    rng = np.random.default_rng(length)
    q, k = (rng.normal(size=(2, h, length, width)).astype(np.float32) for h in heads)
    v = rng.normal(size=(2, heads[1], length, 3)).astype(np.float32)
    mask = rng.random((2, 1, length)) < 0.7
    return *(x.astype(np.float64) for x in (q, k, v)), np.arange(length) + 5, mask


def arrays(backend: Backend, dtype: str, *hosts: Any) -> list[Any]:
    return [backend.framework.asarray(x, dtype) for x in hosts]


def width_of(feature_map: Any) -> int:
    return 8 if isinstance(feature_map, str) else feature_map.query.head_dim


def assert_close(backend: Backend, out: Any, exact: Any, allowed: Any, dtype: str) -> None:
    assert backend.accepts(out)
    assert backend.framework.dtype_of(out) == dtype
    host = backend.framework.to_numpy(out)
    assert host.shape == exact.shape
    if U[dtype] > U["float32"]:
        allowed = allowed + U[dtype] * (np.abs(exact) + allowed) + oracle.SMALLEST_NORMAL[dtype]
    assert np.all(np.abs(host - exact) <= allowed)


@pytest.mark.parametrize("name", MAPS)
def test_feature_maps(backend: Backend, name: str) -> None:
    """With grouped heads, padding, and a length that the chunk does not divide."""
    feature_map = MAPS[name]
    q, k, v, positions, mask = inputs(21, width=width_of(feature_map))
    # JAX compiles each for seconds: there one form of each map, and each form of one.
    for causal in (True, False) if backend.name != "jax" else (name != "softmax",):
        seen = attention_oracle.visible(q, k, causal, mask)
        exact, terms = attention_oracle.linear_attention(
            q, k, v, positions, SPEC, seen, feature_map
        )
        out = backend.linear_attention(
            *arrays(backend, "float32", q, k, v),
            positions,
            SPEC,
            feature_map=feature_map,
            causal=causal,
            key_mask=mask,
            chunk=8,
        )
        allowed = attention_oracle.bound(terms, 21, 8, feature_map, q, k, U["float32"], 8)
        assert_close(backend, out, exact, allowed, "float32")


@cache
def definition(length: int, causal: bool) -> Any:
    q, k, v, positions, _ = inputs(length, (1, 1))
    q, k, v = (x[:1] for x in (q, k, v))
    seen = attention_oracle.visible(q, k, causal)
    exact, terms = attention_oracle.linear_attention(q, k, v, positions, SPEC, seen, "elu+1")
    return q, k, v, positions, exact, terms


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 1000, 4096])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_lengths(backend: Backend, length: int, causal: bool) -> None:
    q, k, v, positions, exact, terms = definition(length, causal)
    arguments = arrays(backend, "float32", q, k, v)
    out = backend.linear_attention(*arguments, positions, SPEC, causal=causal, chunk=64)
    allowed = attention_oracle.bound(terms, length, 64, "elu+1", q, k, U["float32"], 8)
    assert_close(backend, out, exact, allowed, "float32")


def test_empty_batch(backend: Backend) -> None:
    q, k, v, positions, _ = inputs(6)
    given = arrays(backend, "float32", *(x[:0] for x in (q, k, v)))
    out = backend.linear_attention(*given, positions, SPEC, causal=True)
    assert tuple(out.shape) == (0, 4, 6, 3)
    state = backend.linear_attention_state(*given[1:], positions, SPEC)
    after, out = backend.linear_attention_step(state, *given, positions=positions + 9)
    assert tuple(out.shape) == (0, 4, 6, 3)
    with pytest.raises(rs.PositionError, match="stands at"):  # it went on all the same
        backend.linear_attention_step(after, *given, positions=positions + 10)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_dtypes(backend: Backend, dtype: str) -> None:
    """Sums of 16-bit input are float32: only input and output are rounded."""
    if dtype not in backend.framework.supported_dtypes():
        pytest.skip(f"{backend.name} has no {dtype} here")
    q, k, v, positions, _ = inputs(21)
    given = arrays(backend, dtype, q, k, v)
    q, k, v = map(backend.framework.to_numpy, given)
    seen = attention_oracle.visible(q, k, True)
    exact, terms = attention_oracle.linear_attention(q, k, v, positions, SPEC, seen, "elu+1")
    out = backend.linear_attention(*given, positions, SPEC, causal=True, chunk=8)
    u = U["float64"] if dtype == "float64" else U["float32"]
    allowed = attention_oracle.bound(terms, 21, 8, "elu+1", q, k, u, 8) + 1e-13
    assert_close(backend, out, exact, allowed, dtype)


def test_prefill_and_steps_are_the_whole(backend: Backend) -> None:
    """Steps of one token and of several, padding and far positions on the way."""
    # JAX compiles each; it goes on from no token in TestJax.
    for prefix in (5, 0) if backend.name != "jax" else (5,):
        check_steps(backend, prefix)


def check_steps(backend: Backend, prefix: int) -> None:
    q, k, v, positions, mask = inputs(21)
    positions = positions + 2**24
    seen = attention_oracle.visible(q, k, True, mask)
    exact, terms = attention_oracle.linear_attention(q, k, v, positions, SPEC, seen, "elu+1")
    given = arrays(backend, "float32", q, k, v)
    state = backend.linear_attention_state(
        *(x[..., :prefix, :] for x in given[1:]),
        positions[:prefix],
        SPEC,
        key_mask=mask[..., :prefix],
        chunk=4,
    )
    outs = []
    for start, stop in ((prefix, prefix + 1), (prefix + 1, prefix + 2), (prefix + 2, 21)):
        state, out = backend.linear_attention_step(
            state,
            *(x[..., start:stop, :] for x in given),
            positions=None if start else positions[start:stop],
            key_mask=mask[..., start:stop],
            spec=SPEC,
            chunk=4,
        )
        outs.append(backend.framework.to_numpy(out))
    assert backend.framework.to_numpy(state.position) == positions[-1]
    allowed = attention_oracle.bound(terms, 21, 4, "elu+1", q, k, U["float32"], 8)
    error = np.abs(np.concatenate(outs, axis=-2) - exact[..., prefix:, :])
    assert np.all(error <= allowed[..., prefix:, :])


def test_keys_of_their_own(backend: Backend) -> None:
    """Other lengths and positions; causal by position, in any order; a mask of everything."""
    q, k, v, positions, mask = inputs(21)
    q, query_positions = q[..., :6, :], np.asarray([7, 30, 2, 5, 16, 16])
    given = arrays(backend, "float32", q, k, v)
    key_positions = positions[::-1].copy()
    for causal in (True, False):
        out = backend.linear_attention(
            *given,
            query_positions,
            SPEC,
            causal=causal,
            key_positions=key_positions,
            key_mask=mask,
            chunk=4,
        )
        seen = attention_oracle.visible(q, k, False, mask)
        if causal:
            seen &= key_positions <= query_positions[:, None]
        exact, terms = attention_oracle.linear_attention(
            q, k, v, query_positions, SPEC, seen, "elu+1", key_positions
        )
        # By position a query's weights for all 21 keys are one sum: a chunk of 21, not of 4.
        allowed = attention_oracle.bound(terms, 21, 21, "elu+1", q, k, U["float32"], 8)
        assert_close(backend, out, exact, allowed, "float32")
        # Position 2 is before every key.
        assert np.all(backend.framework.to_numpy(out)[..., 2, :] == 0) == causal


@pytest.mark.parametrize("denominator", ["rotated", "none"])
def test_other_denominators(backend: Backend, denominator: Any) -> None:
    q, k, v, positions, _ = inputs(21)
    given = arrays(backend, "float32", q, k, v)
    out = backend.linear_attention(
        *given, positions, SPEC, denominator=denominator, causal=True, eps=50.0, chunk=8
    )
    exact = rs.linear_attention(
        q, k, v, positions, SPEC, denominator=denominator, causal=True, eps=50.0
    )
    seen = attention_oracle.visible(q, k, True)
    _, terms = attention_oracle.linear_attention(q, k, v, positions, SPEC, seen, "elu+1")
    phi_q, phi_k = attention_oracle.features("elu+1", q, np.repeat(k, 2, axis=-3))
    turned_q, turned_k = (oracle.rotate(phi, positions, SPEC) for phi in (phi_q, phi_k))
    rotated = np.where(seen, turned_q @ np.swapaxes(turned_k, -1, -2), 0).sum(-1) + 50.0
    assert np.abs(rotated).min() > 1
    total = np.where(seen, phi_q @ np.swapaxes(phi_k, -1, -2), 0).sum(-1, keepdims=True)
    # The terms are not divided: the rotated denominator with eps is above 1, or there is none.
    allowed = attention_oracle.bound(terms * total, 21, 8, "elu+1", q, k, U["float32"], 8)
    assert_close(backend, out, exact, allowed * (1 + np.abs(exact)), "float32")


class TestBadInput:
    @pytest.mark.parametrize(
        ("keywords", "error", "said"),
        [
            ({"chunk": 0}, rs.ShapeError, "chunk must be a positive integer, got 0"),
            ({"feature_map": "relu"}, rs.SpecError, "got 'relu'"),
            ({"feature_map": rs.favor(8, 6)}, rs.ShapeError, "6 features but spec.head_dim is 8: "),
            ({"denominator": "sum"}, rs.SpecError, "got 'sum'"),
            ({"eps": -1.0}, rs.SpecError, "eps .* got -1.0"),
            ({"key_mask": np.ones((2, 1, 5), bool)}, rs.ShapeError, r"\(2, 2, 6\), .* \(2, 1, 5\)"),
            ({"key_mask": np.ones((2, 1, 6))}, rs.DtypeError, "key_mask must be boolean"),
            ({"key_positions": np.arange(5)}, rs.PositionError, r"k.shape.*\(5,\)"),
            ({"seq_axis": -1}, rs.ShapeError, "seq_axis"),
        ],
        ids=lambda x: next(iter(x)) if isinstance(x, dict) else None,
    )
    def test_arguments(self, backend: Backend, keywords: Any, error: Any, said: str) -> None:
        q, k, v, positions, _ = inputs(6)
        with pytest.raises(error, match=said):
            backend.linear_attention(
                *arrays(backend, "float32", q, k, v), positions, SPEC, **keywords
            )

    def test_shapes_and_dtypes(self, backend: Backend) -> None:
        q, k, v, positions, _ = inputs(6)
        q, k, v = arrays(backend, "float32", q, k, v)
        half = backend.framework.asarray(np.ones((2, 2, 6, 8)), "float16")
        for given, error, said in (
            ((q[:, :3], k, v), rs.ShapeError, "multiple of the key heads, got 3 and 2"),
            ((q[:1], k, v), rs.ShapeError, "axes before"),
            ((q, k, v[..., :5, :]), rs.ShapeError, "k and v must agree"),
            ((q[..., :5, :], k, v), rs.ShapeError, "5 queries and 6 keys"),
            ((q, half, v), rs.DtypeError, "one dtype, got float32, float16 and float32"),
            ((q, k, [1.0]), rs.DtypeError, "list"),
        ):
            with pytest.raises(error, match=said):
                backend.linear_attention(*given, positions[:6], SPEC)

    def test_negative_features(self, backend: Backend) -> None:
        """The smallest denominator is named, and so is the feature map."""
        q, k, v, positions, _ = inputs(6)
        given = arrays(backend, "float32", q, k, v)
        for causal in (True, False):
            with pytest.raises(rs.DenominatorError, match=r"smallest is -\d.*'custom'"):
                backend.linear_attention(
                    *given, positions, SPEC, causal=causal, feature_map=(_negative, _square)
                )
        out = backend.linear_attention(
            *given, positions, SPEC, feature_map=(_negative, _square), eps=1e3
        )
        assert np.all(np.isfinite(backend.framework.to_numpy(out)))

    def test_overflow(self, backend: Backend) -> None:
        q, k, v, positions, _ = inputs(6)
        given = arrays(backend, "float32", q, k + 100.0, v)
        with (
            np.errstate(all="ignore"),
            pytest.raises(rs.DenominatorError, match="finite, the smallest is nan"),
        ):
            backend.linear_attention(*given, positions, SPEC, feature_map="softmax")

    def test_states(self, backend: Backend) -> None:
        q, k, v, positions, _ = inputs(6)
        q, k, v = arrays(backend, "float32", q, k, v)
        state = backend.linear_attention_state(k, v, positions, SPEC)
        step = backend.linear_attention_step
        with pytest.raises(rs.SpecError, match=r"another spec, RotarySpec\(head_dim=8\), not"):
            step(state, q, k, v, spec=rs.RotarySpec(8, base=5e5))
        with pytest.raises(rs.PositionError, match=r"stands at .*10"):
            step(state, q, k, v, positions=positions)
        with pytest.raises(rs.PositionError, match="backwards"):
            step(state, q, k, v, positions=positions[::-1] + 20)
        with pytest.raises(rs.PositionError, match="backwards"):
            backend.linear_attention_state(k, v, positions[::-1].copy(), SPEC)
        with pytest.raises(rs.ShapeError, match="other heads or widths"):
            step(state, q[:, :1], k[:, :1], v[:, :1])
        with pytest.raises(rs.DtypeError, match="must be a LinearAttentionState"):
            step((k, v), q, k, v)


def _negative(x: Any) -> Any:
    return -abs(x)


def _square(x: Any) -> Any:
    return x * x
