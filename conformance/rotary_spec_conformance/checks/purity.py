"""PURE: a call keeps its input, its dtype and its shape, and reads strided memory rightly."""

from __future__ import annotations

import numpy as np

from rotary_spec_conformance.context import Context, worst
from rotary_spec_conformance.registry import NotRun, Outcome, clause

COUNT = 6


@clause("PURE-1", "the input is left unchanged")
def input_unchanged(context: Context, dtype: str) -> Outcome:
    """Bit for bit, unless the target declares that it works in place."""
    if context.target.in_place:
        raise NotRun("declared to work in place")
    probe = context.fresh(dtype)
    x = probe.framework.asarray(context.random(2, 2, COUNT, context.target.head_dim), dtype)
    before = probe.framework.to_numpy(x).copy()
    probe.call(x, probe.native_positions(COUNT))
    return worst(
        probe.framework.to_numpy(x) - before,
        0.0,
        "abs",
        lambda i: {"position": i[2], "lane": i[3]},
        "the call wrote into its input, which breaks gradient checkpointing and shared tensors",
    )


@clause("PURE-2", "strided input gives the same", quick=False)
def strided_input(context: Context, dtype: str) -> Outcome:
    """The same values in memory that is not contiguous."""
    probe = context.fresh(dtype)
    x = probe.framework.asarray(context.random(2, 2, COUNT, context.target.head_dim), dtype)
    strided = probe.framework.strided(x)
    if strided is None:
        raise NotRun(f"{probe.framework.name} arrays have no strides")
    host = probe.framework.to_numpy(x)
    plain = probe.read(probe.call(x, probe.native_positions(COUNT)), host.shape)
    again = probe.read(probe.call(strided, probe.native_positions(COUNT)), host.shape)
    return worst(
        again - plain,
        2 * context.bound(host, np.arange(COUNT), dtype),
        "abs",
        lambda i: {"position": i[2], "lane": i[3]},
        "strided memory is read as if it were contiguous",
    )


@clause("PURE-3", "dtype and shape are kept", dtypes="each")
def dtype_and_shape(context: Context, dtype: str) -> Outcome:
    """The result is an array of the input's framework, shape and dtype."""
    probe = context.fresh(dtype)
    shape = (2, 3, COUNT, context.target.head_dim)
    x = probe.framework.asarray(context.random(*shape), dtype)
    y = probe.call(x, probe.native_positions(COUNT))
    probe.read(y, shape)
    given = probe.framework.dtype_of(y)
    return Outcome(
        float(given != dtype),
        0.0,
        "abs",
        message=f"a {dtype} input gives a {given} result",
    )
