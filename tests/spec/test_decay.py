"""Long-term decay: Eq. 35 to 37 against the rotation itself, and the paper's Figure 2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rotary_spec as rs
from tests import oracle
from tests.spaces import Space
from tests.strategies import specs, vectors

U = oracle.UNIT_ROUNDOFF["float64"]
DISTANCES = np.asarray([0, 1, -1, 7, 100, 4096, 131_071])


def allowed(q: Any, k: Any, spec: rs.RotarySpec, largest: int) -> Any:
    """Deviation of a float64 score: sums of d products, and phases off by |m| 2^-65 turn each."""
    magnitude = np.abs(q).sum(-1) * np.abs(k).max(-1) * max(1.0, rs.attention_factor(spec) ** 2)
    return magnitude * ((2 * spec.head_dim + 16) * U + 3 * 2 * np.pi * largest * 2.0**-65)


@given(st.data(), st.integers(-(2**20), 2**20), st.integers(-(2**20), 2**20))
def test_score_is_the_product_of_rotated_vectors(data: Any, m: int, n: int) -> None:
    spec = data.draw(specs())
    q, k = data.draw(vectors(spec)), data.draw(vectors(spec))
    product = rs.rotate(q, m, spec) @ rs.rotate(k, n, spec)
    got = rs.decay.score(q, k, np.asarray(m - n), spec)
    assert abs(got - product) <= allowed(q, k, spec, 2**21)
    moment = rs.decay.expected_score(np.outer(q, k), np.asarray(m - n), spec)
    assert abs(moment - got) <= allowed(q, k, spec, 0)


@given(st.data())
@settings(max_examples=50)
def test_no_score_exceeds_the_bound(data: Any) -> None:
    spec = data.draw(specs())
    q, k = data.draw(vectors(spec)), data.draw(vectors(spec))
    score, bound = (f(q, k, DISTANCES, spec) for f in (rs.decay.score, rs.decay.bound))
    assert np.all(np.abs(score) <= bound + allowed(q, k, spec, 0))


def test_the_bound_is_reached() -> None:
    """One pair: |S_1| = 1 at every distance, and the only step is h_0 itself, here 2."""
    spec, ones = rs.RotarySpec(2), np.ones(2)
    bound = rs.decay.bound(ones, ones, DISTANCES, spec)
    assert np.abs(bound - 2).max() <= 16 * U
    assert rs.decay.score(ones, ones, np.asarray(0), spec) == 2


def test_partial_sums_are_sums_of_unit_vectors() -> None:
    spec = rs.RotarySpec(16, attention_factor=1.7, inverse=True)
    angle = oracle.angles(DISTANCES, spec)
    exact = np.abs(np.cumsum(np.exp(1j * angle), axis=-1))
    got = rs.decay.partial_sums(DISTANCES, spec)
    # At most 8 unit vectors: each off by its rounding and by its phase, of 2^-65 turn per position.
    bound = 8 * (16 * U + 2 * np.pi * DISTANCES.max() * 2.0**-65)
    assert np.abs(got - exact).max() <= bound
    assert np.array_equal(got[0], np.arange(1.0, 9.0))
    mean = rs.decay.mean_partial_sum(DISTANCES, spec)
    assert np.abs(mean - exact.mean(-1)).max() <= bound


def test_figure_2() -> None:
    """Of 128 lanes: 32.5 at distance 0, and lower over every further octave up to 256."""
    spec = rs.RotarySpec(128)
    curve = rs.decay.mean_partial_sum(np.arange(256), spec)
    assert curve[0] == 32.5
    octaves = [curve[2**k : 2 ** (k + 1)].mean() for k in range(8)]
    assert octaves == sorted(octaves, reverse=True)
    assert octaves[-1] < 0.3 * curve[0]


def test_schedules_and_length() -> None:
    """Interpolation by 4 stretches the curve by 4; a length-dependent schedule by its length."""
    plain = rs.RotarySpec(64)
    linear = replace(plain, schedule=rs.Linear(4.0))
    distances = np.arange(0, 256, 4)
    stretched = rs.decay.mean_partial_sum(distances, linear)
    exact = rs.decay.mean_partial_sum(distances // 4, plain)
    assert np.abs(stretched - exact).max() <= 64 * 8 * U
    dynamic = replace(plain, schedule=rs.DynamicNtk(1.0, 128))
    near, far = (rs.decay.mean_partial_sum(distances, dynamic, seq_len=n) for n in (128, 1024))
    assert np.array_equal(near, rs.decay.mean_partial_sum(distances, plain))
    assert np.abs(near - far).max() > 1


def test_expected_score_is_the_mean_of_scores() -> None:
    """For any sample: the score is linear in E[q k^T]; lanes that pass through count too."""
    spec = rs.RotarySpec(8, rotary_dim=4, rotary_start=2, layout="half", attention_factor=1.3)
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 1000, 8)) + 1.0
    scores = rs.decay.score(q[:, None], k[:, None], DISTANCES, spec)
    expected = rs.decay.expected_score(q.T @ k / len(q), DISTANCES, spec)
    bound = allowed(np.abs(q).max(0), np.abs(k).max(0), spec, 0) + len(q) * U * 8 * 16
    assert np.abs(scores.mean(0) - expected).max() <= bound


def test_namespaces(space: Space) -> None:
    spec = rs.RotarySpec(8, rotary_dim=4)
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal(8).astype(space.widest) for _ in range(2))
    u = oracle.UNIT_ROUNDOFF[space.widest]
    given = space.asarray(q), space.asarray(k), space.ids(DISTANCES)
    for function in (rs.decay.score, rs.decay.bound):
        host = space.check(function(*given, spec), DISTANCES.shape, space.widest)
        assert np.abs(host - function(q, k, DISTANCES, spec)).max() <= 64 * 8 * u
    host = space.check(rs.decay.mean_partial_sum(given[2], spec), DISTANCES.shape, space.widest)
    assert np.abs(host - rs.decay.mean_partial_sum(DISTANCES, spec)).max() <= 64 * u
    moment = np.outer(q, k)
    host = rs.decay.expected_score(space.asarray(moment), given[2], spec)
    host = space.check(host, DISTANCES.shape, space.widest)
    assert np.abs(host - rs.decay.expected_score(moment, DISTANCES, spec)).max() <= 64 * 8 * u


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: rs.decay.partial_sums([1], s), rs.DtypeError, "expected an array"),
        (lambda s: rs.decay.partial_sums(np.ones(1), s), rs.PositionError, "integers"),
        (lambda s: rs.decay.mean_partial_sum(DISTANCES, 64), rs.DtypeError, "RotarySpec, got 64"),
        (lambda s: rs.decay.score(np.ones(6), np.ones(8), DISTANCES, s), rs.ShapeError, "q: the"),
        (lambda s: rs.decay.bound(np.ones(8), np.ones(8, int), DISTANCES, s), rs.DtypeError, "k "),
        (lambda s: rs.decay.expected_score(np.ones(8), DISTANCES, s), rs.ShapeError, "moment must"),
        (lambda s: rs.decay.expected_score(np.ones((8, 6)), DISTANCES, s), rs.ShapeError, "moment"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(rs.RotarySpec(8))
