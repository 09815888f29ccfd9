"""Linear attention in chunks: memory linear in the length, in any array namespace.

A chunk attends to itself by a small square of weights, and to all that came before by a state: S,
the sum of (R phi(k)) v^T, and z, the sum of phi(k). Three forms share that: `causal` in the order
of the sequence, `bidirectional`, and `by_order` for causal queries and keys that are different
tokens. Between frameworks only the loop differs (see `Tools`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

from rotary_spec._array import device_of
from rotary_spec.attention_arguments import causal_mask, group_size, repeat_heads
from rotary_spec.linear_attention_recurrence import key_sums
from rotary_spec.linear_attention_terms import (
    LinearAttentionOptions,
    attending,
    denominators,
    key_features,
    query_features,
    weighted_sums,
)
from rotary_spec_backends.frameworks import Array

Carry = Any
Result = tuple[Array, Array | None]
"""The output, and the least denominator: NaN where one is not finite, None where there is none."""


class Tokens(NamedTuple):
    """Arrays with a sequence: ``features`` (..., seq, width), and ``rows`` (..., seq) or None.

    A row of one entry serves all tokens.
    """

    features: tuple[Array, ...]
    rows: tuple[Array | None, ...] = ()

    @property
    def length(self) -> int:
        """Number of tokens."""
        return int(self.features[0].shape[-2])

    def part(self, start: int, stop: int) -> Tokens:
        """The tokens from ``start`` to ``stop``, as views."""
        return Tokens(
            tuple(x[..., start:stop, :] for x in self.features),
            tuple(
                row[..., start:stop] if row is not None and is_long(row) else row
                for row in self.rows
            ),
        )


def is_long(row: Array | None) -> bool:
    """Whether a row has an entry for each token."""
    return row is not None and bool(row.shape) and row.shape[-1] != 1


Step = Callable[[Carry, Tokens], tuple[Carry, Array | None, Array | None]]


def _add_product(c: Array, a: Array, b: Array) -> Array:
    return c + a @ b


class Tools(NamedTuple):
    """What the forms need of a framework.

    Attributes
    ----------
    xp : array API namespace
    turn : callable
        ``turn(arrays, positions, options)``: the arrays (..., seq, features), rotated.
    scan : callable
        ``scan(step, carry, tokens, sizes, xp)`` calls ``carry, out, lowest = step(carry, part)``
        for parts of the given sizes, one after the other, and gives the last carry, the joined
        ``out`` and the least ``lowest``, each None where the steps give None.
    chunks : int
        Chunks in one part of a scan, or `ALL`.
    tril : callable
        The lower triangles of an array that nobody else needs.
    add_product : callable
        ``c + a @ b``.
    """

    xp: Any
    turn: Callable[..., tuple[Array, ...]]
    scan: Callable[[Step, Carry, Tokens, list[int], Any], tuple[Carry, Any, Any]]
    chunks: int
    tril: Callable[[Array], Array]
    add_product: Callable[[Array, Array, Array], Array] = _add_product


ALL = 0
"""As many chunks side by side as there are."""


def sizes_of_parts(length: int, chunk: int, chunks: int = 1) -> list[int]:
    """Sizes of parts of so many chunks, of what is left in whole chunks, and of the rest."""
    part = chunk * (chunks or max(length // chunk, 1))
    whole, rest = divmod(length, part)
    sizes = [part] * whole
    return sizes + [size for size in (rest - rest % chunk, rest % chunk) if size]


def python_scan(
    step: Step, carry: Carry, tokens: Tokens, sizes: list[int], xp: Any
) -> tuple[Carry, Array | None, Array | None]:
    """`Tools.scan` as a loop; the output's memory is written once."""
    out, lows, start = None, [], 0
    for size in sizes:
        carry, part, low = step(carry, tokens.part(start, start + size))
        if part is not None:
            if out is None:
                shape = (*part.shape[:-2], tokens.length, part.shape[-1])
                out = xp.empty(shape, dtype=part.dtype, device=device_of(part))
            out[..., start : start + size, :] = part
        lows.append(low)
        start += size
    return carry, out, least(lows, xp)


def least(lows: list[Array | None], xp: Any) -> Array | None:
    """The least of some 0-d arrays, NaN if one is; None if there is none."""
    known = [low for low in lows if low is not None]
    return reduce(xp.minimum, known) if known else None


def causal(
    tools: Tools,
    options: LinearAttentionOptions,
    chunk: int,
    tokens: Tokens,
    carry: tuple[Array, Array],
    seen: Array | None,
) -> tuple[tuple[Array, Array], Result]:
    """Causal by index, going on from S and z.

    ``tokens`` hold q, k, v and positions, key_mask; ``seen`` says for each key head whether an
    earlier key counted, None that none has.
    """
    xp, (q, k, _), (positions, key_mask) = tools.xp, tokens.features, tokens.rows
    attends = attends_so_far(q, k, key_mask, seen, xp)

    def step(carry: Any, part: Tokens) -> Any:
        return _causal_part(tools, options, chunk, part, carry)

    rows = (positions, key_mask, attends)
    sizes = sizes_of_parts(tokens.length, chunk, tools.chunks)
    carry, out, low = tools.scan(step, carry, Tokens(tokens.features, rows), sizes, xp)
    return carry, (out, low)


def attends_so_far(
    q: Array, k: Array, key_mask: Array | None, seen: Array | None, xp: Any
) -> Array | None:
    """Whether a query attends to any key, (..., heads, seq); None where all do."""
    if key_mask is None:
        return None
    counts = xp.broadcast_to(key_mask, tuple(k.shape[:-1]))
    so_far = xp.cumulative_sum(xp.astype(counts, xp.int32), axis=-1) > 0
    if seen is not None:
        so_far = so_far | seen[..., None]
    return repeat_heads(so_far, group_size(q, k), -2, xp)


def _causal_part(
    tools: Tools,
    options: LinearAttentionOptions,
    chunk: int,
    part: Tokens,
    carry: tuple[Array, Array],
) -> tuple[tuple[Array, Array], Array, Array | None]:
    """One part of a causal scan: chunks side by side, of which each sees the sums before it."""
    xp, (q, k, v), (positions, key_mask, attends) = tools.xp, part.features, part.rows
    numerator, normaliser = carry
    work = numerator.dtype
    size = min(chunk, part.length)
    groups, heads = group_size(q, k), tuple(k.shape[:-2])
    inner = (part.length // size, size)

    phi_q = query_features(xp.astype(q, work, copy=False), options)
    phi_k, values = key_features(
        xp.astype(k, work, copy=False), xp.astype(v, work, copy=False), key_mask, options, xp
    )
    turned_q, turned_k = tools.turn((phi_q, phi_k), positions, options)
    counted_q, counted_k = phi_q, phi_k
    if options.denominator == "rotated":
        counted_q, counted_k = turned_q, turned_k
    queries = (*heads, groups, *inner)
    turned_q, counted_q = (_by_chunk(x, queries, xp) for x in (turned_q, counted_q))
    turned_k, counted_k, values = (
        xp.reshape(x, (*heads, *inner, x.shape[-1])) for x in (turned_k, counted_k, values)
    )
    sums, numerator = _sums_before(numerator, xp.matrix_transpose(turned_k), values, tools)
    square = (*turned_q.shape[:-2], groups, size, size)
    weights = tools.tril(xp.reshape(turned_q @ xp.matrix_transpose(turned_k), square))
    weights = xp.reshape(weights, (*turned_q.shape[:-1], size))
    out = _in_a_row(tools.add_product(turned_q @ sums, weights, values), queries, q, xp)

    one = xp.ones((size, size), dtype=work, device=device_of(q))
    last = xp.broadcast_to(one[:1, :], (*counted_k.shape[:-2], 1, size))
    z, z_after = _sums_before(normaliser[..., None, :], last, counted_k, tools)
    total = None
    if options.denominator != "none":
        earlier = xp.broadcast_to(xp.tril(one), (*counted_k.shape[:-2], size, size))
        until = tools.add_product(z, earlier, counted_k)  # z up to and with each token
        until = until if groups == 1 else xp.concat([until] * groups, axis=-2)
        total = _in_a_row(xp.sum(counted_q * until, axis=-1)[..., None], queries, q, xp)[..., 0]
    out, low = _divided(out, total, attends, options, q.dtype, xp)
    return (numerator, z_after[..., 0, :]), out, low


def _sums_before(start: Array, a: Array, b: Array, tools: Tools) -> tuple[Array, Array]:
    """``start`` and the products a b of the chunks before each chunk, and of all of them."""
    xp = tools.xp
    if a.shape[-3] == 1:
        first = start[..., None, :, :]
        return first, tools.add_product(first, a, b)[..., 0, :, :]
    running = start[..., None, :, :] + xp.cumulative_sum(a @ b, axis=-3)
    before = xp.concat([start[..., None, :, :], running[..., :-1, :, :]], axis=-3)
    return before, running[..., -1, :, :]


def _by_chunk(x: Array, shape: tuple[int, ...], xp: Any) -> Array:
    """(..., heads, seq, width) as (..., key_heads, chunks, groups * size, width).

    ``shape`` is (..., key_heads, groups, chunks, size).
    """
    *heads, groups, chunks, size = shape
    x = _exchanged(xp.reshape(x, (*shape, x.shape[-1])), groups, xp)
    return xp.reshape(x, (*heads, chunks, groups * size, x.shape[-1]))


def _in_a_row(x: Array, shape: tuple[int, ...], q: Array, xp: Any) -> Array:
    """The reverse of `_by_chunk`."""
    *heads, groups, chunks, size = shape
    x = _exchanged(xp.reshape(x, (*heads, chunks, groups, size, x.shape[-1])), groups, xp)
    return xp.reshape(x, (*q.shape[:-1], x.shape[-1]))


def _exchanged(x: Array, groups: int, xp: Any) -> Array:
    """Chunks and groups, the third and fourth axis from the end, in each other's place.

    With one group a reshape does it, which is never a copy.
    """
    if groups == 1:
        return x
    axes = list(range(len(x.shape)))
    axes[-4], axes[-3] = axes[-3], axes[-4]
    return xp.permute_dims(x, axes)


def lowest(total: Array, xp: Any) -> Array:
    """The least denominator; NaN where one is infinite or NaN."""
    return xp.min(total + (total - total))


def bidirectional(
    tools: Tools, options: LinearAttentionOptions, chunk: int, queries: Tokens, keys: Tokens
) -> Result:
    """Every query attends to every key: two scans, one that sums the keys, one that asks.

    ``queries`` hold q and positions; ``keys`` hold k, v and positions, key_mask.
    """
    xp, (q,), (k, v) = tools.xp, queries.features, keys.features
    groups = group_size(q, k)
    sums = gathered(tools, options, chunk, keys, empty_sums(k, v, options, xp))
    numerator = repeat_heads(sums[0], groups, -3, xp)
    normaliser = repeat_heads(sums[1], groups, -2, xp)
    attends = attending(q, k, keys.rows[1], None, xp)

    def ask(nothing: Any, part: Tokens) -> Any:
        phi, turned = _queries(tools, options, part, sums[0].dtype)
        counted = turned if options.denominator == "rotated" else phi
        total = (counted @ normaliser[..., None])[..., 0]
        return nothing, *_divided(turned @ numerator, total, attends, options, q.dtype, xp)

    _, out, low = tools.scan(
        ask, (), queries, sizes_of_parts(queries.length, chunk, tools.chunks), xp
    )
    return out, low


def gathered(
    tools: Tools, options: LinearAttentionOptions, chunk: int, keys: Tokens, sums: Carry
) -> Carry:
    """S and z with these keys added. ``keys`` hold k, v and positions, key_mask."""
    xp = tools.xp

    def gather(sums: Any, part: Tokens) -> Any:
        terms = _keys(tools, options, part, sums[0].dtype)
        return tuple(map(xp.add, sums, key_sums(*terms, options, xp))), None, None

    return tools.scan(gather, sums, keys, sizes_of_parts(keys.length, chunk, tools.chunks), xp)[0]


def by_order(
    tools: Tools,
    options: LinearAttentionOptions,
    chunk: int,
    queries: Tokens,
    keys: Tokens,
    key_order: Array,
) -> Result:
    """Causal by position, in any order: a scan over the queries, each part with all keys.

    ``queries`` hold q and positions, order (see `rotary_spec.attention_arguments.order`). Memory
    is linear in the length, time is not.
    """
    xp, (q,), (k, v) = tools.xp, queries.features, keys.features
    work = empty_sums(k, v, options, xp)[0].dtype
    terms = _keys(tools, options, keys, work)

    def ask(nothing: Any, part: Tokens) -> Any:
        block, visible = part.features[0], causal_mask(part.rows[1], key_order)
        attends = attending(block, k, keys.rows[1], visible, xp)
        asked = _queries(tools, options, part, work)
        numerator, total = weighted_sums(asked, terms, visible, options, xp)
        return nothing, *_divided(numerator, total, attends, options, q.dtype, xp)

    _, out, low = tools.scan(ask, (), queries, sizes_of_parts(queries.length, chunk), xp)
    return out, low


def _divided(
    numerator: Array,
    total: Array,
    attends: Array | None,
    options: LinearAttentionOptions,
    dtype: Any,
    xp: Any,
) -> tuple[Array, Array | None]:
    """A part of the output, and its least denominator."""
    if options.denominator == "none":
        return xp.astype(numerator, dtype, copy=False), None
    total = denominators(total, attends, options, xp)
    return xp.astype(numerator / total[..., None], dtype, copy=False), lowest(total, xp)


def _queries(
    tools: Tools, options: LinearAttentionOptions, part: Tokens, work: Any
) -> tuple[Array, Array]:
    phi = query_features(tools.xp.astype(part.features[0], work, copy=False), options)
    return phi, *tools.turn((phi,), part.rows[0], options)


def _keys(
    tools: Tools, options: LinearAttentionOptions, part: Tokens, work: Any
) -> tuple[Array, Array, Array]:
    k, v = (tools.xp.astype(x, work, copy=False) for x in part.features)
    phi, values = key_features(k, v, part.rows[1], options, tools.xp)
    return phi, *tools.turn((phi,), part.rows[0], options), values


def empty_sums(k: Array, v: Array, options: LinearAttentionOptions, xp: Any) -> tuple[Array, Array]:
    """S and z before the first key, in float32, or float64 for float64."""
    work = xp.float64 if k.dtype == xp.float64 else xp.float32
    shape = (*k.shape[:-2], options.spec.head_dim)
    return (
        xp.zeros((*shape, v.shape[-1]), dtype=work, device=device_of(k)),
        xp.zeros(shape, dtype=work, device=device_of(k)),
    )
