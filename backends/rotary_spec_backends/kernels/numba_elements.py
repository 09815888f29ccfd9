"""Elements of every dtype in Numba: from memory to the arithmetic and back, rounded once.

The type of the word in memory says which: float32, float64, uint16 for the bits of a bfloat16,
int16 for those of a float16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

WORDS: dict[str, Any] = {
    "float32": np.float32,
    "float64": np.float64,
    "bfloat16": np.uint16,
    "float16": np.int16,
}
"""The word of each dtype."""

_FLOAT, _INT32, _HALF, _INT16 = ir.FloatType(), ir.IntType(32), ir.HalfType(), ir.IntType(16)
_LINE = ir.VectorType(_INT32, 16)  # 64 bytes


def _pointer(context: Any, address: Any, word: Any) -> Any:
    """``address``, an integer, as a pointer to words of that type."""
    target = types.CPointer(word.instance_type)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(target))

    return target(types.intp, word), generate


def _float_of_bits(context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _FLOAT)

    return types.float32(types.uint32), generate


def _bits_of_float(context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _INT32)

    return types.uint32(types.float32), generate


def _half_to_float(context: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], _HALF), _FLOAT)

    return types.float32(types.int16), generate


def _float_to_half(context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], _HALF), _INT16)

    return types.int16(types.float32), generate


def _stream_line(context: Any, target: Any, source: Any) -> Any:
    """64 bytes to an address that is a multiple of 64, past the caches where a machine can."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, at = (builder.inttoptr(a, _LINE.as_pointer()) for a in arguments)
        line = builder.store(builder.load(at, align=1), to, align=64)
        line.set_metadata("nontemporal", builder.module.add_metadata([_INT32(1)]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


def _prefetch(context: Any, address: Any) -> Any:
    """The line with that address is wanted soon; no error where nothing is mapped."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _INT32, _INT32, _INT32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        read, keep, data = _INT32(0), _INT32(3), _INT32(1)
        builder.call(function, [builder.inttoptr(arguments[0], byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.intp), generate


def _fence(context: Any) -> Any:
    """Streamed lines go before anything that follows: an unlock alone does not see to it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


pointer = intrinsic(_pointer)
stream_line = intrinsic(_stream_line)
fence = intrinsic(_fence)
prefetch = intrinsic(_prefetch)
float_of_bits = intrinsic(_float_of_bits)
bits_of_float = intrinsic(_bits_of_float)
half_to_float = intrinsic(_half_to_float)
float_to_half = intrinsic(_float_to_half)


def load(word: Any) -> Any:
    """The value of a word, float32 or float64. In compiled code only."""
    raise NotImplementedError


def store(value: Any, word: Any) -> Any:
    """The nearest word of a type to a value, ties to even. In compiled code only."""
    raise NotImplementedError


# Numba wants these without annotations, as the lambdas are.
def _load(word):  # type: ignore[no-untyped-def]
    if word == types.uint16:
        return lambda word: float_of_bits(np.uint32(word) << np.uint32(16))
    if word == types.int16:
        return lambda word: half_to_float(word)
    return lambda word: word


def _store(value, word):  # type: ignore[no-untyped-def]
    if word.instance_type == types.uint16:
        return _bfloat16
    if word.instance_type == types.int16:
        return lambda value, word: float_to_half(value)
    return lambda value, word: value


def _bfloat16(value, word):  # type: ignore[no-untyped-def]
    bits = bits_of_float(value)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
    # Adding to the bits of a NaN could carry it over to an infinity.
    return rounded if value == value else np.uint16(0x7FC0)


overload(load)(_load)
overload(store)(_store)
