"""Memory in Numba kernels: words at an address, and lines of it past the caches or ahead of time.

A word holds one element: float32, float64, uint16 the bits of a bfloat16, int16 those of a float16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

WORDS: dict[str, Any] = {
    "float32": np.float32,
    "float64": np.float64,
    "bfloat16": np.uint16,
    "float16": np.int16,
}
"""The word of each dtype."""

_INT32 = ir.IntType(32)
_LINE = ir.VectorType(_INT32, 16)  # 64 bytes


def _pointer(context: Any, address: Any, word: Any) -> Any:
    """``address``, an integer, as a pointer to words of that type."""
    target = types.CPointer(word.instance_type)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(target))

    return target(types.intp, word), generate


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


def compiled(signature: Any, kernel: Any) -> Any:
    """``kernel`` for that signature, kept on disk; it releases the interpreter lock."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(signature, cache=True, **options)(kernel)
    except RuntimeError:  # there is no folder to keep it in
        return njit(signature, **options)(kernel)
