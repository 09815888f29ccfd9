"""The NumPy engine: a block of positions at a time, whose rows and tables stay in cache.

Lanes side by side in float32 or float64 are turned where they are to go: the interleaved layout as
complex numbers, the half layout by matrices of two by two, or in place in a few passes. Everything
else goes through a tile of the dtype of the arithmetic.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from rotary_spec.layouts import block_lanes, join_pairs, rotated_lanes, split_pairs
from rotary_spec.phase import table
from rotary_spec.spec import Layout, RotarySpec
from rotary_spec_backends.base import constants
from rotary_spec_backends.frameworks import HostArray
from rotary_spec_backends.host import threads

Item = tuple[HostArray, HostArray, str, int]
"""Target, source, dtype, and the sequence axis counted from the end."""

_TABLE_BLOCK = 2**15  # angles per block of positions: their tables stay in a core's second cache
_TILE = 2**18  # elements per tile of rows: small ones have threads wait for the interpreter
_FINE = 64  # positions whose tables are multiplied out from two, in the two-step table


def jobs(
    items: Sequence[Item], positions: HostArray, spec: RotarySpec, seq_len: int | None
) -> Iterator[threads.Job]:
    """What is to be run: one job for each block of positions, and for all arrays in it."""
    tables = _Tables(positions, spec, seq_len)
    length = positions.shape[-1] if positions.ndim > (spec.sections is not None) else 1
    step = max(1, _TABLE_BLOCK // spec.pairs)
    blocks = [slice(n, min(n + step, length)) for n in range(0, length, step)]
    scratch = _Scratch()
    for block in blocks if length > 1 else [slice(None)]:
        yield partial(_rotate_block, items, tables, spec, block, scratch)


def _rotate_block(
    items: Sequence[Item], tables: _Tables, spec: RotarySpec, block: slice, scratch: _Scratch
) -> None:
    with np.errstate(all="ignore"):  # infinities and NaN go the way of float arithmetic
        found: dict[bool, HostArray] = {}
        for target, source, dtype, axis in items:
            wide = dtype == "float64"
            if wide not in found:
                found[wide] = tables.of(block, wide, scratch)
            along = [slice(None)] * source.ndim
            if source.ndim > 1:
                along[axis] = block
            y, x = target[tuple(along)], source[tuple(along)]
            _rotate_rows(y, x, dtype, _stretched(found[wide], x.ndim, axis), spec, scratch)


def _stretched(values: HostArray, ndim: int, axis: int) -> HostArray:
    """A table of shape (..., seq, pairs) with an axis for each of the features'."""
    values = values.reshape((1,) * (ndim - values.ndim) + values.shape)
    return values if ndim == 1 else np.moveaxis(values, -2, axis)


class _Tables:
    """Tables of a block of the positions, one after the other."""

    def __init__(self, positions: HostArray, spec: RotarySpec, seq_len: int | None) -> None:
        self._positions, self._spec = positions, spec
        self._turns, self._magnitude = constants(spec, seq_len)
        # A table of far positions times one of near ones is good to 2^-51, and has few cosines to
        # compute where positions lie together.
        self._far: Any = None
        if positions.size >= 2 * _FINE and positions.dtype.kind in "iu" and spec.sections is None:
            place = positions.astype(np.int64) // _FINE
            first, last = int(place.min()), int(place.max())
            if 4 * (last - first) < positions.size:
                self._first = first
                self._far = self._complex(np.arange(first, last + 1) * _FINE, 1.0)
                self._near = self._complex(np.arange(_FINE), self._magnitude)

    def of(self, block: slice, wide: bool, scratch: _Scratch) -> HostArray:
        """A (cos + i sin) of a block of the last axis, complex128 or else complex64."""
        positions = self._positions[..., block] if block != slice(None) else self._positions
        if self._far is not None and not wide:
            far, near = np.divmod(positions.astype(np.int64), _FINE)
            shape = *far.shape, self._far.shape[-1]
            z = scratch("far", shape, np.complex128)
            w = scratch("near", shape, np.complex128)
            np.take(self._far, far - self._first, axis=0, out=z, mode="clip")
            np.take(self._near, near, axis=0, out=w, mode="clip")
            z *= w
            narrow = scratch("z", shape, np.complex64)
            narrow[...] = z
            return narrow
        z = self._complex(positions, self._magnitude)
        return z if wide else z.astype(np.complex64)  # type: ignore[no-any-return]

    def _complex(self, positions: HostArray, magnitude: float) -> Any:
        from array_api_compat import numpy as xp

        spec = self._spec
        cos, sin = table(positions, self._turns, magnitude, spec.inverse, xp, spec.axis_of_pair)
        z = np.empty(cos.shape, np.complex128)
        z.real, z.imag = cos, sin
        return z


class _Scratch(threading.local):
    """Arrays that a thread uses again: new ones would have to be paged in, out of cache."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, Any], HostArray] = {}

    def __call__(self, use: str, shape: tuple[int, ...], dtype: Any) -> HostArray:
        """An array for that use, with anything in it."""
        size = math.prod(shape)
        array = self._arrays.get((use, dtype))
        if array is None or array.size < size:
            array = self._arrays[use, dtype] = np.empty(size, dtype)
        return array[:size].reshape(shape)


def _rotate_rows(
    target: HostArray, source: HostArray, dtype: str, z: HostArray, spec: RotarySpec,
    scratch: _Scratch,
) -> None:  # fmt: skip
    rotated = rotated_lanes(spec)
    layouts: tuple[Layout, Layout] = spec.layout, spec.output_layout or spec.layout
    direct = (
        dtype in ("float32", "float64")
        and layouts[0] == layouts[1]
        and source.strides[-1] == target.strides[-1] == source.itemsize
    )
    ends = slice(0, rotated.start), slice(rotated.stop, spec.head_dim)
    kept = [lanes for lanes in ends if lanes.start < lanes.stop]
    # Of what goes through a tile, the tile is turned in place.
    in_place = not direct or source.ctypes.data == target.ctypes.data
    turns = [
        (lanes, _Turn(layouts[0], z, slice(start, start + count), in_place, scratch))
        for lanes, (start, count) in zip(block_lanes(spec), spec.blocks)
    ]
    rows = source.shape[:-1]
    # One pass needs nothing that would have to stay in cache.
    whole = direct and not kept and (layouts[0] == "interleaved" or not in_place)
    for tile in [(slice(None),) * len(rows)] if whole else _tiles(rows, spec.head_dim):
        x, y = source[tile], target[tile]
        for lanes, turn in turns:
            to, given = y[..., lanes], x[..., lanes]
            if direct:
                turn(given, to, tile)
            else:
                values = _load(given, dtype, scratch)
                turn(values, values, tile)
                if layouts[0] != layouts[1]:
                    values = join_pairs(*split_pairs(values, layouts[0]), layouts[1], np)
                _store(to, values, dtype, scratch)
        for lanes in kept:
            y[..., lanes] = x[..., lanes]


class _Turn:
    """Turn the pairs of a tile by its part of the table, in place or not."""

    def __init__(
        self, layout: Layout, table: HostArray, pairs: slice, in_place: bool, scratch: _Scratch
    ) -> None:
        self._interleaved, self._in_place = layout == "interleaved", in_place
        self._scratch = scratch
        z = table[..., pairs]
        if self._interleaved:
            self._z = np.ascontiguousarray(z)
        elif in_place:
            self._cos = np.concatenate([z.real, z.real], axis=-1)
            self._sin = np.concatenate([-z.imag, z.imag], axis=-1)
        else:
            # The axis summed over comes first: einsum then takes one product after the other,
            # along the rows.
            shape = 2, *z.shape[:-1], 2, z.shape[-1]
            matrices = scratch(f"matrices {pairs.start}", shape, z.real.dtype)
            matrices[0, ..., 0, :] = matrices[1, ..., 1, :] = z.real
            matrices[0, ..., 1, :] = z.imag
            matrices[1, ..., 0, :] = -z.imag  # NumPy 2.1 to 2.4 negate wrongly into strided memory
            self._matrices = np.moveaxis(matrices, 0, -2)

    def __call__(self, x: HostArray, out: HostArray, tile: tuple[slice, ...]) -> None:
        if self._interleaved:
            z = _part(self._z, tile)
            np.multiply(x.view(z.dtype), z, out=out.view(z.dtype))
        elif self._in_place:
            self._by_passes(out, tile)
        else:  # in one pass, which einsum begins with zeros in its output
            halves = *x.shape[:-1], 2, x.shape[-1] // 2
            pairs, turned = x.reshape(halves), out.reshape(halves)
            np.einsum("...ki,...jki->...ji", pairs, _part(self._matrices, tile), out=turned)

    def _by_passes(self, x: HostArray, tile: tuple[slice, ...]) -> None:
        """In cache: there several passes, for x cos + (halves swapped) sin, beat the one."""
        half = np.dtype((np.void, x.shape[-1] // 2 * x.itemsize))
        swapped = self._scratch("swapped", x.shape, x.dtype)
        # A copy moves each half as one piece; arithmetic on swapped halves would go through them
        # one by one, which takes longer than they do.
        swapped.view(half)[...] = x.view(half)[..., ::-1]
        swapped *= _part(self._sin, tile)
        x *= _part(self._cos, tile)
        x += swapped


def _part(values: HostArray, tile: tuple[slice, ...]) -> HostArray:
    """The tile's part of an array that may have one row for all along an axis."""
    return values[tuple(slice(None) if n == 1 else part for part, n in zip(tile, values.shape))]


def _tiles(rows: tuple[int, ...], width: int) -> Iterator[tuple[slice, ...]]:
    """Slices over the axes of rows, each of at most so many elements: inner axes are kept whole."""
    inner = [slice(None)] * len(rows)
    axis = len(rows)
    while axis and width * rows[axis - 1] <= _TILE:
        axis -= 1
        width *= rows[axis]
    if not axis:
        yield tuple(inner)
        return
    axis -= 1
    step = max(1, _TILE // max(1, width))
    for place in np.ndindex(*rows[:axis]):
        for n in range(0, rows[axis], step):
            outer = [slice(i, i + 1) for i in place]
            yield (*outer, slice(n, n + step), *inner[axis + 1 :])


def _load(words: HostArray, dtype: str, scratch: _Scratch) -> HostArray:
    values = scratch("values", words.shape, np.float64 if dtype == "float64" else np.float32)
    if dtype != "bfloat16":
        values[...] = words
        return values
    bits = values.view(np.uint32)
    bits[...] = words
    bits <<= np.uint32(16)
    return values


def _store(words: HostArray, values: HostArray, dtype: str, scratch: _Scratch) -> None:
    if dtype != "bfloat16":
        words[...] = values
        return
    nan = np.isnan(values) if np.isnan(values.max(initial=0)) else None
    bits = np.ascontiguousarray(values).view(np.uint32)
    odd = scratch("odd", bits.shape, np.uint32)
    np.right_shift(bits, np.uint32(16), out=odd)
    odd &= np.uint32(1)
    odd += np.uint32(0x7FFF)
    odd += bits  # to nearest, ties to even
    odd >>= np.uint32(16)
    words[...] = odd
    if nan is not None:
        words[nan] = 0x7FC0  # adding could carry a NaN over to an infinity
