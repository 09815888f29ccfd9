"""The ``out`` of `Backend.rotate`: what may be written into, checked before anything is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rotary_spec import DtypeError, ShapeError
from rotary_spec_backends.frameworks import Array, Framework, Memory


def check_outputs(
    out: Array | Sequence[Array], arrays: tuple[Array, ...], several: bool, framework: Framework
) -> tuple[Array, ...]:
    """``out`` as a tuple with one array for each of ``arrays``.

    Raises
    ------
    DtypeError
        If the framework's arrays cannot be written, one is not an array of the framework, is read
        only, or is of another dtype or on another device than its input.
    ShapeError
        If there are more or fewer than inputs, one is of another shape than its input, or shares
        memory with another, with itself, or with an input that it is not the same as.
    """
    name = framework.name
    if not framework.mutable:
        raise DtypeError(
            f"backend {name!r} cannot write into out: {name} arrays never change. Hint: leave out "
            "away; a jitted caller may donate x, whose memory is then used again."
        )
    if several != isinstance(out, tuple | list):
        wanted = "a tuple of arrays, as x is" if several else "one array, as x is"
        raise DtypeError(f"out must be {wanted}; got {type(out).__name__}")
    outs: tuple[Array, ...] = tuple(out) if several else (out,)
    if len(outs) != len(arrays):
        raise ShapeError(f"out must hold one array for each x, {len(arrays)}; got {len(outs)}")
    for x, y in zip(arrays, outs):
        _check_kind(x, y, framework)
    _check_memory(arrays, outs, framework)
    return outs


def _check_kind(x: Array, y: Array, framework: Framework) -> None:
    if not framework.owns(y):
        raise DtypeError(
            f"out must be of {framework.name} arrays, got {type(y).__module__}.{type(y).__name__}"
        )
    if tuple(y.shape) != tuple(x.shape):
        raise ShapeError(f"out must be of the shape of x, {tuple(x.shape)}; got {tuple(y.shape)}")
    for what in ("dtype", "device"):
        given, wanted = getattr(y, what, None), getattr(x, what, None)
        if given != wanted:
            raise DtypeError(f"out must be of the {what} of x, {wanted}; got {given}")


def _check_memory(arrays: tuple[Array, ...], outs: tuple[Array, ...], framework: Framework) -> None:
    """Writing an element must not change another that is still to be read or was written."""
    read = [framework.memory(x) for x in arrays]
    written = [framework.memory(y) for y in outs]
    for i, y in enumerate(written):
        if y is None:
            continue  # a tracer's stand-in has no memory
        if not y.writable:
            raise DtypeError("out must be writable, got a read-only array")
        if _overlaps_itself(y):
            raise ShapeError("out must not hold an element twice, as an expanded array does")
        for j, other in enumerate(written):
            if j < i and other is not None and _share(y, other):
                raise ShapeError("the arrays of out must not share memory with each other")
        for j, x in enumerate(read):
            if x is not None and not (i == j and x.same_as(y)) and _share(y, x):
                raise ShapeError(
                    "out shares memory with x, but is not the same array. Hint: out=x rotates in "
                    "place; otherwise give memory of its own."
                )


def _overlaps_itself(memory: Memory) -> bool:
    """Whether two indices may lead to one element: no axis may step inside a smaller one's reach.

    Views of distinct elements that interleave in some other way count as overlapping too.
    """
    if 0 in memory.shape:
        return False
    reach = memory.itemsize
    axes = sorted((abs(s), n) for s, n in zip(memory.strides, memory.shape) if n > 1)
    for stride, size in axes:
        if stride < reach:
            return True
        reach += stride * (size - 1)
    return False


def _share(a: Memory, b: Memory) -> bool:
    """Whether they have a byte in common; NumPy solves it from addresses, and reads nothing."""
    if a.span[1] <= b.span[0] or b.span[1] <= a.span[0]:
        return False
    try:
        return np.shares_memory(_header(a), _header(b), max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


@dataclass(frozen=True)
class _Bytes:
    """Memory as NumPy's array interface tells it."""

    __array_interface__: dict[str, Any]


def _header(memory: Memory) -> Any:
    interface = {
        "version": 3,
        "data": (memory.address, False),
        "shape": memory.shape,
        "strides": memory.strides,
        "typestr": f"|V{memory.itemsize}",
    }
    return np.asarray(_Bytes(interface))
