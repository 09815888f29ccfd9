"""The algebra of RoFormer section 3, for any spec, any vector and any position.

Phases obey it to the bit (the phase of m + n *is* the sum of the phases), so that the bounds hold
nothing but float64 rounding: u = 2^-53, cos and sin within 5 u, see ``oracle.table_error``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rotary_spec as rs
from rotary_spec.layouts import input_lanes, join_pairs, output_lanes, split_pairs
from tests import oracle
from tests.strategies import positions, specs, vectors

U = 2.0**-53
ROTATION = 8 * U  # 5 u of the table, products and sum, as a share of A (|a| + |b|)
halves = st.integers(-(2**30), 2**30)
"""Positions whose sums and differences are positions again."""


def at(m: int) -> Any:
    return np.asarray(m)


def scale(spec: rs.RotarySpec) -> float:
    return max(1.0, rs.attention_factor(spec))


@given(st.data(), specs(), halves, halves)
def test_relative_property(data: st.DataObject, spec: rs.RotarySpec, m: int, n: int) -> None:
    """(A R_m q) . (A R_n k) = q . A^2 R_{n-m} k, Eq. 16: only the distance counts."""
    q, k = data.draw(vectors(spec)), data.draw(vectors(spec))
    score = rs.rotate(q, at(m), spec) @ rs.rotate(k, at(n), spec)
    squared = replace(spec, output_layout=None, attention_factor=rs.attention_factor(spec) ** 2)
    relative = q @ rs.rotate(k, at(n - m), squared)
    size = np.abs(q).sum() * np.abs(k).sum() * scale(spec) ** 2
    assert abs(score - relative) <= (4 * ROTATION + 2 * spec.head_dim * U) * size


@given(st.data(), specs(attention_factor=None, output_layout=None), halves, halves)
def test_group_law(data: st.DataObject, spec: rs.RotarySpec, m: int, n: int) -> None:
    """R_n R_m = R_{m+n}."""
    x = data.draw(vectors(spec))
    twice = rs.rotate(rs.rotate(x, at(m), spec), at(n), spec)
    once = rs.rotate(x, at(m + n), spec)
    # The second rotation sees pairs of at most (|a| + |b|) in each lane, twice that in both.
    assert np.all(np.abs(twice - once) <= 5 * ROTATION * oracle.weights(x, spec))


@given(st.data(), specs(), positions)
def test_norm_of_a_pair(data: st.DataObject, spec: rs.RotarySpec, m: int) -> None:
    """A rotation keeps the length of every pair, times A."""
    x = data.draw(vectors(spec))
    y = rs.rotate(x, at(m), spec)
    (a, b), (first, second) = (np.asarray(f(spec)) for f in (input_lanes, output_lanes))
    before = rs.attention_factor(spec) * np.hypot(x[a], x[b])
    after = np.hypot(y[first], y[second])
    assert np.all(np.abs(after - before) <= 4 * ROTATION * oracle.weights(x, spec)[first])


@given(specs(), positions)
def test_orthogonality(spec: rs.RotarySpec, m: int) -> None:
    """M^T M = A^2 on the rotated lanes and 1 on the others."""
    matrix = rs.rotation_matrix(at(m), spec, dtype=np.float64)
    gram = np.ones(spec.head_dim)
    gram[spec.rotary_start : spec.rotary_start + spec.rotary_dim] = rs.attention_factor(spec) ** 2
    assert np.all(np.abs(matrix.T @ matrix - np.diag(gram)) <= 4 * ROTATION * scale(spec) ** 2)


@given(specs(), positions)
def test_transposed_is_the_transpose(spec: rs.RotarySpec, m: int) -> None:
    """Exactly: the same cos and sin, put elsewhere; and twice transposed is the spec itself."""
    matrix = rs.rotation_matrix(at(m), spec, dtype=np.float64)
    transposed = rs.rotation_matrix(at(m), spec.transposed(), dtype=np.float64)
    assert np.array_equal(transposed, matrix.T)
    assert spec.transposed().transposed() == spec


@given(st.data(), specs(), st.integers(1 - 2**31, 2**31 - 1))
def test_inverse(data: st.DataObject, spec: rs.RotarySpec, m: int) -> None:
    """The inverse direction is a negative position."""
    x = data.draw(vectors(spec))
    opposite = rs.rotate(x, at(m), replace(spec, inverse=not spec.inverse))
    negative = rs.rotate(x, at(-m), spec)
    assert np.all(np.abs(opposite - negative) <= 2 * ROTATION * oracle.weights(x, spec))


@given(st.data(), specs(attention_factor=None), positions, st.integers(-6, 6))
def test_magnitude(data: st.DataObject, spec: rs.RotarySpec, m: int, exponent: int) -> None:
    """A multiplies the rotated lanes and nothing else; exactly, where it is a power of two."""
    x = data.draw(vectors(spec))
    factor = 2.0**exponent
    lanes = slice(spec.rotary_start, spec.rotary_start + spec.rotary_dim)
    expected = rs.rotate(x, at(m), spec)
    expected[lanes] *= factor
    scaled = rs.rotate(x, at(m), replace(spec, attention_factor=factor))
    assert np.array_equal(scaled, expected)


@given(st.data(), specs())
def test_position_zero_is_the_identity(data: st.DataObject, spec: rs.RotarySpec) -> None:
    plain = replace(spec, attention_factor=None, output_layout=None)
    x = data.draw(vectors(plain))
    assert np.array_equal(rs.rotate(x, at(0), plain), x)


@given(st.data(), specs(), positions)
def test_three_forms_are_one_operator(data: st.DataObject, spec: rs.RotarySpec, m: int) -> None:
    """Eq. 12, Eq. 15 and Eq. 34 agree with each other and with the paper read by the oracle."""
    x = data.draw(vectors(spec))
    exact = oracle.rotate(x, m, spec)
    bound = oracle.tolerance(x, m, spec, "float64", "float64")
    matrix = rs.rotation_matrix(at(m), spec, dtype=np.float64)
    for y in (rs.rotate(x, at(m), spec), rs.rotate_complex(x, at(m), spec), matrix @ x):
        assert np.all(np.abs(y - exact) <= bound)


@given(st.data(), specs(layout="half", output_layout=None), positions)
def test_layouts_differ_by_a_permutation(data: st.DataObject, spec: rs.RotarySpec, m: int) -> None:
    """Bit for bit: half = P^-1 interleaved P, with P from the lanes of each pair."""
    x = data.draw(vectors(spec))
    interleaved = replace(spec, layout="interleaved")
    to_interleaved = np.arange(spec.head_dim)
    to_interleaved[list(sum(input_lanes(interleaved), ()))] = sum(input_lanes(spec), ())
    back = np.argsort(to_interleaved)
    assert np.array_equal(
        rs.rotate(x, at(m), spec), rs.rotate(x[to_interleaved], at(m), interleaved)[back]
    )


@given(st.data(), specs(output_layout=None), positions)
def test_output_layout_moves_lanes(data: st.DataObject, spec: rs.RotarySpec, m: int) -> None:
    """Bit for bit: the same pairs, written elsewhere."""
    x = data.draw(vectors(spec))
    other = "half" if spec.layout == "interleaved" else "interleaved"
    moved = replace(spec, output_layout=other)
    y, z = rs.rotate(x, at(m), spec), rs.rotate(x, at(m), moved)
    for here, there in zip(output_lanes(spec), output_lanes(moved)):
        assert np.array_equal(z[list(there)], y[list(here)])


@given(st.data(), specs(), st.lists(positions, min_size=3, max_size=3))
def test_broadcasting(data: st.DataObject, spec: rs.RotarySpec, ids: list[int]) -> None:
    """Every shape of positions means what NumPy's broadcasting says, bit for bit."""
    x = np.stack([data.draw(vectors(spec)) * (1 + i) for i in range(6)]).reshape(2, 1, 3, -1)
    x = np.concatenate([x, -x], axis=1)  # (batch 2, heads 2, seq 3, head_dim)
    per_row = np.asarray([ids, ids[::-1]])[:, None, :]
    for given_ids in (at(ids[0]), np.asarray(ids[:1]), np.asarray(ids), per_row):
        full = np.broadcast_to(given_ids, x.shape[:-1])
        y = rs.rotate(x, given_ids, spec)
        assert np.array_equal(y, rs.rotate(x, full, spec))
        for index in np.ndindex(2, 2, 3):
            assert np.array_equal(y[index], rs.rotate(x[index], full[index], spec))


@pytest.mark.parametrize("start", range(5))
@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rotate", [rs.rotate, rs.rotate_complex])
def test_pass_through_lanes_are_bits(start: int, layout: Any, dtype: Any, rotate: Any) -> None:
    """Lanes outside the rotation keep every bit: NaN payloads, -0.0 and subnormals too."""
    spec = rs.RotarySpec(8, layout=layout, rotary_dim=4, rotary_start=start, attention_factor=3.0)
    bits = f"uint{8 * np.dtype(dtype).itemsize}"
    x = np.ones((64, 8), dtype=dtype)
    kept = [lane for lane in range(8) if not start <= lane < start + 4]
    pattern = np.random.default_rng(start).integers(0, np.iinfo(bits).max, (64, 4), dtype=bits)
    pattern[0] = np.asarray([-0.0, np.nan, np.inf, np.finfo(dtype).smallest_subnormal], dtype).view(
        bits
    )
    x[:, kept] = pattern.view(dtype)
    y = rotate(x, np.arange(64), spec)
    assert np.array_equal(y[:, kept].view(bits), pattern)
    assert np.all(np.isfinite(y[:, start : start + 4]))


@pytest.mark.parametrize("seq_axis", [-4, -3, -2, 0, 1, 2])
@pytest.mark.parametrize("rotate", [rs.rotate, rs.rotate_complex])
def test_seq_axis(seq_axis: int, rotate: Any) -> None:
    """Any axis but the last, counted from either end; positions broadcast with it last."""
    spec = rs.RotarySpec(8, rotary_dim=4)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 8))
    ids = np.random.default_rng(1).integers(0, 99, size=(3, 4, 2) if seq_axis in (0, -4) else 4)
    if seq_axis in (1, -3):
        ids = np.arange(3)
    last = np.moveaxis(x, seq_axis, -2)
    expected = np.moveaxis(rotate(last, ids, spec), -2, seq_axis)
    assert np.array_equal(rotate(x, ids, spec, seq_axis=seq_axis), expected)


@pytest.mark.parametrize(
    ("shape", "ids"),
    [
        ((4,), ()),
        ((1, 4), (1,)),
        ((1, 1, 1, 4), (1, 1, 1)),
        ((0, 4), (0,)),
        ((0, 4), ()),
        ((2, 0, 3, 4), (3,)),
        ((2, 0, 3, 4), (2, 1, 3)),
        ((3, 1, 4), (3, 1)),
    ],
    ids=str,
)
def test_small_and_empty_shapes(shape: tuple[int, ...], ids: tuple[int, ...]) -> None:
    spec = rs.RotarySpec(4, rotary_dim=2)
    x = np.random.default_rng(0).normal(size=shape)
    m = np.full(ids, 7)
    for y in (rs.rotate(x, m, spec), rs.rotate_complex(x, m, spec)):
        assert y.shape == shape
        assert np.all(np.abs(y - oracle.rotate(x, m, spec)) <= 1e-13)
    assert rs.rotation_matrix(m, spec).shape == (*ids, 4, 4)
    assert all(part.shape == (*ids, 1) for part in rs.cos_sin(m, spec))


def test_strided_and_swapped_input() -> None:
    spec = rs.RotarySpec(8)
    x = np.random.default_rng(0).normal(size=(2, 16, 10))
    views = x[:, ::2, :8], x.swapaxes(1, 2)[:, 1:9, ::-2], np.broadcast_to(x[:1, :1, :8], (3, 2, 8))
    for view in views:
        ids = np.arange(view.shape[-2])
        assert np.array_equal(rs.rotate(view, ids, spec), rs.rotate(view.copy(), ids, spec))


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_split_and_join_are_inverse(layout: Any) -> None:
    x = np.arange(24.0).reshape(2, 12)
    assert np.array_equal(join_pairs(*split_pairs(x, layout), layout, np), x)


def test_seq_len_reaches_the_schedule() -> None:
    """A schedule that depends on the length is handed the length, by every function."""

    class Stretching(rs.Schedule):
        rope_type = ""  # unregistered

        def scale(self, theta: Any, seq_len: int | None) -> Any:
            return theta / (seq_len or 1)

        def magnitude(self, seq_len: int | None) -> float:
            return float(seq_len or 1)

    spec = rs.RotarySpec(4, schedule=Stretching())
    by_hand = rs.RotarySpec(4, schedule=rs.Linear(2), attention_factor=2.0)
    x, m = np.random.default_rng(0).normal(size=(3, 4)), np.arange(3)
    assert rs.attention_factor(spec, 2) == 2.0
    assert np.array_equal(rs.frequencies(spec, 2), rs.frequencies(by_hand))
    assert rs.turns(spec, 2) == rs.turns(by_hand)
    for function in (rs.rotate, rs.rotate_complex):
        assert np.array_equal(function(x, m, spec, seq_len=2), function(x, m, by_hand))
    for function in (rs.rotation_matrix, rs.cos_sin):
        assert np.array_equal(function(m, spec, seq_len=2), function(m, by_hand))
