"""PURE: a call keeps its input, its dtype and its shape, and reads strided memory rightly."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from rotary_spec_conformance.context import Context, worst
from rotary_spec_conformance.probe import Floats, TargetMisbehaved
from rotary_spec_conformance.registry import NotRun, Outcome, clause

COUNT = 6


@clause("PURE-1", "the input is left unchanged")
def input_unchanged(context: Context, dtype: str) -> Outcome:
    """Features bit for bit, unless the target declares that it works in place; positions too."""
    if context.target.in_place:
        raise NotRun("declared to work in place")
    probe = context.fresh(dtype)
    # Shapes are those of other checks: where a call is compiled, each new one costs.
    x = probe.framework.asarray(context.random(3, 2, COUNT, context.target.head_dim), dtype)
    before = probe.framework.to_numpy(x).copy()
    positions = probe.native_positions(COUNT)
    probe.call(x, positions)
    if context.target.positions == "explicit":
        moved = np.abs(probe.framework.to_numpy(positions) - np.arange(COUNT)).max()
        if moved:
            return Outcome(float(moved), 0.0, message="the call wrote into its positions")
    return worst(
        probe.framework.to_numpy(x) - before,
        0.0,
        "abs",
        lambda i: {"position": i[2], "lane": i[3]},
        "the call wrote into its input, which breaks gradient checkpointing and shared tensors",
    )


@clause("PURE-2", "strided input gives the same")
def strided_input(context: Context, dtype: str) -> Outcome:
    """The same values in memory that is not contiguous; a strided last axis may be refused."""
    probe = context.fresh(dtype)
    framework, shape = probe.framework, (2, 3, COUNT, context.target.head_dim)
    x = framework.asarray(context.random(*shape), dtype)
    packed = framework.strided(x)
    if packed is None:
        raise NotRun(f"{framework.name} arrays have no strides")
    host = framework.to_numpy(x).copy()

    def rotated(features: Any) -> Floats:
        return probe.read(probe.call(features, probe.native_positions(COUNT)), shape)

    plain = rotated(x)
    differences, calls = [rotated(packed) - plain], ["packed (batch, seq, heads, 2 head_dim)"]
    transposed = framework.asarray(host.swapaxes(-1, -2), dtype).swapaxes(-1, -2)
    with suppress(TargetMisbehaved):
        differences.append(rotated(transposed) - plain)
        calls.append("strided last axis")
    return worst(
        np.stack(differences),
        2 * context.bound(host, np.arange(COUNT), dtype),
        "abs",
        lambda i: {"call": calls[i[0]], "position": i[3], "lane": i[4]},
        "strided memory is read as if it were contiguous",
    )


@clause("PURE-3", "dtype and shape are kept", dtypes="each")
def dtype_and_shape(context: Context, dtype: str) -> Outcome:
    """The result is an array of the input's framework, shape and dtype."""
    probe = context.fresh(dtype)
    count = min(16, context.max_position)
    shape = (2, 3, count, context.target.head_dim)
    x = probe.framework.asarray(context.random(*shape), dtype)
    y = probe.call(x, probe.native_positions(count))
    probe.read(y, shape)
    given = probe.framework.dtype_of(y)
    return Outcome(
        float(given != dtype),
        0.0,
        "abs",
        message=f"a {dtype} input gives a {given} result",
    )
