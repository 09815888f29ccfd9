"""The Numba engine: addresses, strides and tasks for the kernels of `kernels.numba_rotation`."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from itertools import pairwise, product
from typing import Any, NamedTuple

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
    words = frequency_words(turns)
    # In one piece: the allocator keeps what is freed, up to twice the largest piece there was.
    both = np.empty((2, ids.size, words.size), np.float32)
    cos = both.ctypes.data
    call = partial(
        numba_table.table(),
        ids.ctypes.data, words.ctypes.data, cos, cos + both.nbytes // 2, words.size, *factors,
    )  # fmt: skip
    # An element takes about as long as 16 bytes of rows.
    threads.run(jobs(call, ids.size, 8 * both.size, limit), limit)
    return both[0], both[1]


@cache
def frequency_words(turns: tuple[int, ...]) -> HostArray:
    """Frequencies in 2^-64 turns as the table's kernel takes them."""
    return np.asarray([f % 2**64 for f in turns], dtype=np.uint64).view(np.int64)


def table_factors(spec: RotarySpec, magnitude: float) -> tuple[float, float]:
    """What the table's kernel multiplies cos and sin by."""
    return magnitude, -magnitude if spec.inverse else magnitude


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

    if target.size == 0:
        return
    kernel = numba_rotation.rotation(dtype, spec.layout, spec.output_layout or spec.layout)
    x, y, cos, sin = (a.ctypes.data for a in (source, target, *tables))
    plan = plan_rows(
        source.shape, source.strides, target.strides, source.itemsize, axis, position_shape, spec,
        limit, x == y,
    )  # fmt: skip
    past = not fresh and target.nbytes >= STREAM
    for x_offset, y_offset, t_offset, lanes in plan.parts():
        call = partial(
            kernel, x + x_offset, y + y_offset, cos + t_offset, sin + t_offset, *plan.rows, lanes,
            plan.stream if past else 0,
        )  # fmt: skip
        yield from jobs(call, plan.tasks, source.nbytes // plan.places, limit)


class Plan(NamedTuple):
    """Everything that the kernel is told apart from addresses: what calls of one kind share."""

    outer: list[Axis]
    """Axes beyond the three that the kernel goes along."""
    lanes: list[tuple[int, tuple[int, ...]]]
    """Of each block of lanes its first angle in a row, and what the kernel is told of it."""
    angle: tuple[int, int]
    """Bytes of a row of the table, and of an angle."""
    rows: tuple[Any, ...]
    """Sizes and strides of three axes, and block sizes of the last two."""
    tasks: int
    """In each part."""
    stream: int
    """How many rows to write at once past the caches, where that is worth while."""

    @property
    def places(self) -> int:
        return math.prod(axis.size for axis in self.outer)

    def parts(self) -> Iterator[tuple[int, int, int, tuple[int, ...]]]:
        """Offsets of source, target and tables in bytes, and lanes: one call of the kernel each."""
        row, angle = self.angle
        for place in product(*(range(axis.size) for axis in self.outer)):
            x, y, t = (sum(i * a[field] for i, a in zip(place, self.outer)) for field in (1, 2, 3))
            for start, lanes in self.lanes:
                yield x, y, t * row + start * angle, lanes


@lru_cache(maxsize=256)
def plan_rows(
    shape: tuple[int, ...],
    source: tuple[int, ...],
    target: tuple[int, ...],
    itemsize: int,
    axis: int,
    position_shape: tuple[int, ...],
    spec: RotarySpec,
    limit: int,
    in_place: bool,
) -> Plan:
    """The plan for source and target of those strides. To make it takes as long as a small call."""
    axes = row_axes(shape, source, target, axis, position_shape)
    rotated = rotated_lanes(spec)
    # In place, what is not rotated is where it belongs.
    front, back = (0, spec.head_dim) if in_place else (rotated.start, rotated.stop)
    outer, inner = axes[:-3], [Axis(1, 0, 0, 0)] * (3 - len(axes)) + axes[-3:]
    blocks = _blocks(inner, spec, itemsize, limit)
    tasks = inner[0].size * -(-inner[1].size // blocks[0]) * -(-inner[2].size // blocks[1])
    *strides, rows = zip(*inner)
    lanes: list[tuple[int, tuple[int, ...]]] = []
    for start, pairs in spec.blocks:
        if lanes:  # the first block's pass has copied them
            front, back = 0, spec.head_dim
        told = spec.rotary_start + 2 * start, pairs, front, back, spec.head_dim
        lanes.append((start, told))
    angle = 8 if itemsize == 8 else 4
    row_bytes = spec.pairs * angle
    table = tuple(row * row_bytes for row in rows)
    stream = 0 if in_place else _stream(inner[-1], spec, itemsize)
    return Plan(outer, lanes, (row_bytes, angle), (*strides, table, *blocks), tasks, stream)


def _stream(last: Axis, spec: RotarySpec, itemsize: int) -> int:
    """How many rows to write at once past the caches, 0 for ordinary writes.

    Rows of their own are left alone, as their ends share lines with what is written at another
    time; so are those of several blocks, each of which writes a part.
    """
    row = spec.head_dim * itemsize
    return max(1, _HELD // row) if last.target == row and len(spec.blocks) == 1 else 0


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
