"""Causal linear attention in PyTorch where nobody differentiates: `chunked.causal` in buffers.

What is not a product is memory traffic and calls: a few chunks at a time go through the same
buffers, which stay in the processor's cache, in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat.torch as xp
import torch

from rotary_spec.attention_arguments import group_size
from rotary_spec.feature_maps import FEATURE_MAPS
from rotary_spec.linear_attention_terms import (
    LinearAttentionOptions,
    denominators,
    key_features,
    query_features,
)
from rotary_spec_backends.chunked import Result, Tokens, attends_so_far, lowest, sizes_of_parts
from rotary_spec_backends.frameworks import Array
from rotary_spec_backends.host.pages import prefer_large_pages

Turn = Callable[..., tuple[Array, ...]]
_AT_ONCE = 512  # tokens of all chunks that one round of calls does


def causal(
    turn: Turn,
    table: Callable[..., Array] | None,
    options: LinearAttentionOptions,
    chunk: int,
    tokens: Tokens,
    carry: tuple[Array, Array],
    seen: Array | None,
) -> tuple[tuple[Array, Array], Result]:
    """`chunked.causal`; ``table`` gives the factors of complex pairs, where the spec has such."""
    (q, k, v), (positions, key_mask) = tokens.features, tokens.rows
    numerator, normaliser = carry
    rows = k.shape[:-2].numel()
    carry = (
        numerator.reshape(rows, *numerator.shape[-2:]).clone(),
        normaliser.reshape(rows, 1, normaliser.shape[-1]).clone(),
    )
    attends = attends_so_far(q, k, key_mask, seen, xp)
    out = torch.empty((*q.shape[:-1], v.shape[-1]), dtype=q.dtype, device=q.device)
    if out.device.type == "cpu":
        prefer_large_pages(out.data_ptr(), out.nbytes)
    total = torch.ones(q.shape[:-1], dtype=numerator.dtype, device=q.device)
    whole = Tokens((q, k, v, out, total[..., None]), (positions, key_mask, attends))
    work, start = None, 0
    # Where queries share keys, a chunk's queries do not lie together: one chunk at a time.
    many = max(1, _AT_ONCE // chunk) if group_size(q, k) == 1 else 1
    for length in sizes_of_parts(tokens.length, chunk, many):
        if work is None or work.length != length:
            work = _Work(q, k, v, numerator.dtype, length, min(chunk, length), options, turn)
        part = whole.part(start, start + length)
        factors = None if table is None else table(numerator, part.rows[0], options)
        work.run(part, factors, carry)
        start += length
    low = None if options.denominator == "none" else lowest(total, xp)
    return tuple(x.view(y.shape) for x, y in zip(carry, (numerator, normaliser))), (out, low)


class _Work:
    """Buffers for some chunks of tokens; batch, key heads and chunks are one axis of products."""

    def __init__(
        self,
        q: Array,
        k: Array,
        v: Array,
        dtype: Any,
        length: int,
        size: int,
        options: LinearAttentionOptions,
        turn: Turn,
    ) -> None:
        self.length, self.size, self.count = length, size, (count := length // size)
        self.options, self.turn = options, turn
        self.groups = group_size(q, k)

        def empty(*shape: int) -> Array:
            return torch.empty(shape, dtype=dtype, device=q.device)

        self.rows = rows = k.shape[:-2].numel()
        width, depth, chunks = options.spec.head_dim, v.shape[-1], rows * count
        of_q, of_k = ((*x.shape[:-2], length, width) for x in (q, k))
        self.phi, self.turned = _Pair(of_q, of_k, empty), _Pair(of_q, of_k, empty)
        self.weights = empty(chunks, self.groups * size, size)
        self.out = empty(chunks, self.groups * size, depth)
        self.until = empty(chunks, size, width)
        self.added, self.before = empty(chunks, width, depth), empty(rows, count, width, depth)
        self.counted_before = empty(rows, count, 1, width)
        lower = torch.ones(size, size, dtype=dtype, device=q.device).tril_()
        self.lower = lower.expand(chunks, -1, -1)

    def run(self, part: Tokens, factors: Array | None, carry: tuple[Array, Array]) -> None:
        """Some chunks: writes their output and denominators, and adds their keys to the carry."""
        (q, k, v, out, total), (positions, key_mask, attends) = part.features, part.rows
        width, chunks = self.until.shape[-1], self.rows * self.count
        values = self._features(q, k, v, key_mask).reshape(chunks, self.size, v.shape[-1])
        self._rotate(positions, factors)
        queries, keys = self.turned.each
        queries = queries.view(chunks, self.groups * self.size, width)
        keys = keys.view(chunks, self.size, width)

        torch.bmm(queries, keys.mT, out=self.weights)
        self.weights.view(chunks * self.groups, self.size, self.size).tril_()
        torch.bmm(keys.mT, values, out=self.added)
        _accumulate(carry[0], self.added.view(self.before.shape), self.before)
        torch.bmm(queries, self.before.view(self.added.shape), out=self.out)
        self.out.baddbmm_(self.weights, values)

        rotated = self.options.denominator == "rotated"
        counted_q, counted_k = (self.turned if rotated else self.phi).each
        torch.bmm(self.lower, counted_k.view(self.until.shape), out=self.until)
        until = self.until.view(self.rows, self.count, self.size, width)
        _accumulate(carry[1], until[:, :, -1:], self.counted_before)
        until += self.counted_before

        numerators = self.out.view(out.shape)
        if self.options.denominator == "none":
            out.copy_(numerators)
            return
        grouped = counted_q.view(self.rows, self.groups, self.length, width)
        grouped *= self.until.view(self.rows, 1, self.length, width)
        torch.sum(counted_q, dim=-1, keepdim=True, out=total)
        if self.options.eps or attends is not None:
            total[..., 0] = denominators(total[..., 0], attends, self.options, xp)
        if out.dtype == total.dtype:
            torch.div(numerators, total, out=out)
        else:
            out.copy_(numerators.div_(total))

    def _features(self, q: Array, k: Array, v: Array, key_mask: Array | None) -> Array:
        """Fill ``phi``; the values."""
        work = self.until.dtype
        q, k, v = (x.to(work) for x in (q, k, v))
        if key_mask is None and self.options.feature_map == FEATURE_MAPS["elu+1"]:
            for x, negative, positive in zip((q, k), self.phi.each, self.turned.each):
                torch.clamp_max(x, 0, out=negative)
                torch.clamp_min(x, 0, out=positive)
            self.phi.both.exp_().add_(self.turned.both)
            return v
        keys, values = key_features(k, v, key_mask, self.options, xp)
        for own, x in zip(self.phi.each, (query_features(q, self.options), keys)):
            own.copy_(x)
        return values

    def _rotate(self, positions: Array, factors: Array | None) -> None:
        """Fill ``turned`` from ``phi``."""
        if factors is not None:
            for x, own in zip(self.phi.complex, self.turned.complex):
                torch.mul(x, factors, out=own)
            return
        for own, x in zip(self.turned.each, self.turn(self.phi.each, positions, self.options)):
            own.copy_(x)


def _accumulate(carry: Array, added: Array, before: Array) -> None:
    """Fill ``before`` with the carry before each chunk, (rows, chunks, ...), and move it on."""
    for chunk in range(added.shape[1]):
        before[:, chunk] = carry
        carry += added[:, chunk]


class _Pair:
    """Room for queries and keys in one piece: ``both`` in a row, ``each`` with its own shape."""

    def __init__(self, q: tuple[int, ...], k: tuple[int, ...], empty: Callable[..., Array]) -> None:
        sizes = [torch.Size(shape).numel() for shape in (q, k)]
        self.both = empty(sum(sizes))
        self.each = tuple(x.view(s) for x, s in zip(self.both.split(sizes), (q, k)))
        # With the same shape, one multiplication does.
        stacked = [self.both.view(2, *q)] if q == k else self.each
        self.complex = (
            [] if q[-1] % 2 else [torch.view_as_complex(x.unflatten(-1, (-1, 2))) for x in stacked]
        )
