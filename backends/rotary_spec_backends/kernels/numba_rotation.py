"""The rotation and its table as Numba kernels, compiled on first use and kept on disk.

Kernels take addresses and strides, so that one of them serves every array; they release the
interpreter lock and run in the caller's thread. Rows are reached by three axes; a task is a block
of them, so that a block of the table stays in cache while all heads use it.
"""

from __future__ import annotations

from functools import cache
from math import factorial
from typing import Any

import numpy as np
from numba import carray, njit, types

from rotary_spec_backends.kernels.numba_elements import (
    WORDS,
    fence,
    load,
    pointer,
    prefetch,
    store,
    stream_line,
)

_INT, _THREE, _FIVE = types.intp, types.UniTuple(types.intp, 3), types.UniTuple(types.intp, 5)
_AHEAD = 8  # rows; far enough for memory to answer


@cache
def rotation(dtype: str, layout: str, output_layout: str) -> Any:
    """The kernel of that dtype and those layouts.

    Arguments: addresses of source, target, cos and sin (float64 for float64, else float32); three
    sizes; three strides each of source, target and tables, in bytes; block sizes of the last two
    axes; lanes (first rotated one, pairs, how many at the front and where from
    to the end of the row to copy); how many rows that follow on in the target to write at once past
    the caches, 0 for ordinary writes; first and last task.
    """
    word = WORDS[dtype]
    wide = np.float64 if dtype == "float64" else np.float32
    neighbours, to_neighbours = layout == "interleaved", output_layout == "interleaved"

    def kernel(  # type: ignore[no-untyped-def]
        source, target, cos, sin, sizes, sources, targets, tables, block, block_last, lanes, stream,
        first, last,
    ):  # fmt: skip
        start, pairs, front, back, end = lanes
        across = (sizes[2] + block_last - 1) // block_last
        tasks = (sizes[1] + block - 1) // block * across
        # In place, a row is read before any of it is written; and where source and target cannot
        # be the same memory, the loops need no check for it.
        turned = np.empty(2 * pairs, word)
        # Whole lines alone go past the caches; of a row by itself the ends may be parts of lines.
        held = np.empty(max(1, stream) * end, word)
        held_at, itemsize = held.ctypes.data, held.itemsize
        for task in range(first, last):
            i = task // tasks
            j_first = task % tasks // across * block
            k_first = task % across * block_last
            for j in range(j_first, min(sizes[1], j_first + block)):
                place = 0
                k_end = min(sizes[2], k_first + block_last)
                for k in range(k_first, k_end):
                    x_row = source + i * sources[0] + j * sources[1] + k * sources[2]
                    y_row = target + i * targets[0] + j * targets[1] + k * targets[2]
                    if stream:
                        for n in range(0, end * itemsize, 64):
                            prefetch(x_row + _AHEAD * sources[2] + n)
                    at = i * tables[0] + j * tables[1] + k * tables[2]
                    x = carray(pointer(x_row, word), (end,))
                    y = carray(pointer(y_row, word), (end,))
                    c = carray(pointer(cos + at, wide), (pairs,))
                    s = carray(pointer(sin + at, wide), (pairs,))
                    # Indices that start from 0 need no look at their sign, and so make vectors.
                    lane, to = x[start : start + 2 * pairs], y[start : start + 2 * pairs]
                    for p in range(pairs):
                        if neighbours:
                            a, b = load(lane[2 * p]), load(lane[2 * p + 1])
                        else:
                            a, b = load(lane[p]), load(lane[p + pairs])
                        u = store(a * c[p] - b * s[p], word)
                        v = store(b * c[p] + a * s[p], word)
                        if to_neighbours:
                            turned[2 * p], turned[2 * p + 1] = u, v
                        else:
                            turned[p], turned[p + pairs] = u, v
                    if stream:
                        row = held[place * end :]
                        for n in range(front):
                            row[n] = x[n]
                        for n in range(back, end):
                            row[n] = x[n]
                        row = row[start : start + 2 * pairs]
                        for n in range(2 * pairs):
                            row[n] = turned[n]
                        place += 1
                        if place == stream or k == k_end - 1:
                            count = place * end
                            y_row -= (place - 1) * targets[2]
                            place = 0
                            y = carray(pointer(y_row, word), (count,))
                            whole = min(count, (-y_row & 63) // itemsize)
                            rest = count - (count - whole) % (64 // itemsize)
                            for n in range(whole):
                                y[n] = held[n]
                            for n in range(whole * itemsize, rest * itemsize, 64):
                                stream_line(y_row + n, held_at + n)
                            for n in range(rest, count):
                                y[n] = held[n]
                        continue
                    for n in range(2 * pairs):
                        to[n] = turned[n]
                    for n in range(front):
                        y[n] = x[n]
                    x, y = x[back:], y[back:]
                    for n in range(end - back):
                        y[n] = x[n]
            if stream:
                fence()

    signature = types.void(*[_INT] * 4, *[_THREE] * 4, _INT, _INT, _FIVE, _INT, _INT, _INT)
    return _compiled(signature, kernel)


_RADIANS = 2 * np.pi / 2.0**64
_C2, _C4, _C6, _C8, _C10, _C12 = ((-1) ** (n // 2) / factorial(n) for n in range(2, 13, 2))
_S3, _S5, _S7, _S9, _S11, _S13 = ((-1) ** (n // 2) / factorial(n) for n in range(3, 14, 2))


@cache
def table() -> Any:
    """The kernel of A cos and A sin for int64 positions, rounded to float32 once.

    Arguments: addresses of positions, of the frequencies in 2^-64 turns, of cos and of sin; pairs;
    factors of cos and of sin; first and last position.

    The phase is the 64-bit product, its quadrant comes from the top bits, and the remainder, at
    most an eighth of a turn, goes through the Taylor series in float64: the first term left out is
    below 2^-41.
    """

    def kernel(positions, turns, cos, sin, pairs, times_cos, times_sin, first, last):  # type: ignore[no-untyped-def]
        m = carray(pointer(positions, np.int64), (last,))
        f = carray(pointer(turns, np.int64), (pairs,))
        for row in range(first, last):
            c = carray(pointer(cos + row * pairs * 4, np.float32), (pairs,))
            s = carray(pointer(sin + row * pairs * 4, np.float32), (pairs,))
            for p in range(pairs):
                phase = m[row] * f[p]
                quadrant = ((phase >> 61) + 1) >> 1
                angle = np.float64(phase - (quadrant << 62)) * _RADIANS
                z = angle * angle
                even = _C8 + z * (_C10 + z * _C12)
                even = 1.0 + z * (_C2 + z * (_C4 + z * (_C6 + z * even)))
                odd = _S9 + z * (_S11 + z * _S13)
                odd = angle + angle * z * (_S3 + z * (_S5 + z * (_S7 + z * odd)))
                crossed = (quadrant & 1) == 1
                even, odd = -odd if crossed else even, even if crossed else odd
                sign = 1.0 - np.float64(quadrant & 2)
                even, odd = sign * even, sign * odd
                c[p], s[p] = np.float32(times_cos * even), np.float32(times_sin * odd)

    ints, floats = [_INT] * 5, [types.float64] * 2
    return _compiled(types.void(*ints, *floats, _INT, _INT), kernel)


def _compiled(signature: Any, kernel: Any) -> Any:
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(signature, cache=True, **options)(kernel)
    except RuntimeError:  # there is no folder to keep it in
        return njit(signature, **options)(kernel)
