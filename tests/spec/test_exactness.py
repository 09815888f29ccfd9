"""Phases to the bit, and float32 cos and sin within one ulp, at every position below 2^31.

Bounds: a float32 below 1 has ulps of at most u = 2^-24, and 1 ulp is allowed. Where the namespace
has float64 the only error is that of the phase, 2^31 * 2^-65 turn, and one rounding, u / 2.
"""

from __future__ import annotations

import decimal
from functools import cache
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rotary_spec as rs
from rotary_spec.phase import TURN, table
from tests import oracle
from tests.spaces import Space, open_space

PHASE_ERROR = 2 * np.pi * 2.0 ** (31 - 65)
ORACLE_ERROR = 1e-15
EDGES = [0, 1, -1, 2**16 - 1, 2**16, -(2**16), 2**24 + 1, 2**31 - 1, -(2**31), 1 - 2**31]


@cache
def random_positions() -> Any:
    drawn = np.random.default_rng(2104_09864).integers(-(2**31), 2**31, size=10_000 - len(EDGES))
    return np.concatenate([EDGES, drawn])


@cache
def exact_table(head_dim: int, base: float) -> tuple[Any, Any]:
    return oracle.cos_sin(random_positions(), rs.RotarySpec(head_dim, base=base))


@pytest.mark.parametrize("base", [1e4, 5e5, 1e6])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("numpy", 2.0**-25 + PHASE_ERROR),
        ("torch", 2.0**-25 + PHASE_ERROR),
        ("jax", 2.0**-24),
        ("jax-x64", 2.0**-25 + PHASE_ERROR),
    ],
    ids=["numpy", "torch", "jax", "jax-x64"],
)
def test_float32_within_one_ulp(name: str, allowed: float, head_dim: int, base: float) -> None:
    """Every pair at 10 000 positions: 320 000 or 640 000 values each of cos and sin."""
    with open_space(name) as space:
        got = rs.cos_sin(space.ids(random_positions()), rs.RotarySpec(head_dim, base=base))
        for values, exact in zip(got, exact_table(head_dim, base)):
            host = space.check(values, exact.shape, "float32").astype(np.float64)
            assert np.max(np.abs(host - exact)) <= allowed + ORACLE_ERROR


@pytest.mark.parametrize("name", ["numpy", "torch", "jax-x64"])
def test_float64_is_off_by_the_phase_alone(name: str) -> None:
    with open_space(name) as space:
        spec = rs.RotarySpec(128)
        got = rs.cos_sin(space.ids(random_positions()), spec, dtype=space.xp.float64)
        bound = oracle.table_error(random_positions(), spec, "float64")[:, None] + ORACLE_ERROR
        for values, exact in zip(got, exact_table(128, 1e4)):
            assert np.all(np.abs(space.to_numpy(values) - exact) <= bound)


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "jax-x64"])
def test_small_angles_keep_their_digits(name: str) -> None:
    """The slow pairs of a short text turn by 1e-6 a position: sin is within an ulp of *itself*.

    Up to 3e-12: float32 holds the fine part of an angle, below 2^-17 turn, to 24 bits, and rounds
    its product with the unit once more.
    """
    spec, near = rs.RotarySpec(128, base=1e6), np.arange(-64, 65)
    with open_space(name) as space:
        _, sin = (space.to_numpy(part) for part in rs.cos_sin(space.ids(near), spec))
    _, exact = oracle.cos_sin(near, spec)
    dropped = 2 * np.pi * 2.0 ** (-17 - 24)
    assert np.all(np.abs(sin - exact) <= 2.0**-23 * np.abs(exact) + dropped)


@pytest.mark.parametrize("base", [1e4, 1e6])
def test_oracle_against_mpmath(base: float) -> None:
    """The oracle's integers are right: cos(m theta) with 60 digits, no reduction of our own."""
    positions = [*EDGES, *random_positions()[-40:].tolist()]
    cos, sin = oracle.cos_sin(positions, rs.RotarySpec(16, base=base))
    with mpmath.workdps(60):
        angle = [[m * theta for theta in oracle.paper_thetas(base, 16)] for m in positions]
        exact = [[[float(f(a)) for a in row] for row in angle] for f in (mpmath.cos, mpmath.sin)]
    assert np.max(np.abs(cos - exact[0])) <= ORACLE_ERROR
    assert np.max(np.abs(sin - exact[1])) <= ORACLE_ERROR


def phase_bits(space: Space, positions: Any, turns: list[int]) -> list[list[int]]:
    """The phases as unsigned 64-bit Python integers."""
    phase = rs.phases(positions, turns, space.xp)
    high, low = (space.check(word, word.shape, "int32").tolist() for word in phase)
    return [[(h % 2**32) << 32 | w % 2**32 for h, w in zip(*rows)] for rows in zip(high, low)]


RANDOM = np.random.default_rng(0)
TURNS = [0, 1, 2**16, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, TURN - 1]
TURNS += RANDOM.integers(0, 2**64, size=200, dtype=np.uint64).tolist()
IDS = [*EDGES, *RANDOM.integers(-(2**31), 2**31, size=200).tolist()]
DTYPES = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_phases_are_integer_arithmetic(space: Space, dtype: str) -> None:
    """m F_i mod 2^64, bit for bit, in every namespace and for every integer dtype."""
    if not space.has(dtype):
        pytest.skip(f"{space.name} has no {dtype}")
    info = np.iinfo(dtype)
    ids = [m for m in [*IDS, info.min, info.max] if info.min <= m <= info.max]
    got = phase_bits(space, space.asarray(np.asarray(ids, dtype=dtype)), TURNS)
    assert got == [[m * f % TURN for f in TURNS] for m in ids]


@given(base=st.floats(1e-3, 1e12), pairs=st.integers(1, 12), factor=st.none() | st.floats(1.0, 1e4))
def test_turns_are_rounded_once(base: float, pairs: int, factor: float | None) -> None:
    """F_i = round(theta_i / 2 pi 2^64) for any base, from mpmath."""
    schedule = rs.Default() if factor is None else rs.Linear(factor)
    spec = rs.RotarySpec(2 * pairs, base=base, schedule=schedule)
    with mpmath.workdps(70):
        exact = [int(mpmath.nint(t / (2 * mpmath.pi) * TURN)) % TURN for t in oracle.thetas(spec)]
    assert list(rs.turns(spec)) == exact


def test_turns_ignore_the_callers_decimal_context() -> None:
    spec = rs.RotarySpec(8, schedule=rs.Llama3(8, 1, 4, 64))
    expected = rs.turns(spec), rs.frequencies(spec).tolist()
    hostile = decimal.Context(prec=3, rounding=decimal.ROUND_UP, traps=[decimal.Inexact])
    with decimal.localcontext(hostile):
        assert (rs.turns(spec), rs.frequencies(spec).tolist()) == expected


@pytest.mark.parametrize("name", ["numpy", "jax"])
def test_quadrant_boundaries(name: str) -> None:
    """At multiples of an eighth of a turn, and one unit to either side, nothing jumps."""
    eighths = [(k * 2**61 + delta) % TURN for k in range(8) for delta in (-1, 0, 1)]
    with open_space(name) as space:
        words = table(space.ids([1]), eighths, 1.0, False, space.xp)
        cos, sin = (space.to_numpy(part)[0].astype(np.float64) for part in words)
    angle = 2 * np.pi * np.asarray([f / TURN for f in eighths])
    bound = 2.0**-24 if name == "jax" else 5 * 2.0**-53 + ORACLE_ERROR
    assert np.max(np.abs(cos - np.cos(angle))) <= bound
    assert np.max(np.abs(sin - np.sin(angle))) <= bound
    assert np.array_equal(cos[1::6] ** 2 + sin[1::6] ** 2, np.ones(4))  # exact at quarter turns
