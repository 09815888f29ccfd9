"""Pairs of lanes as vectors in Numba kernels, some at a time.

Left to itself the compiler turns loops over the lanes of a row into narrower vectors, after tests
that take as long as the row. Here the instructions are written out, for as many pairs as asked
for: sixteen, and one for what is left. `Values` makes them read like formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import factorial, log
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

WIDE = 16
"""Pairs that a kernel turns at once."""

_INT16, _INT32, _HALF = ir.IntType(16), ir.IntType(32), ir.HalfType()
_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()
_MEMORY = {"float32": _FLOAT, "float64": _DOUBLE, "bfloat16": _INT16, "float16": _HALF}


class Values:
    """A vector of float32 or float64 under construction; numbers stand for vectors of them.

    Where ``fused``, products and sums may be rounded together, which is fast and good, but other
    engines then give other bits.
    """

    def __init__(self, builder: Any, vector: Any, fused: bool = False) -> None:
        self.builder, self.vector, self.fused = builder, vector, fused

    def of(self, number: Any) -> Values:
        """``number`` in every place."""
        vector = self.vector
        if isinstance(number, Values):
            return number
        return Values(self.builder, constant(vector.type, float(number)), self.fused)

    def _with(self, other: Any, instruction: str, fused: bool) -> Values:
        make, flags = getattr(self.builder, instruction), ("contract",) if fused else ()
        made = make(self.vector, self.of(other).vector, flags=flags)
        return Values(self.builder, made, self.fused)

    def __add__(self, other: Any) -> Values:
        return self._with(other, "fadd", self.fused)

    def __sub__(self, other: Any) -> Values:
        return self._with(other, "fsub", self.fused)

    def __mul__(self, other: Any) -> Values:
        return self._with(other, "fmul", self.fused)

    def minus(self, other: Any) -> Values:
        """The difference of what is rounded already."""
        return self._with(other, "fsub", False)

    def where(self, comparison: str, number: Any, otherwise: Any) -> Values:
        """Self in the places where it compares so, ``otherwise`` in the others and for NaN."""
        holds = self.builder.fcmp_ordered(comparison, self.vector, self.of(number).vector)
        chosen = self.builder.select(holds, self.vector, self.of(otherwise).vector)
        return Values(self.builder, chosen, self.fused)


def constant(vector: Any, number: Any) -> Any:
    """``number`` in every place of a vector type."""
    return ir.Constant(vector, [number] * vector.count)


def elu_plus_one(x: Values) -> Values:
    """Exp(x), or x + 1 where x is positive, float32, within 1.02 ulp.

    exp(x) = 2^n exp(r) with |r| at most ln(2) / 2, where the first term that the series leaves out
    is below 2^-27. 2^n comes in two factors, as n may be below -126.
    """
    builder, integers = x.builder, ir.VectorType(_INT32, x.vector.type.count)
    y = Values(builder, x.vector, fused=True).where("<", 0, 0)
    y = y.where(">", _LEAST, _LEAST)
    shifted = y * (1 / log(2)) + _NEAREST
    n = shifted.minus(_NEAREST)
    r = (y - n * _LN2_HIGH) - n * (log(2) - _LN2_HIGH)
    series = y.of(1 / factorial(7))
    for k in range(6, 1, -1):
        series = series * r + 1 / factorial(k)
    exp = (r * r * series + r) + 1
    bits = builder.bitcast(shifted.vector, integers)
    power = builder.sub(bits, constant(integers, int(np.float32(_NEAREST).view(np.int32))))
    half = builder.ashr(power, constant(integers, 1))
    for part in (half, builder.sub(power, half)):
        bits = builder.shl(builder.add(part, constant(integers, 127)), constant(integers, 23))
        exp = exp * Values(builder, builder.bitcast(bits, x.vector.type))
    # The comparison is of x, which may be NaN: then x + 1 is what it should be.
    negative = builder.fcmp_ordered("<=", x.vector, x.of(0).vector)
    return Values(builder, builder.select(negative, exp.vector, (x + 1).vector))


_LEAST = -104  # exp of less rounds to 0
_NEAREST = 1.5 * 2**23  # added and taken away, it leaves the nearest integer
_LN2_HIGH = 0.693359375  # nine bits, so that its products with n are exact


@cache
def turn_pairs(dtype: str, layout: str, output_layout: str, count: int) -> Any:
    """``turn(x, gap, cos, sin, out, out_gap)``, for compiled code, turns ``count`` pairs of a row.

    All are addresses, and gaps in bytes from where the first ``count`` lanes begin to the others:
    neighbours follow on, halves are apart. Words are of that dtype; cos and sin are float64 for
    float64, else float32. What is read is read before anything is written.
    """

    def turn(builder: Any, x: Any, gap: Any, cos: Any, sin: Any, out: Any, out_gap: Any) -> None:
        lanes = Lanes(builder, dtype, count)
        table = Lanes(builder, "float64" if dtype == "float64" else "float32", count)
        a, b = lanes.load_pairs(x, gap, layout)
        c, s = table.load(cos), table.load(sin)
        lanes.store_pairs((a * c - b * s, b * c + a * s), out, out_gap, output_layout)

    def typed(context: Any, x: Any, gap: Any, cos: Any, sin: Any, out: Any, out_gap: Any) -> Any:
        return procedure(turn, [types.intp] * 6)

    return intrinsic(typed)


@cache
def turn_features(dtype: str, layout: str, output_layout: str, count: int) -> Any:
    """`turn_pairs` of elu + 1: ``turn(x, gap, cos, sin, phi, phi_gap, out, out_gap)``.

    ``phi`` takes the features before they are turned, as they lie in x; it and ``out`` are float32.
    """

    def turn(
        builder: Any, x: Any, gap: Any, cos: Any, sin: Any, phi: Any, phi_gap: Any, out: Any,
        out_gap: Any,
    ) -> None:  # fmt: skip
        lanes = Lanes(builder, "float32", count)
        a, b = map(elu_plus_one, Lanes(builder, dtype, count).load_pairs(x, gap, layout))
        c, s = lanes.load(cos), lanes.load(sin)
        lanes.store_pairs((a, b), phi, phi_gap, layout)
        lanes.store_pairs((a * c - b * s, b * c + a * s), out, out_gap, output_layout)

    def typed(
        context: Any, x: Any, gap: Any, cos: Any, sin: Any, phi: Any, phi_gap: Any, out: Any,
        out_gap: Any,
    ) -> Any:  # fmt: skip
        return procedure(turn, [types.intp] * 8)

    return intrinsic(typed)


@cache
def features(dtype: str, count: int) -> Any:
    """``features(x, out)``, for compiled code: elu + 1 of ``count`` lanes, as float32."""

    def evaluate(builder: Any, x: Any, out: Any) -> None:
        phi = elu_plus_one(Lanes(builder, dtype, count).load(x))
        Lanes(builder, "float32", count).store(phi, out)

    def typed(context: Any, x: Any, out: Any) -> Any:
        return procedure(evaluate, [types.intp] * 2)

    return intrinsic(typed)


@cache
def add_lanes(count: int) -> Any:
    """``add(a, b, out)``, for compiled code: the sums of ``count`` lanes, float32."""

    def add(builder: Any, a: Any, b: Any, out: Any) -> None:
        lanes = Lanes(builder, "float32", count)
        lanes.store(lanes.load(a) + lanes.load(b), out)

    def typed(context: Any, a: Any, b: Any, out: Any) -> Any:
        return procedure(add, [types.intp] * 3)

    return intrinsic(typed)


def procedure(generate: Callable[..., None], arguments: list[Any]) -> Any:
    """What Numba is to know of a procedure on arguments of these types."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        generate(builder, *values)
        return context.get_dummy_value()

    return types.void(*arguments), code


class Lanes:
    """``count`` words of a dtype at an address, as `Values`, and back, rounded to nearest."""

    def __init__(self, builder: Any, dtype: str, count: int) -> None:
        self.builder, self.dtype = builder, dtype
        self._memory = ir.VectorType(_MEMORY[dtype], count)
        self._floats = ir.VectorType(_DOUBLE if dtype == "float64" else _FLOAT, count)
        self._integers = ir.VectorType(_INT32, count)
        self._itemsize = {"float32": 4, "float64": 8}.get(dtype, 2)

    def load(self, address: Any) -> Values:
        """The words at an address."""
        builder = self.builder
        at = builder.inttoptr(address, self._memory.as_pointer())
        words = builder.load(at, align=self._itemsize)
        if self.dtype == "bfloat16":
            bits = builder.zext(words, self._integers)
            words = builder.bitcast(builder.shl(bits, constant(self._integers, 16)), self._floats)
        elif self.dtype == "float16":
            words = builder.fpext(words, self._floats)
        return Values(builder, words)

    def store(self, values: Values, address: Any) -> None:
        """Write the nearest words to values, ties to even."""
        builder, words = self.builder, values.vector
        if self.dtype == "bfloat16":
            words = builder.trunc(self._bfloat16_bits(words), self._memory)
        elif words.type != self._memory and self.dtype != "float64":
            words = builder.fptrunc(words, self._memory)
        at = builder.inttoptr(address, self._memory.as_pointer())
        builder.store(words, at, align=self._itemsize)

    def _bfloat16_bits(self, words: Any) -> Any:
        builder, sixteen = self.builder, constant(self._integers, 16)
        bits = builder.bitcast(words, self._integers)
        odd = builder.and_(builder.lshr(bits, sixteen), constant(self._integers, 1))
        up = builder.add(builder.add(bits, constant(self._integers, 0x7FFF)), odd)
        # Adding to the bits of a NaN could carry it over to an infinity.
        nan = builder.fcmp_unordered("uno", words, words)
        return builder.select(nan, constant(self._integers, 0x7FC0), builder.lshr(up, sixteen))

    def load_pairs(self, address: Any, gap: Any, layout: str) -> tuple[Values, Values]:
        """The first and the second members of ``count`` pairs."""
        parts = self.load(address), self.load(self.builder.add(address, gap))
        if layout != "interleaved":
            return parts
        count = self._floats.count
        return self._shuffled(parts, range(0, 2 * count, 2)), self._shuffled(
            parts, range(1, 2 * count, 2)
        )

    def store_pairs(self, pair: tuple[Values, Values], address: Any, gap: Any, layout: str) -> None:
        """The reverse of `load_pairs`."""
        if layout == "interleaved":
            count = self._floats.count
            order = [n // 2 + count * (n % 2) for n in range(2 * count)]
            pair = self._shuffled(pair, order[:count]), self._shuffled(pair, order[count:])
        self.store(pair[0], address)
        self.store(pair[1], self.builder.add(address, gap))

    def _shuffled(self, parts: tuple[Values, Values], order: Any) -> Values:
        mask = ir.Constant(self._integers, list(order))
        chosen = self.builder.shuffle_vector(parts[0].vector, parts[1].vector, mask)
        return Values(self.builder, chosen)
