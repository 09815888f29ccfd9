"""The same rotation written in ways that XLA compiles well: for CPUs, and for GPUs.

XLA decides by the shape of an expression how wide a GPU thread reads and writes, and on a CPU
whether loops are vectorised. Every function takes features (..., head_dim), and cos and sin
(..., pairs) that broadcast against them, and gives features.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from rotary_spec.layouts import block_lanes, rotated_lanes
from rotary_spec.spec import Layout, RotarySpec
from rotary_spec_backends.frameworks import Array


def general(x: Array, cos: Array, sin: Array, spec: RotarySpec) -> Array:
    """Any spec and dtype; what is vectorised on CPUs."""
    parts = []
    for block, (start, count) in zip(block_lanes(spec), spec.blocks):
        first, second = (p.astype(cos.dtype) for p in _split(x[..., block], spec.layout))
        pairs = slice(start, start + count)
        first, second = _turn(first, second, cos[..., pairs], sin[..., pairs])
        turned = _join(first, second, spec.output_layout or spec.layout)
        parts.append(turned.astype(x.dtype))
    turned = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
    if spec.rotary_dim == spec.head_dim:
        return turned
    return lax.dynamic_update_slice_in_dim(x, turned, spec.rotary_start, x.ndim - 1)


def wide(x: Array, cos: Array, sin: Array, spec: RotarySpec) -> Array:
    """GPU threads that access 16 bytes at a time, where there is such a form; else `general`.

    Lanes of 16 bits are packed in pairs into words of 32, and neighbouring float32 pairs are taken
    two at a time. Lanes that pass through are part of the same kernel.
    """
    neighbours = spec.layout == "interleaved"
    if (
        spec.sections is not None
        or spec.output_layout is not None
        or x.dtype == jnp.float64
        or spec.rotary_start % 2
        or spec.head_dim % 4
        or (not neighbours and spec.pairs % 2)
    ):
        return general(x, cos, sin, spec)
    if x.dtype == jnp.float32:
        return _neighbours(x, cos, sin, spec) if neighbours else _halves(x, cos, sin, spec)
    form = _packed_neighbours if neighbours else _packed_halves
    return _lanes(form(_words(x), cos, sin, spec, x.dtype), x)


def _turn(first: Array, second: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
    return first * cos - second * sin, second * cos + first * sin


def _split(x: Array, layout: Layout) -> tuple[Array, Array]:
    """As `layouts.split_pairs`, by an axis of two: on CPUs slices of lanes take twice as long."""
    shape, pairs = x.shape[:-1], x.shape[-1] // 2
    if layout == "interleaved":
        both = x.reshape(*shape, pairs, 2)
        return both[..., 0], both[..., 1]
    both = x.reshape(*shape, 2, pairs)
    return both[..., 0, :], both[..., 1, :]


def _join(first: Array, second: Array, layout: Layout) -> Array:
    shape = (*first.shape[:-1], 2 * first.shape[-1])
    return jnp.stack([first, second], -1 if layout == "interleaved" else -2).reshape(shape)


def _between_kept(x: Array, parts: list[Array], place: slice) -> Array:
    """``parts`` side by side in that place of ``x``."""
    every = [x[..., : place.start], *parts, x[..., place.stop :]]
    every = [part for part in every if part.shape[-1]]
    return every[0] if len(every) == 1 else jnp.concatenate(every, axis=-1)


def _halves(x: Array, cos: Array, sin: Array, spec: RotarySpec) -> Array:
    place = rotated_lanes(spec)
    middle = place.start + spec.pairs
    turned = _turn(x[..., place.start : middle], x[..., middle : place.stop], cos, sin)
    return _between_kept(x, [*turned], place)


def _neighbours(x: Array, cos: Array, sin: Array, spec: RotarySpec) -> Array:
    quads = x.shape[-1] // 4
    cos, sin = (_of_all_pairs(t, spec).reshape(*t.shape[:-1], quads, 2) for t in (cos, sin))
    four = x.reshape(*x.shape[:-1], quads, 4)
    a, b, c, d = (four[..., i] for i in range(4))
    turned = *_turn(a, b, cos[..., 0], sin[..., 0]), *_turn(c, d, cos[..., 1], sin[..., 1])
    return _where_rotated(jnp.stack(turned, axis=-1).reshape(x.shape), x, spec, 1)


def _packed_neighbours(u: Array, cos: Array, sin: Array, spec: RotarySpec, dtype: Array) -> Array:
    cos, sin = (_of_all_pairs(t, spec) for t in (cos, sin))
    return _where_rotated(_pack(*_turn(*_unpack(u, dtype), cos, sin), dtype), u, spec, 2)


def _packed_halves(u: Array, cos: Array, sin: Array, spec: RotarySpec, dtype: Array) -> Array:
    """A word holds the first, or the second, members of two pairs."""
    start, words = spec.rotary_start // 2, spec.pairs // 2
    place = slice(start, start + 2 * words)
    first = _unpack(u[..., start : start + words], dtype)
    second = _unpack(u[..., start + words : place.stop], dtype)
    turned = [
        _turn(a, b, cos[..., i::2], sin[..., i::2]) for i, (a, b) in enumerate(zip(first, second))
    ]
    packed = [_pack(low, high, dtype) for low, high in zip(*turned)]
    return _between_kept(u, packed, place)


def _of_all_pairs(values: Array, spec: RotarySpec) -> Array:
    """A table with an entry for every two lanes of the head, rotated or not."""
    before = spec.rotary_start // 2
    after = spec.head_dim // 2 - before - spec.pairs
    return jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(before, after)])


def _where_rotated(turned: Array, kept: Array, spec: RotarySpec, lanes: int) -> Array:
    """``turned`` in the rotated places, counted in elements of so many lanes."""
    if spec.rotary_dim == spec.head_dim:
        return turned
    lane = lanes * lax.broadcasted_iota(jnp.int32, kept.shape, kept.ndim - 1)
    place = rotated_lanes(spec)
    return jnp.where((lane >= place.start) & (lane < place.stop), turned, kept)


def _words(x: Array) -> Array:
    """Two lanes of 16 bits as one uint32, the first of them at the bottom."""
    return lax.bitcast_convert_type(x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2), jnp.uint32)


def _lanes(u: Array, like: Array) -> Array:
    return lax.bitcast_convert_type(u, like.dtype).reshape(like.shape)


def _unpack(u: Array, dtype: Array) -> tuple[Array, Array]:
    """Both lanes of words, in float32."""
    if dtype == jnp.bfloat16:  # the top half of a float32
        bits = u << 16, u & jnp.uint32(0xFFFF0000)
        return tuple(lax.bitcast_convert_type(b, jnp.float32) for b in bits)
    halves = (u & 0xFFFF).astype(jnp.uint16), (u >> 16).astype(jnp.uint16)
    return tuple(lax.bitcast_convert_type(h, dtype).astype(jnp.float32) for h in halves)


def _pack(low: Array, high: Array, dtype: Array) -> Array:
    """The inverse of `_unpack`, rounded."""
    low, high = (
        lax.bitcast_convert_type(value.astype(dtype), jnp.uint16).astype(jnp.uint32)
        for value in (low, high)
    )
    return low | (high << 16)
