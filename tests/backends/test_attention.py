"""Softmax attention of every backend against the reference in float64.

A fused kernel takes q and k rotated and rounded to their dtype u: a score is off by 2 head_dim u of
the largest product, an output by twice that of the values, and by some roundings of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import Backend
from tests import oracle

HOST_BACKENDS = ("numpy", "torch", "jax", "jax-x64")
SPEC = rs.RotarySpec(8, attention_factor=1.25)
RNG = np.random.default_rng(0)
Q, K, V = (RNG.normal(size=(2, h, 5, 8)) for h in (4, 2, 2))
POSITIONS = np.arange(5) + 1000
MASK = np.asarray([[True] * 5, [False] * 5, [True, False] * 2 + [True]] * 2)[:5]
CASES: dict[str, dict[str, Any]] = {
    "all": {},
    "causal": {"causal": True},
    "masked": {"mask": MASK, "causal": True, "scale": 0.5},
    "own keys": {"key_positions": POSITIONS[::-1].copy(), "causal": True},
}


@pytest.mark.parametrize("case", CASES)
def test_against_the_reference(backend: Backend, case: str) -> None:
    check(backend, "float32", **CASES[case])


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_dtypes(backend: Backend, dtype: str) -> None:
    if dtype not in backend.framework.supported_dtypes():
        pytest.skip(f"{backend.name} has no {dtype} here")
    check(backend, dtype, causal=True)


def check(backend: Backend, dtype: str, **keywords: Any) -> None:
    given = [backend.framework.asarray(x, dtype) for x in (Q, K, V)]
    hosts = [backend.framework.to_numpy(x) for x in given]
    exact = rs.attention(*hosts, POSITIONS, SPEC, **keywords)
    out = backend.attention(*given, POSITIONS, SPEC, **keywords)
    assert backend.accepts(out)
    assert backend.framework.dtype_of(out) == dtype
    host = backend.framework.to_numpy(out)
    u = oracle.UNIT_ROUNDOFF[dtype]
    largest = 1.25**2 * np.abs(hosts[0]).max() * np.abs(hosts[1]).max() / 2.0
    score = (2 + 4) * 8 * u * largest
    assert np.all(np.abs(host - exact) <= (2 * score + 16 * u) * np.abs(hosts[2]).max())
    if "mask" in keywords:
        assert np.all(host[..., 1, :] == 0)  # nothing to attend to


@pytest.mark.parametrize("lengths", [(1, 5), (0, 5), (5, 0)], ids=str)
def test_lengths(backend: Backend, lengths: tuple[int, int]) -> None:
    """Decoding with a cache; no queries; no keys."""
    queries, keys = lengths
    given = [
        backend.framework.asarray(x[..., :n, :], "float32")
        for x, n in ((Q, queries), (K, keys), (V, keys))
    ]
    out = backend.attention(
        *given,
        POSITIONS[5 - queries :],
        SPEC,
        key_positions=POSITIONS[:keys],
        causal=True,
    )
    host = backend.framework.to_numpy(out)
    assert host.shape == (2, 4, queries, 8)
    if not keys:
        assert np.all(host == 0)


def test_mixed_masks_and_bad_ones(backend: Backend) -> None:
    q, k, v = (backend.framework.asarray(x, "float32") for x in (Q, K, V))
    native = backend.framework.asarray(MASK, "int64") != 0
    for mask in (MASK, native):
        out = backend.framework.to_numpy(backend.attention(q, k, v, POSITIONS, SPEC, mask=mask))
        assert np.all(out[..., 1, :] == 0)
    with pytest.raises(rs.DtypeError, match="mask must be boolean"):
        backend.attention(q, k, v, POSITIONS, SPEC, mask=MASK * 1.0)
    with pytest.raises(rs.ShapeError, match="mask must broadcast"):
        backend.attention(q, k, v, POSITIONS, SPEC, mask=MASK[:4])
    with pytest.raises(rs.ShapeError, match="q: the last axis must be head_dim = 8"):
        backend.attention(q[..., :6], k, v, POSITIONS, SPEC)
