"""Small calls, planned once: checking and planning one takes several times as long as doing it.

A plan says everything apart from addresses. It is found by what the engine is given, or, before a
backend has checked a call, by its signature: all of a call that checks and plan depend on.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import constants
from rotary_spec_backends.frameworks import HostArray
from rotary_spec_backends.host import compiled, threads
from rotary_spec_backends.host.blocked import Item


class Plan(NamedTuple):
    """What the kernels are told in every call of one kind, apart from addresses."""

    size: int
    """Bytes of rows."""
    positions: int
    table: Any
    words: int
    """Address of the frequencies, which are kept."""
    pairs: int
    factors: tuple[float, float]
    rotations: list[tuple[Any, compiled.Plan]]
    """Kernel and plan of each array."""


def plan(
    items: Sequence[Item], positions: HostArray, spec: RotarySpec, seq_len: int | None
) -> Plan | None:
    """The plan for checked arrays that the kernels reach; None for large ones and for float64."""
    size = sum(source.nbytes for _, source, _, _ in items)
    if not 0 < size < threads.WORTHWHILE or spec.sections is not None:
        return None
    if any(dtype == "float64" for _, _, dtype, _ in items):
        return None
    rows = [
        (dtype, source.shape, source.strides, target.strides, source.itemsize, axis,
         source.ctypes.data == target.ctypes.data)
        for target, source, dtype, axis in items
    ]  # fmt: skip
    return _plan(size, positions.shape, spec, seq_len, *rows)


@lru_cache(maxsize=4096)
def _plan(
    size: int, position_shape: tuple[int, ...], spec: RotarySpec, seq_len: int | None, *rows: Any
) -> Plan:
    from rotary_spec_backends.kernels import numba_rotation, numba_table

    turns, magnitude = constants(spec, seq_len)
    layouts = spec.layout, spec.output_layout or spec.layout
    rotations = [
        (
            numba_rotation.rotation(dtype, *layouts),
            compiled.plan_rows(*strides, axis, position_shape, spec, 1, in_place),
        )
        for dtype, *strides, axis, in_place in rows
    ]
    words = compiled.frequency_words(turns).ctypes.data
    factors = compiled.table_factors(spec, magnitude)
    positions = int(np.prod(position_shape))
    return Plan(size, positions, numba_table.table(), words, spec.pairs, factors, rotations)


_plans: dict[Hashable, Plan] = {}
_MANY = 4096  # as many signatures: then the first of them are checked again


def find(signature: Hashable) -> Plan | None:
    """The plan of an earlier call of that signature, if there was one."""
    found = _plans.get(signature)
    return found if found is not None and found.size < threads.WORTHWHILE else None


def remember(signature: Hashable, plan: Plan) -> None:
    """Let calls of that signature, from memory to new memory, go by the plan."""
    if len(_plans) >= _MANY:
        _plans.pop(next(iter(_plans)), None)
    _plans[signature] = plan


def run(plan: Plan, addresses: Iterable[tuple[int, int]], positions: int) -> None:
    """Rotate from and to these addresses, by int64 ids at that one; the caller keeps the memory."""
    table = np.empty((2, plan.positions, plan.pairs), np.float32)
    cos = table.ctypes.data
    sin = cos + table.nbytes // 2
    plan.table(positions, plan.words, cos, sin, plan.pairs, *plan.factors, 0, plan.positions)
    for (source, target), (kernel, rows) in zip(addresses, plan.rotations):
        for x, y, at, lanes in rows.parts:
            place = source + x, target + y, cos + at, sin + at
            kernel(*place, *rows.rows, lanes, 0, 0, rows.tasks)
