"""The table of a rotation as a Numba kernel: cos and sin of exact phases."""

from __future__ import annotations

from functools import cache
from math import factorial, pi
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from rotary_spec_backends.kernels.numba_memory import compiled, pointer
from rotary_spec_backends.kernels.numba_vectors import (
    Lanes,
    Values,
    constant,
    in_vectors,
    procedure,
)

_INT, _INT64 = types.intp, ir.IntType(64)
_EVEN, _ODD = (
    [(-1) ** (n // 2) / factorial(n) for n in range(first, first + 13, 2)] for first in (0, 1)
)


@cache
def table() -> Any:
    """The kernel of A cos and A sin for int64 positions, rounded to float32 once.

    Arguments: addresses of positions, of the frequencies in 2^-64 turns, of cos and of sin; pairs;
    factors of cos and of sin; first and last position.
    """

    def kernel(positions, turns, cos, sin, pairs, times_cos, times_sin, first, last):  # type: ignore[no-untyped-def]
        m = carray(pointer(positions, np.int64), (last,))
        for row in range(first, last):
            c, s = cos + row * pairs * 4, sin + row * pairs * 4
            _angles(m[row], turns, c, s, times_cos, times_sin, pairs)

    ints, floats = [_INT] * 5, [types.float64] * 2
    return compiled(types.void(*ints, *floats, _INT, _INT), kernel)


def _table_row(
    context: Any, position: Any, turns: Any, cos: Any, sin: Any, times_cos: Any, times_sin: Any,
    pairs: Any,
) -> Any:  # fmt: skip
    """One position's row of the table. The phase is the 64-bit product."""

    def write(
        builder: Any, names: Any, position: Any, turns: Any, cos: Any, sin: Any, times_cos: Any,
        times_sin: Any, pairs: Any,
    ) -> None:  # fmt: skip
        def some(first: Any, count: int) -> None:
            integers = ir.VectorType(_INT64, count)
            at = builder.add(turns, builder.mul(first, _INT64(8)))
            frequencies = builder.load(builder.inttoptr(at, integers.as_pointer()), align=8)
            phase = builder.mul(_everywhere(builder, position, integers), frequencies)
            narrow = Lanes(builder, "float32", count)
            for values, factor, row in zip(
                _cos_and_sin(builder, phase), (times_cos, times_sin), (cos, sin)
            ):
                times = Values(builder, _everywhere(builder, factor, values.vector.type))
                narrow.store(values * times, row, first)

        in_vectors(builder, pairs, some)

    return procedure(write, [types.int64, *[_INT] * 3, *[types.float64] * 2, _INT])


_angles = intrinsic(_table_row)


def _cos_and_sin(builder: Any, phase: Any) -> tuple[Values, Values]:
    """Cos and sin of phases in 2^-64 turns, as float64.

    The quadrant comes from the top bits, and the remainder, at most an eighth of a turn, goes
    through the Taylor series: the first term left out is below 2^-41.
    """
    integers = phase.type
    doubles = ir.VectorType(ir.DoubleType(), integers.count)

    def whole(number: int) -> Any:
        return constant(integers, number)

    quadrant = builder.ashr(builder.add(builder.ashr(phase, whole(61)), whole(1)), whole(1))
    rest = builder.sub(phase, builder.shl(quadrant, whole(62)))
    angle = Values(builder, builder.sitofp(rest, doubles), fused=True) * (2 * pi / 2.0**64)
    square = angle * angle
    even, odd = _series(_EVEN, square), _series(_ODD, square) * angle
    crossed = builder.icmp_signed("!=", builder.and_(quadrant, whole(1)), whole(0))
    # cos(x + quarter) = -sin(x), sin(x + quarter) = cos(x), and half a turn is the sign of both.
    half = builder.shl(builder.and_(quadrant, whole(2)), whole(62))
    quarter = builder.shl(builder.and_(quadrant, whole(1)), whole(63))
    signs = builder.xor(half, quarter), half
    cos = builder.select(crossed, odd.vector, even.vector)
    sin = builder.select(crossed, even.vector, odd.vector)
    signed = [builder.xor(builder.bitcast(x, integers), s) for x, s in zip((cos, sin), signs)]
    cos, sin = (Values(builder, builder.bitcast(x, doubles)) for x in signed)
    return cos, sin


def _series(coefficients: list[float], x: Values) -> Values:
    *lower, highest = coefficients
    total = x.of(highest)
    for coefficient in reversed(lower):
        total = total * x + coefficient
    return total


def _everywhere(builder: Any, scalar: Any, vector: Any) -> Any:
    place = ir.IntType(32)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, place(0))
    zeros = ir.Constant(ir.VectorType(place, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)
