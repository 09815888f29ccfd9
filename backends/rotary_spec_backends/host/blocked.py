"""The NumPy engine: a block of positions at a time, whose rows and tables stay in cache.

Rows side by side in float32 or float64 are turned where they are to go: the interleaved layout as
complex numbers, the half layout as x cos + (halves swapped) sin. Everything else goes through a
float32 tile.
"""

from __future__ import annotations

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

_TABLE_BLOCK = 2**14  # angles per block of positions: their tables stay in a core's second cache
_TILE = 2**15  # elements per tile of rows, likewise
_FINE = 256  # positions whose tables are multiplied out from two, in the two-step table


def jobs(
    items: Sequence[Item], positions: HostArray, spec: RotarySpec, seq_len: int | None
) -> Iterator[threads.Job]:
    """What is to be run: one job for each block of positions, and for all arrays in it."""
    tables = _Tables(positions, spec, seq_len)
    length = positions.shape[-1] if positions.ndim > (spec.sections is not None) else 1
    step = max(1, _TABLE_BLOCK // spec.pairs)
    blocks = [slice(n, min(n + step, length)) for n in range(0, length, step)]
    for block in blocks if length > 1 else [slice(None)]:
        yield partial(_rotate_block, items, tables, spec, block)


def _rotate_block(items: Sequence[Item], tables: _Tables, spec: RotarySpec, block: slice) -> None:
    with np.errstate(all="ignore"):  # infinities and NaN go the way of float arithmetic
        found: dict[bool, tuple[HostArray, HostArray]] = {}
        for target, source, dtype, axis in items:
            wide = dtype == "float64"
            if wide not in found:
                found[wide] = tables.of(block, wide)
            along = [slice(None)] * source.ndim
            if source.ndim > 1:
                along[axis] = block
            y, x = target[tuple(along)], source[tuple(along)]
            cos, sin = (_stretched(t, x.ndim, axis) for t in found[wide])
            _rotate_rows(y, x, dtype, cos, sin, spec)


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

    def of(self, block: slice, wide: bool) -> tuple[HostArray, HostArray]:
        """A cos and A sin of a block of the last axis, float64 or else float32."""
        positions = self._positions[..., block] if block != slice(None) else self._positions
        if self._far is not None and not wide:
            ids = positions.astype(np.int64)
            z = self._far[ids // _FINE - self._first] * self._near[ids % _FINE]
            narrow = z.astype(np.complex64)
            return narrow.real, narrow.imag
        cos, sin = self._exact(positions, self._magnitude)
        return (cos, sin) if wide else (cos.astype(np.float32), sin.astype(np.float32))

    def _exact(self, positions: HostArray, magnitude: float) -> tuple[Any, Any]:
        from array_api_compat import numpy as xp

        spec = self._spec
        return table(positions, self._turns, magnitude, spec.inverse, xp, spec.axis_of_pair)

    def _complex(self, positions: HostArray, magnitude: float) -> Any:
        cos, sin = self._exact(positions, magnitude)
        return cos + 1j * sin


def _rotate_rows(
    target: HostArray, source: HostArray, dtype: str, cos: HostArray, sin: HostArray,
    spec: RotarySpec,
) -> None:  # fmt: skip
    rotated = rotated_lanes(spec)
    layouts: tuple[Layout, Layout] = spec.layout, spec.output_layout or spec.layout
    direct = (
        dtype in ("float32", "float64")
        and layouts[0] == layouts[1]
        and source.strides[-1] == target.strides[-1] == source.itemsize
    )
    arithmetic = np.float64 if dtype == "float64" else np.float32
    turns = [
        _Turn(layouts[0], cos[..., start : start + count], sin[..., start : start + count])
        for start, count in spec.blocks
    ]
    for tile in _tiles(source.shape[:-1], spec.head_dim):
        x, y = source[tile], target[tile]
        for lanes, turn in zip(block_lanes(spec), turns):
            to, given = y[..., lanes], x[..., lanes]
            if direct:
                turn(to, given, tile)
            else:
                values = _load(given, dtype, arithmetic)
                turn(values, values, tile)
                if layouts[0] != layouts[1]:
                    values = join_pairs(*split_pairs(values, layouts[0]), layouts[1], np)
                _store(to, values, dtype)
        for kept in (slice(0, rotated.start), slice(rotated.stop, None)):
            y[..., kept] = x[..., kept]


class _Turn:
    """Turn the pairs of a tile by its part of the table, in place or not."""

    def __init__(self, layout: Layout, cos: HostArray, sin: HostArray) -> None:
        if layout == "interleaved":
            kind = np.complex64 if cos.dtype == np.float32 else np.complex128
            self._z = np.empty(cos.shape, kind)
            self._z.real, self._z.imag = cos, sin
        else:
            self._cos = np.concatenate([cos, cos], axis=-1)
            self._sin = np.stack([-sin, sin], axis=-2)
        self._interleaved = layout == "interleaved"
        self._scratch = np.empty(0, cos.dtype)

    def __call__(self, out: HostArray, x: HostArray, tile: tuple[slice, ...]) -> None:
        if self._interleaved:
            z = self._z[_broadcast(tile, self._z)]
            np.multiply(x.view(z.dtype), z, out=out.view(z.dtype))
            return
        cos = self._cos[_broadcast(tile, self._cos)]
        sin = self._sin[_broadcast(tile, self._sin)]
        halves = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
        if self._scratch.shape != halves.shape:
            self._scratch = np.empty(halves.shape, halves.dtype)
        added = self._scratch
        np.multiply(halves[..., ::-1, :], sin, out=added)
        np.multiply(x, cos, out=out)
        np.add(out, added.reshape(out.shape), out=out)


def _broadcast(tile: tuple[slice, ...], values: HostArray) -> tuple[slice, ...]:
    """The tile's part of an array that may have one row for all along an axis."""
    return tuple(slice(None) if n == 1 else part for part, n in zip(tile, values.shape))


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


def _load(words: HostArray, dtype: str, arithmetic: Any) -> HostArray:
    if dtype != "bfloat16":
        return np.array(words, dtype=arithmetic, order="C")
    bits = np.array(words, dtype=np.uint32, order="C")
    bits <<= np.uint32(16)
    return bits.view(np.float32)


def _store(words: HostArray, values: HostArray, dtype: str) -> None:
    if dtype != "bfloat16":
        words[...] = values
        return
    nan = np.isnan(values)
    bits = np.ascontiguousarray(values).view(np.uint32)
    odd = bits >> np.uint32(16)
    odd &= np.uint32(1)
    odd += np.uint32(0x7FFF)
    bits = bits + odd  # to nearest, ties to even
    bits >>= np.uint32(16)
    if nan.any():
        bits[nan] = 0x7FC0  # adding could carry a NaN over to an infinity
    words[...] = bits
