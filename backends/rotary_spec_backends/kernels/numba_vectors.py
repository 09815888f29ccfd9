"""Pairs of lanes as vectors in Numba kernels, some at a time.

Left to itself the compiler turns loops over the lanes of a row into narrower vectors, after tests
that take as long as the row. Here the instructions are written out, for sixteen pairs, and for one
of what is left. `Values` makes them read like formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial, log
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WIDE = 16
"""Lanes or pairs at once."""

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


def _turn_row(
    context: Any, dtype: Any, layout: Any, output_layout: Any, x: Any, cos: Any, sin: Any, out: Any,
    pairs: Any,
) -> Any:  # fmt: skip
    """``turn_row(dtype, layout, output_layout, x, cos, sin, out, pairs)``: rotate a row's pairs.

    From address to address, words of that dtype; cos and sin are float64 for float64, else float32.
    In place only where the layouts are the same.
    """

    def turn(builder: Any, names: Any, x: Any, cos: Any, sin: Any, out: Any, pairs: Any) -> None:
        dtype, layout, output_layout = names

        def some(first: Any, count: int) -> None:
            lanes = Lanes(builder, dtype, count)
            table = Lanes(builder, "float64" if dtype == "float64" else "float32", count)
            a, b = lanes.load_pairs(x, first, pairs, layout)
            c, s = table.load(cos, first), table.load(sin, first)
            lanes.store_pairs((a * c - b * s, b * c + a * s), out, first, pairs, output_layout)

        in_vectors(builder, pairs, some)

    return procedure(turn, [types.intp] * 5, dtype, layout, output_layout)


def _turn_features_row(
    context: Any, dtype: Any, layout: Any, output_layout: Any, x: Any, cos: Any, sin: Any, phi: Any,
    out: Any, pairs: Any,
) -> Any:  # fmt: skip
    """`_turn_row` of elu + 1.

    ``phi`` takes the features before they are turned, as they lie in x; it and ``out`` are float32.
    """

    def turn(
        builder: Any, names: Any, x: Any, cos: Any, sin: Any, phi: Any, out: Any, pairs: Any
    ) -> None:
        dtype, layout, output_layout = names

        def some(first: Any, count: int) -> None:
            lanes, words = Lanes(builder, "float32", count), Lanes(builder, dtype, count)
            a, b = map(elu_plus_one, words.load_pairs(x, first, pairs, layout))
            c, s = lanes.load(cos, first), lanes.load(sin, first)
            lanes.store_pairs((a, b), phi, first, pairs, layout)
            lanes.store_pairs((a * c - b * s, b * c + a * s), out, first, pairs, output_layout)

        in_vectors(builder, pairs, some)

    return procedure(turn, [types.intp] * 6, dtype, layout, output_layout)


def _features(context: Any, dtype: Any, x: Any, out: Any, size: Any) -> Any:
    """``features(dtype, x, out, size)``: elu + 1 of a run of lanes, as float32."""

    def evaluate(builder: Any, names: Any, x: Any, out: Any, size: Any) -> None:
        def some(first: Any, count: int) -> None:
            phi = elu_plus_one(Lanes(builder, names[0], count).load(x, first))
            Lanes(builder, "float32", count).store(phi, out, first)

        in_vectors(builder, size, some)

    return procedure(evaluate, [types.intp] * 3, dtype)


def _add(context: Any, a: Any, b: Any, out: Any, size: Any) -> Any:
    """``add(a, b, out, size)``: the sums of two runs of float32 lanes."""

    def sums(builder: Any, names: Any, a: Any, b: Any, out: Any, size: Any) -> None:
        def some(first: Any, count: int) -> None:
            lanes = Lanes(builder, "float32", count)
            lanes.store(lanes.load(a, first) + lanes.load(b, first), out, first)

        in_vectors(builder, size, some)

    return procedure(sums, [types.intp] * 4)


def in_vectors(builder: Any, size: Any, some: Callable[[Any, int], None]) -> None:
    """Call ``some(first, count)`` to write the code for lanes or pairs: `WIDE`, then one by one."""
    zero, one, wide = (ir.Constant(size.type, n) for n in (0, 1, WIDE))
    whole = builder.sub(size, builder.srem(size, wide))
    for start, stop, step in ((zero, whole, wide), (whole, size, one)):
        with cgutils.for_range_slice(builder, start, stop, step) as (first, _):
            some(first, step.constant)


def procedure(generate: Callable[..., None], arguments: list[Any], *names: Any) -> Any:
    """What Numba is to know of a procedure: literal strings, then arguments of these types.

    ``generate(builder, names, ...)`` writes it. Kernels keep the strings, which, unlike functions
    made for them, are the same in every process: the compiled kernels on disk go by that.
    """

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        said = [literal.literal_value for literal in signature.args[: len(names)]]
        generate(builder, said, *values[len(names) :])
        return context.get_dummy_value()

    return types.void(*names, *arguments), code


turn_row = intrinsic(prefer_literal=True)(_turn_row)
turn_features_row = intrinsic(prefer_literal=True)(_turn_features_row)
features = intrinsic(prefer_literal=True)(_features)
add = intrinsic(_add)


class Lanes:
    """``count`` words of a dtype at an address, as `Values`, and back, rounded to nearest."""

    def __init__(self, builder: Any, dtype: str, count: int) -> None:
        self.builder, self.dtype = builder, dtype
        self._memory = ir.VectorType(_MEMORY[dtype], count)
        self._floats = ir.VectorType(_DOUBLE if dtype == "float64" else _FLOAT, count)
        self._integers = ir.VectorType(_INT32, count)
        self._itemsize = {"float32": 4, "float64": 8}.get(dtype, 2)

    def _at(self, row: Any, first: Any) -> Any:
        offset = self.builder.mul(first, ir.Constant(first.type, self._itemsize))
        return self.builder.inttoptr(self.builder.add(row, offset), self._memory.as_pointer())

    def load(self, row: Any, first: Any) -> Values:
        """The words from the ``first`` on, of a row at an address."""
        builder = self.builder
        words = builder.load(self._at(row, first), align=self._itemsize)
        if self.dtype == "bfloat16":
            bits = builder.zext(words, self._integers)
            words = builder.bitcast(builder.shl(bits, constant(self._integers, 16)), self._floats)
        elif self.dtype == "float16":
            words = builder.fpext(words, self._floats)
        return Values(builder, words)

    def store(self, values: Values, row: Any, first: Any) -> None:
        """Write the nearest words to values, ties to even."""
        builder, words = self.builder, values.vector
        if self.dtype == "bfloat16":
            words = builder.trunc(self._bfloat16_bits(words), self._memory)
        elif words.type != self._memory:
            words = builder.fptrunc(words, self._memory)
        builder.store(words, self._at(row, first), align=self._itemsize)

    def _bfloat16_bits(self, words: Any) -> Any:
        builder, sixteen = self.builder, constant(self._integers, 16)
        bits = builder.bitcast(words, self._integers)
        odd = builder.and_(builder.lshr(bits, sixteen), constant(self._integers, 1))
        up = builder.add(builder.add(bits, constant(self._integers, 0x7FFF)), odd)
        # Adding to the bits of a NaN could carry it over to an infinity.
        nan = builder.fcmp_unordered("uno", words, words)
        return builder.select(nan, constant(self._integers, 0x7FC0), builder.lshr(up, sixteen))

    def _members(self, pair: Any, pairs: Any, layout: str) -> tuple[Any, Any]:
        """The lanes from which on the members of pairs lie: neighbours follow on, halves do not."""
        if layout != "interleaved":
            return pair, self.builder.add(pair, pairs)
        lane = self.builder.mul(pair, ir.Constant(pair.type, 2))
        return lane, self.builder.add(lane, ir.Constant(pair.type, self._floats.count))

    def load_pairs(self, row: Any, pair: Any, pairs: Any, layout: str) -> tuple[Values, Values]:
        """The first and the second members, from a ``pair`` on, in a row of so many pairs."""
        first, second = (self.load(row, lane) for lane in self._members(pair, pairs, layout))
        if layout != "interleaved":
            return first, second
        lanes = range(2 * self._floats.count)
        return self._shuffled(first, second, lanes[::2]), self._shuffled(first, second, lanes[1::2])

    def store_pairs(
        self, members: tuple[Values, Values], row: Any, pair: Any, pairs: Any, layout: str
    ) -> None:
        """The reverse of `load_pairs`."""
        first, second = members
        if layout == "interleaved":
            count = self._floats.count
            order = [n // 2 + count * (n % 2) for n in range(2 * count)]
            first, second = (
                self._shuffled(*members, part) for part in (order[:count], order[count:])
            )
        for values, lane in zip((first, second), self._members(pair, pairs, layout)):
            self.store(values, row, lane)

    def _shuffled(self, first: Values, second: Values, order: Any) -> Values:
        mask = ir.Constant(self._integers, list(order))
        return Values(self.builder, self.builder.shuffle_vector(first.vector, second.vector, mask))
