"""The Numba engine of linear attention: features, rotation and denominators of some chunks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from rotary_spec.feature_maps import FEATURE_MAPS
from rotary_spec.linear_attention_terms import LinearAttentionOptions
from rotary_spec_backends.frameworks import HostArray
from rotary_spec_backends.host import compiled, threads
from rotary_spec_backends.host.route import host_tables, no_numba


def refusal(dtype: str, options: LinearAttentionOptions) -> str | None:
    """Why the kernel does not serve such a call; None where it does."""
    if dtype == "float64" or not compiled.has_dtype(dtype):
        return dtype
    if options.feature_map != FEATURE_MAPS["elu+1"]:
        return f"feature map {options.feature_map.name!r}"
    if options.spec.sections is not None:
        return "sections"
    return no_numba()


class Terms:
    """What the matrix products of one call take, some chunks at a time.

    Parameters
    ----------
    q, k : array
        (..., heads, seq, width) and (..., key_heads, seq, width), lanes side by side; bfloat16 and
        float16 as 16-bit words.
    dtype : str
    positions : array
        Broadcasts to (..., key_heads, seq).
    options : LinearAttentionOptions
        One that `refusal` lets pass.
    limit : int
        How many threads may be used.
    """

    def __init__(
        self,
        q: HostArray,
        k: HostArray,
        dtype: str,
        positions: HostArray,
        options: LinearAttentionOptions,
        limit: int,
    ) -> None:
        from rotary_spec_backends.kernels import numba_linear_attention

        spec = options.spec
        self._kernel = numba_linear_attention.terms(
            dtype, spec.layout, spec.output_layout or spec.layout
        )
        self._q, self._k, self._positions = q, k, positions
        self._options, self._limit = options, limit
        self._rows = _offsets(q), _offsets(k)
        self._groups = self._rows[0].size // max(1, self._rows[1].size)

    def at(self, part: slice) -> None:
        """Go to these tokens."""
        spec, positions = self._options.spec, self._positions
        if positions.shape[-1] != 1:
            positions = positions[..., part]
        self._part = part
        self._tables = host_tables(positions, spec, self._options.seq_len, False, self._limit)
        row, length = 4 * spec.pairs, positions.shape[-1]
        first = np.arange(0, positions.size, length, dtype=np.int64).reshape(positions.shape[:-1])
        of_rows = np.broadcast_to(first * row, self._k.shape[:-2])
        self._table_rows = np.ascontiguousarray(of_rows).reshape(-1)
        self._table_step = row if length != 1 else 0

    def fill(
        self,
        rows: slice,
        size: int,
        turned: tuple[HostArray, HostArray],
        totals: HostArray | None,
        z: HostArray,
    ) -> None:
        """Write the terms of some sequences of keys and their queries, in chunks of ``size``.

        Parameters
        ----------
        rows : slice
            Which ones, counted through the axes before the last two.
        size : int
            Divides the number of tokens.
        turned : tuple of array
            R phi(q) to be, (rows, chunks, groups, size, width), and R phi(k), (rows, chunks, size,
            width), of these rows; float32 and dense.
        totals : array, optional
            The denominators of the whole call, (all rows, groups, seq, 1), float32 and dense.
        z : array
            Of all rows, (all rows, width), float32 and dense: of the tokens before, and then of
            these too.
        """
        spec, part, (cos, sin) = self._options.spec, self._part, self._tables
        (of_q, of_k), (q_step, k_step) = self._rows, (x.strides[-2] for x in (self._q, self._k))
        first, groups = rows.start, self._groups
        total_at, total_row = 0, 0
        if totals is not None:
            total_row = totals.strides[1]
            total_at = totals.ctypes.data + first * totals.strides[0] + part.start * 4
        call = partial(
            self._kernel,
            self._q.ctypes.data + part.start * q_step, self._k.ctypes.data + part.start * k_step,
            of_q[first * groups :].ctypes.data, of_k[first:].ctypes.data, q_step, k_step,
            cos.ctypes.data, sin.ctypes.data, self._table_rows[first:].ctypes.data,
            self._table_step, *(x.ctypes.data for x in turned), total_at, total_row,
            z[first:].ctypes.data, (groups, part.stop - part.start, size),
            (spec.rotary_start, spec.pairs, spec.head_dim),
            self._options.denominator == "rotated",
        )  # fmt: skip
        bytes_ = sum(x.nbytes for x in turned)
        threads.run(compiled.jobs(call, rows.stop - first, bytes_, self._limit), self._limit)


def sums_before(added: HostArray, so_far: HostArray) -> None:
    """Make what each chunk adds the sums before it, and move on those ``so_far``.

    Parameters
    ----------
    added : array
        (rows * chunks + 1, ...), the chunks of row after row, each one place late. Afterwards the
        sums before them are in their own places.
    so_far : array
        (rows, ...). Both are float32 and dense.
    """
    from rotary_spec_backends.kernels import numba_linear_attention

    rows = len(so_far)
    numba_linear_attention.running_sums()(
        added.ctypes.data, so_far.ctypes.data, rows, (len(added) - 1) // rows, so_far[0].size
    )


def _offsets(x: HostArray) -> Any:
    """Where each sequence of (..., seq, width) begins, in bytes, int64."""
    places = np.zeros((1,) * (x.ndim - 2), dtype=np.int64)
    for axis, (size, stride) in enumerate(zip(x.shape[:-2], x.strides)):
        along = np.arange(size, dtype=np.int64) * stride
        places = places + along.reshape([-1 if a == axis else 1 for a in range(x.ndim - 2)])
    return np.ascontiguousarray(places.reshape(-1))
