"""Faults of state: tables and caches that remember the wrong call.

See `zoo_broken`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from tests.conformance.zoo_parts import (
    DIM,
    Broken,
    consecutive,
    faults_into,
    frequencies,
    table,
    turn,
)

BROKEN: dict[str, Broken] = {}
fault = faults_into(BROKEN)


@fault("STATE-1", "its key", positions="offset")
class CacheKeyedWithoutOffset:
    def __init__(self):
        self.cache = {}

    def __call__(self, x, offset):
        length = x.shape[2]
        if length not in self.cache:
            self.cache[length] = table(consecutive(offset, length))
        return turn(x, *self.cache[length])


@fault("STATE-1", "its key")
class CacheKeyedByLength:
    def __init__(self):
        self.length = self.table = None

    def __call__(self, x, positions):
        if self.length != len(positions):
            self.length, self.table = len(positions), table(positions)
        return turn(x, *self.table)


_TABLES: dict[int, Any] = {}


@fault("STATE-1", "its key")
def module_cache_keyed_by_length(x, positions):
    """A plain function cannot be built afresh: the suite has one instance, and it remembers."""
    if len(positions) not in _TABLES:
        _TABLES[len(positions)] = table(positions)
    return turn(x, *_TABLES[len(positions)])


@fault("STATE-1", "calls before")
class ResultOverwrittenByTheNextCall:
    """Every call of one shape writes into the same buffer, and hands it out."""

    def __init__(self):
        self.buffers = {}

    def __call__(self, x, positions):
        key = (x.shape, x.dtype)
        self.buffers.setdefault(key, torch.empty(x.shape, dtype=x.dtype))
        return self.buffers[key].copy_(turn(x.detach(), *table(positions)))


@fault("STATE-1", "calls before")
class CacheKeyedByTheArrayOfIds:
    """The ids are the same object, so their values are taken for the same."""

    def __init__(self):
        self.ids = self.table = None

    def __call__(self, x, positions):
        if self.ids is not positions:
            self.ids, self.table = positions, table(positions)
        return turn(x, *self.table)


@fault("STATE-2", "dtype", max_position=4096)
class TableKeepsTheDtypeOfItsFirstCall:
    def __init__(self):
        self.table = None

    def __call__(self, x, positions):
        last = int(positions.max())
        if self.table is None or last >= len(self.table[0]):
            rows = table(consecutive(0, last + 1))
            self.table = [t.to(x.dtype) for t in rows]
        cos, sin = (t[positions].float() for t in self.table)
        return turn(x, cos, sin)


_GROWING: list[Any] = []


@fault("STATE-2", "dtype", max_position=4096)
def module_table_keeps_the_dtype_of_its_first_call(x, positions):
    last = int(positions.max())
    if not _GROWING or last >= len(_GROWING[0]):
        _GROWING[:] = [t.to(x.dtype) for t in table(consecutive(0, last + 1))]
    cos, sin = (t[positions].float() for t in _GROWING)
    return turn(x, cos, sin)


_FIXED: list[Any] = []


@fault("ROT-4", "rounded to bfloat16", max_position=4096)
def module_table_made_once_in_the_first_dtype(x, positions):
    """Whether anybody sees it depends on the dtype of the very first call."""
    if not _FIXED:
        _FIXED[:] = [t.to(x.dtype) for t in table(consecutive(0, 4096))]
    cos, sin = (t[positions].float() for t in _FIXED)
    return turn(x, cos, sin)


@fault("STATE-2", "dtype")
class TableOfFloat32UsedForBfloat16:
    """A 16-bit call gives other values after a 32-bit call than it gives alone."""

    def __init__(self):
        self.dtype = None

    def __call__(self, x, positions):
        self.dtype = self.dtype or x.dtype
        work = torch.float32 if self.dtype == torch.float32 else x.dtype
        cos, sin = (t.to(work) for t in table(positions))
        a, b = x.to(work).chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


@fault("STATE-3", "shared between instances")
class CacheSharedByTheClass:
    tables: ClassVar[dict[int, Any]] = {}

    def __call__(self, x, positions):
        if len(positions) not in self.tables:
            self.tables[len(positions)] = table(positions)
        return turn(x, *self.tables[len(positions)])


@fault("STATE-3", "shared between instances")
class DtypeSharedByTheClass:
    tables: ClassVar[dict[tuple[int, int], Any]] = {}

    def __call__(self, x, positions):
        key = (int(positions[0]), len(positions))
        if key not in self.tables:
            self.tables[key] = [t.to(x.dtype).float() for t in table(positions)]
        return turn(x, *self.tables[key])


@fault("STATE-4", "length")
class FrequenciesOfTheLongestCall:
    """Dynamic NTK that keeps the frequencies of the longest sequence it has seen."""

    def __init__(self):
        self.longest = 64

    def __call__(self, x, positions):
        self.longest = max(self.longest, x.shape[2])
        base = 10_000.0 * (self.longest / 64) ** (DIM / (DIM - 2))
        return turn(x, *table(positions, frequencies(base=base)))


@fault("STATE-1", "calls before")
class FrequenciesOfTheLargestPosition:
    """The same, by position: decoding changes what prefill is told afterwards."""

    def __init__(self):
        self.largest = 64

    def __call__(self, x, positions):
        self.largest = max(self.largest, int(positions.max()) + 1)
        base = 10_000.0 * (self.largest / 64) ** (DIM / (DIM - 2))
        return turn(x, *table(positions, frequencies(base=base)))


@fault("EQV-3", "place in the call")
def rows_beyond_a_block_left_out(x, positions):
    """A kernel that fills one block of 128 rows per launch."""
    y = turn(x, *table(positions))
    y[:, :, 128:] = x[:, :, 128:]
    return y
