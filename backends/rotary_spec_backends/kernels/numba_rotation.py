"""The rotation as a Numba kernel, compiled on first use and kept on disk.

Kernels take addresses and strides, so that one of them serves every array; they release the
interpreter lock and run in the caller's thread. Rows are reached by three axes; a task is a block
of them, so that a block of the table stays in cache while all heads use it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, types

from rotary_spec_backends.kernels.numba_memory import (
    WORDS,
    compiled,
    fence,
    pointer,
    prefetch,
    stream_line,
)
from rotary_spec_backends.kernels.numba_vectors import turn_row

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
    item = np.dtype(word).itemsize
    crossing = layout != output_layout

    def kernel(  # type: ignore[no-untyped-def]
        source, target, cos, sin, sizes, sources, targets, tables, block, block_last, lanes, stream,
        first, last,
    ):  # fmt: skip
        start, pairs, front, back, end = lanes
        across = (sizes[2] + block_last - 1) // block_last
        tasks = (sizes[1] + block - 1) // block * across
        # In place, lanes that change places are all read before any of them is written.
        turned = np.empty(2 * pairs, word)
        # Whole lines alone go past the caches; of a row by itself the ends may be parts of lines.
        held = np.empty(max(1, stream) * end, word)
        turned_at, held_at = turned.ctypes.data, held.ctypes.data
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
                        for n in range(0, end * item, 64):
                            prefetch(x_row + _AHEAD * sources[2] + n)
                    at = i * tables[0] + j * tables[1] + k * tables[2]
                    row = held_at + place * end * item if stream else y_row
                    b = row + start * item
                    to = turned_at if crossing and not stream else b
                    a, c, s = x_row + start * item, cos + at, sin + at
                    turn_row(dtype, layout, output_layout, a, c, s, to, pairs)
                    if to != b:
                        y = carray(pointer(b, word), (2 * pairs,))
                        for n in range(2 * pairs):
                            y[n] = turned[n]
                    if front or back < end:
                        x = carray(pointer(x_row, word), (end,))
                        y = carray(pointer(row, word), (end,))
                        for n in range(front):
                            y[n] = x[n]
                        for n in range(back, end):
                            y[n] = x[n]
                    if stream:
                        place += 1
                        if place == stream or k == k_end - 1:
                            count = place * end
                            y_row -= (place - 1) * targets[2]
                            place = 0
                            y = carray(pointer(y_row, word), (count,))
                            whole_lines = min(count, (-y_row & 63) // item)
                            rest = count - (count - whole_lines) % (64 // item)
                            for n in range(whole_lines):
                                y[n] = held[n]
                            for n in range(whole_lines * item, rest * item, 64):
                                stream_line(y_row + n, held_at + n)
                            for n in range(rest, count):
                                y[n] = held[n]
            if stream:
                fence()

    signature = types.void(*[_INT] * 4, *[_THREE] * 4, _INT, _INT, _FIVE, _INT, _INT, _INT)
    return compiled(signature, kernel)
