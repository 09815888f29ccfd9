"""The Numba engine: addresses, strides and tasks for the kernels of `kernels.numba_rotation`."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import cache, partial
from importlib.util import find_spec
from itertools import pairwise, product
from typing import Any

import numpy as np

from rotary_spec.layouts import rotated_lanes
from rotary_spec.spec import RotarySpec
from rotary_spec_backends.frameworks import HostArray
from rotary_spec_backends.host import threads
from rotary_spec_backends.host.rows import Axis, row_axes

Tables = tuple[HostArray, HostArray]

STREAM = 2**23
"""Bytes of a target above which it goes past the caches: a smaller one is still there for the next
reader, a larger one would be read from memory once more before it is written."""

_HELD = 2**13  # bytes of rows that are written past the caches at once
_TABLE_BLOCK = 2**17  # bytes of cos and sin that stay in a core's second cache beside the rows
_TASK = 2**16  # bytes of rows below which a task costs more to hand out than to do
_JOBS = 4  # per thread, so that one that was held up leaves its share to the others


@cache
def unusable() -> str | None:
    """Why there is no such engine; None where there is one."""
    if find_spec("numba") is None:
        return "numba is not installed; pip install 'rotary-spec[numba]'"
    try:
        import numba  # noqa: F401
    except Exception as error:  # an installed package may break in any way while importing
        return f"numba failed to import: {error}"
    return None


@cache
def has_dtype(dtype: str) -> bool:
    """Whether the kernels have it: float16 needs conversions in hardware."""
    if dtype != "float16":
        return True
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    from llvmlite import binding

    return bool(binding.get_host_cpu_features().get("f16c", False))


def float32_table(
    positions: HostArray, turns: tuple[int, ...], factors: tuple[float, float], limit: int
) -> Tables:
    """A cos and A sin of integer positions, float32, of shape (positions, pairs)."""
    from rotary_spec_backends.kernels import numba_table

    ids = np.ascontiguousarray(positions, dtype=np.int64).reshape(-1)
    words = _words(turns)
    # In one piece: the allocator keeps what is freed, up to twice the largest piece there was.
    cos, sin = np.empty((2, ids.size, words.size), np.float32)
    call = partial(
        numba_table.table(),
        *(a.ctypes.data for a in (ids, words, cos, sin)), words.size, *factors,
    )  # fmt: skip
    # An element takes about as long as 16 bytes of rows.
    threads.run(jobs(call, ids.size, 16 * cos.size, limit), limit)
    return cos, sin


@cache
def _words(turns: tuple[int, ...]) -> HostArray:
    return np.asarray([f % 2**64 for f in turns], dtype=np.uint64).view(np.int64)


def rotate_rows(
    target: HostArray,
    source: HostArray,
    dtype: str,
    tables: Tables,
    position_shape: tuple[int, ...],
    spec: RotarySpec,
    axis: int,
    limit: int,
    fresh: bool,
) -> Iterator[threads.Job]:
    """What is to be run for one array: ``source`` rotated into ``target``, perhaps the same memory.

    ``fresh``: the system has yet to give the target its pages, and clears them in cache as it does.
    The lanes of both lie side by side. The tables' rows are those of positions of that shape.
    """
    from rotary_spec_backends.kernels import numba_rotation

    axes = row_axes(source.shape, source.strides, target.strides, axis, position_shape)
    if target.size == 0:
        return
    cos, sin = tables
    kernel = numba_rotation.rotation(dtype, spec.layout, spec.output_layout or spec.layout)
    rotated = rotated_lanes(spec)
    same = source.ctypes.data == target.ctypes.data  # then what is not rotated is in its place
    front, back = (0, spec.head_dim) if same else (rotated.start, rotated.stop)
    outer, inner = axes[:-3], [Axis(1, 0, 0, 0)] * (3 - len(axes)) + axes[-3:]
    blocks = _blocks(inner, spec, source.itemsize, limit)
    tasks = inner[0].size * -(-inner[1].size // blocks[0]) * -(-inner[2].size // blocks[1])
    sizes, sources, targets, rows = zip(*inner)
    places = list(product(*(range(a.size) for a in outer)))
    size = source.size * source.itemsize // len(places)
    stream = 0 if same or fresh else _stream(target, inner[-1], spec)
    for place in places:
        x, y, t = (sum(i * a[field] for i, a in zip(place, outer)) for field in (1, 2, 3))
        for number, (start, pairs) in enumerate(spec.blocks):
            lanes = spec.rotary_start + 2 * start, pairs, front, back, spec.head_dim
            if number:  # the first block's pass has copied them
                lanes = *lanes[:2], 0, spec.head_dim, spec.head_dim
            offset = (t * spec.pairs + start) * cos.itemsize
            call = partial(
                kernel, source.ctypes.data + x, target.ctypes.data + y,
                cos.ctypes.data + offset, sin.ctypes.data + offset, sizes, sources, targets,
                tuple(row * spec.pairs * cos.itemsize for row in rows), *blocks, lanes, stream,
            )  # fmt: skip
            yield from jobs(call, tasks, size, limit)


def _stream(target: HostArray, last: Axis, spec: RotarySpec) -> int:
    """How many rows to write at once past the caches, 0 for ordinary writes.

    Rows of their own are left alone, as their ends share lines with what is written at another
    time; so are those of several blocks, each of which writes a part, and odd addresses.
    """
    row = spec.head_dim * target.itemsize
    if target.nbytes < STREAM or len(spec.blocks) > 1 or not target.flags.aligned:
        return 0
    return max(1, _HELD // row) if last.target == row else 0


def _blocks(axes: list[Axis], spec: RotarySpec, itemsize: int, limit: int) -> tuple[int, int]:
    """How many rows of the last two axes make a task."""
    outermost, middle, last = axes
    block, block_last = middle.size, last.size
    if last.table:
        block_last = min(block_last, max(1, _TABLE_BLOCK // (8 * spec.pairs)))
    least = max(1, _TASK // (spec.head_dim * itemsize))
    wanted = _JOBS * limit

    def tasks() -> int:
        return outermost.size * -(-middle.size // block) * -(-last.size // block_last)

    while tasks() < wanted and block * block_last > least:
        # Where the heads are the middle axis, halving them gives each half the table to read.
        if block > 1 and (middle.table or block_last <= least):
            block = -(-block // 2)
        elif block_last > 1:
            block_last = -(-block_last // 2)
        else:
            block = -(-block // 2)
    return block, block_last


def jobs(call: Any, tasks: int, size: int, limit: int) -> Iterator[threads.Job]:
    """``call`` on all tasks in a few runs of them, one where there is little to do."""
    count = min(tasks, _JOBS * limit if limit > 1 and size >= threads.WORTHWHILE else 1)
    bounds = [tasks * n // count for n in range(count + 1)] if count else []
    for first, last in pairwise(bounds):
        yield partial(call, first, last)
