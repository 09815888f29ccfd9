"""What linear attention needs beside its matrix products, in one pass, as a Numba kernel.

From q and k: R phi(q) and R phi(k), chunk by chunk as the products take them, and the denominators
phi(q) . z, with phi = elu + 1. The arithmetic is float32.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, njit, types

from rotary_spec_backends.kernels.numba_memory import WORDS, compiled, pointer, prefetch
from rotary_spec_backends.kernels.numba_vectors import add, features, turn_features_row

_INT, _THREE = types.intp, types.UniTuple(types.intp, 3)
_AHEAD = 8  # rows; far enough for memory to answer


# Numba wants it without annotations. The order of the sum is the compiler's to choose.
@njit(fastmath={"reassoc", "contract"})
def _dot(a, b, size):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for n in range(size):
        total += a[n] * b[n]
    return total


@cache
def terms(dtype: str, layout: str, output_layout: str) -> Any:
    """The kernel for q and k of that dtype, and those layouts.

    Arguments: addresses of q and k, and of the int64 offset in bytes of each of their rows, a row
    being a sequence; their strides along it; addresses of cos and sin, of each key row's offset in
    them, and their stride; addresses of what is written: the queries' features (rows, chunks,
    groups, size, width) and the keys' (rows, chunks, size, width), turned, the denominators
    (rows, groups, ...), 0 for none, with the stride of a row, and z (rows, width), which goes on;
    sizes (groups, length, size of a chunk, which divides it); lanes (first rotated one, pairs,
    width); whether the denominators are of the turned features; first and last key row.

    z is summed within a chunk first, so that its error grows with their number, not the tokens'.
    """
    item = np.dtype(WORDS[dtype]).itemsize

    def kernel(  # type: ignore[no-untyped-def]
        q, k, q_rows, k_rows, q_step, k_step, cos, sin, table_rows, table_step, turned_q, turned_k,
        totals, total_row, z, sizes, lanes, of_turned, first, last,
    ):  # fmt: skip
        groups, length, size = sizes
        start, pairs, width = lanes
        of_q = carray(pointer(q_rows, np.int64), (last * groups,))
        of_k = carray(pointer(k_rows, np.int64), (last,))
        of_table = carray(pointer(table_rows, np.int64), (last,))
        phi, sums = np.empty(width, np.float32), np.empty(width, np.float32)
        until = np.empty(width, np.float32)
        phi_row, chunk, so_far = phi.ctypes.data, sums.ctypes.data, until.ctypes.data
        stop = start + 2 * pairs
        for row in range(first, last):
            before = z + row * width * 4
            for begin in range(0, length, size):
                for n in range(width):
                    sums[n] = 0
                for t in range(begin, begin + size):
                    c = cos + of_table[row] + t * table_step
                    s = sin + of_table[row] + t * table_step
                    for g in range(-1, groups):  # the key first
                        if g < 0:
                            x = k + of_k[row] + t * k_step
                            y = turned_k + (row * length + t) * width * 4
                        else:
                            x = q + of_q[row * groups + g] + t * q_step
                            place = (row * length + begin) * groups + g * size + t - begin
                            y = turned_q + place * width * 4
                        ahead = _AHEAD * (k_step if g < 0 else q_step)
                        for n in range(0, width * item, 64):
                            prefetch(x + ahead + n)
                        if 2 * pairs < width:
                            features(dtype, x, phi_row, start)
                            features(dtype, x + stop * item, phi_row + stop * 4, width - stop)
                            out = carray(pointer(y, np.float32), (width,))
                            for n in range(width):
                                out[n] = phi[n]
                        turn_features_row(
                            dtype, layout, output_layout, x + start * item, c, s,
                            phi_row + start * 4, y + start * 4, pairs,
                        )  # fmt: skip
                        counted = y if of_turned else phi_row
                        if g < 0:
                            add(counted, chunk, chunk, width)
                            add(before, chunk, so_far, width)
                        elif totals:
                            place = totals + (row * groups + g) * total_row + t * 4
                            total = carray(pointer(place, np.float32), (1,))
                            total[0] = _dot(
                                carray(pointer(counted, np.float32), (width,)), until, width
                            )
                add(before, chunk, before, width)

    ints = [_INT] * 15
    signature = types.void(*ints, _THREE, _THREE, types.boolean, _INT, _INT)
    return compiled(signature, kernel)


@cache
def running_sums() -> Any:
    """The kernel that makes what each chunk adds the sums before it, in place.

    Arguments: address of (rows * chunks + 1, size), where each row's chunks begin one place late;
    address of the sums so far (rows, size), which go on; rows; chunks; size.
    """

    def kernel(added, so_far, rows, chunks, size):  # type: ignore[no-untyped-def]
        step = size * 4
        for row in range(rows):
            total, place = so_far + row * step, added + row * chunks * step
            before = carray(pointer(place, np.float32), (size,))
            so_many = carray(pointer(total, np.float32), (size,))
            for n in range(size):
                before[n] = so_many[n]
            for at in range(place, place + (chunks - 1) * step, step):
                add(at, at + step, at + step, size)
            last = place + (chunks - 1) * step
            add(last, last + step, total, size)

    return compiled(types.void(*[_INT] * 5), kernel)
