"""Causal linear attention of plain PyTorch tensors on the CPU: a kernel, and PyTorch's products.

Features, rotation and denominators are one pass of the Numba kernel. A sequence at a time, or as
many short ones as make a round, goes through the same buffers, which stay in the processor's cache.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from rotary_spec._array import dtype_name
from rotary_spec.attention_arguments import group_size
from rotary_spec.linear_attention_terms import LinearAttentionOptions
from rotary_spec_backends import torch_host
from rotary_spec_backends.chunked import Result, Tokens, lowest, sizes_of_parts
from rotary_spec_backends.host import linear_attention as host
from rotary_spec_backends.host.pages import page_in

CHUNK = 64
"""Tokens of a chunk at most: two thirds of the multiplications of 128, for more states."""

_ROUND = 2**14  # queries that one round of calls does
_FEW = 2
"""Threads up to which the kernel keeps to the caller's.

PyTorch's own go on waiting busily for its next operation, so that ours get half of a processor
each: two of them took longer than one alone.
"""


def refusal(tokens: Tokens, options: LinearAttentionOptions) -> str | None:
    """Why a call is not for this module; None where it is."""
    (q, k, _), (positions, key_mask) = tokens.features, tokens.rows
    if key_mask is not None:
        return "a key_mask"
    if q.stride(-1) != 1 or k.stride(-1) != 1:
        return "lanes that do not lie side by side"
    assert positions is not None
    reason = torch_host.refusal((q, k), positions, options.spec, (), options.seq_len)
    return reason or host.refusal(dtype_name(q), options)


def causal(
    options: LinearAttentionOptions,
    chunk: int,
    tokens: Tokens,
    carry: tuple[torch.Tensor, torch.Tensor],
) -> tuple[tuple[torch.Tensor, torch.Tensor], Result]:
    """`chunked.causal`, of what `refusal` lets pass. No derivative."""
    (q, k, v), (positions, _), length = tokens.features, tokens.rows, tokens.length
    assert positions is not None
    rows, groups = k.shape[:-2].numel(), group_size(q, k)
    state, z = (x.clone(memory_format=torch.contiguous_format) for x in carry)
    states, sums = state.view(rows, *state.shape[-2:]), z.view(rows, z.shape[-1])
    values = v.flatten(0, -3)  # a copy only where heads are beside tokens, in several batches
    out = torch.empty((*q.shape[:-1], v.shape[-1]), dtype=q.dtype)
    outs = out.view(rows, groups, length, -1)
    totals = torch.ones((rows, groups, length, 1))

    threads, chunk = torch.get_num_threads(), min(chunk, CHUNK)
    limit = threads if threads > _FEW else 1
    page_in(out.data_ptr(), out.nbytes)
    at_once = max(1, min(rows, max(limit, _ROUND // (groups * length))))
    chunks = max(1, _ROUND // (groups * chunk * at_once))
    terms = host.Terms(
        torch_host.words(q), torch_host.words(k), dtype_name(q),
        positions.detach().numpy(), options, limit,
    )  # fmt: skip
    places = None if options.denominator == "none" else totals.numpy()
    room, start = None, 0
    for size in sizes_of_parts(length, chunk, chunks):
        part = slice(start, start := start + size)
        terms.at(part)
        for first in range(0, rows, at_once):
            some = slice(first, min(rows, first + at_once))
            shape = _Shape(some.stop - first, groups, size // min(chunk, size), min(chunk, size))
            if room is None or room.shape != shape:
                room = _Room(shape, states)
            terms.fill(some, shape.size, room.turned, places, sums.numpy())
            given = values[some, part].to(states.dtype)
            to, total = outs[some, :, part], totals[some, :, part]
            if options.denominator != "none" and options.eps:
                total += options.eps
            room.attend(given, states[some], total, to)
    low = None if options.denominator == "none" else lowest(totals, torch)
    return (state, z), (out, low)


class _Shape(NamedTuple):
    """Rows are sequences of keys; groups, the heads that share one; size, the tokens of a chunk."""

    rows: int
    groups: int
    chunks: int
    size: int


def _pieces(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    """Float32 tensors in one piece of memory, which the allocator keeps when it is freed."""
    sizes = [math.prod(shape) for shape in shapes]
    pieces = torch.empty(sum(sizes)).split(sizes)
    return [piece.view(shape) for piece, shape in zip(pieces, shapes)]


class _Room:
    """Room for the terms and products of a round."""

    def __init__(self, shape: _Shape, states: torch.Tensor) -> None:
        rows, groups, count, size = self.shape = shape
        (width, depth), chunks = states.shape[-2:], rows * count
        self._queries, self._keys, self._weights, self._states, self._out = _pieces(
            (chunks, groups * size, width),
            (chunks, size, width),
            (chunks, groups * size, size),
            (chunks + 1, width, depth),
            (chunks, groups * size, depth),
        )
        self.turned = self._queries.numpy(), self._keys.numpy()

    def attend(
        self, values: torch.Tensor, states: torch.Tensor, total: torch.Tensor, to: torch.Tensor
    ) -> None:
        """Write the output of the terms in ``turned``, and add their keys to the states.

        ``values`` (rows, tokens, depth), ``states`` (rows, width, depth), ``total`` (rows, groups,
        tokens, 1), and ``to`` (rows, groups, tokens, depth).
        """
        rows, groups, count, size = self.shape
        values = values.reshape(rows * count, size, -1)
        # Products write to dense memory alone; the queries of heads that share keys are not.
        direct = to.dtype == values.dtype and groups == 1 and to.is_contiguous()
        out = to.view(self._out.shape) if direct else self._out
        torch.bmm(self._queries, self._keys.mT, out=self._weights)
        self._weights.view(-1, size, size).tril_()
        torch.bmm(self._keys.mT, values, out=self._states[1:])
        host.sums_before(self._states.numpy(), states.numpy())
        torch.bmm(self._queries, self._states[:-1], out=out)
        out.baddbmm_(self._weights, values)
        if direct:
            to /= total
            return
        to, total = (x.unflatten(-2, (count, size)).transpose(1, 2) for x in (to, total))
        to.copy_(out.view(to.shape).div_(total))
