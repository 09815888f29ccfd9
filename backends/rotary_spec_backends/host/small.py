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
from rotary_spec_backends.frameworks import HostArray, Memory
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
    spans: list[tuple[tuple[int, int], tuple[int, int], bool]]
    """Of each array the bytes of source and target, and whether it is one memory."""


def plan(
    items: Sequence[Item], size: int, positions: HostArray, spec: RotarySpec, seq_len: int | None
) -> Plan | None:
    """The plan for checked arrays of so many bytes that the kernels reach; None for float64,
    positions on several axes, and where there is nothing to do.
    """
    if size == 0 or spec.sections is not None:
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
    spans = [
        (Memory(0, shape, source, itemsize).span, Memory(0, shape, target, itemsize).span, in_place)
        for _, shape, source, target, itemsize, _, in_place in rows
    ]
    words = compiled.frequency_words(turns).ctypes.data
    factors = compiled.table_factors(spec, magnitude)
    positions = int(np.prod(position_shape))
    return Plan(
        size, positions, numba_table.table(), words, spec.pairs, factors, rotations, spans
    )  # fmt: skip


_plans: dict[Hashable, Plan] = {}
_MANY = 4096  # as many signatures: then the first of them are checked again


def find(signature: Hashable) -> Plan | None:
    """The plan of an earlier call of that signature, if there was one."""
    found = _plans.get(signature)
    return found if found is not None and found.size < threads.WORTHWHILE else None


def remember(signature: Hashable, plan: Plan) -> None:
    """Let calls of that signature go by the plan, into given memory only where `apart`."""
    if len(_plans) >= _MANY:
        _plans.pop(next(iter(_plans)), None)
    _plans[signature] = plan


def apart(plan: Plan, addresses: Sequence[tuple[int, int]]) -> bool:
    """Whether the bytes of each target lie apart from all others', but its own source in place."""
    for i, ((_, y), (_, (low, high), in_place)) in enumerate(zip(addresses, plan.spans)):
        for j, ((x, other), (source, target, _)) in enumerate(zip(addresses, plan.spans)):
            if not (i == j and in_place) and y + low < x + source[1] and x + source[0] < y + high:
                return False
            if j < i and y + low < other + target[1] and other + target[0] < y + high:
                return False
    return True


def run(plan: Plan, addresses: Iterable[tuple[int, int]], positions: int) -> None:
    """Rotate from and to these addresses, by int64 ids at that one; the caller keeps the memory."""
    table = np.empty((2, plan.positions, plan.pairs), np.float32)
    cos = table.ctypes.data
    sin = cos + table.nbytes // 2
    plan.table(positions, plan.words, cos, sin, plan.pairs, *plan.factors, 0, plan.positions)
    for (source, target), (kernel, rows) in zip(addresses, plan.rotations):
        for x, y, at, lanes in rows.parts():
            place = source + x, target + y, cos + at, sin + at
            kernel(*place, *rows.rows, lanes, 0, 0, rows.tasks)
