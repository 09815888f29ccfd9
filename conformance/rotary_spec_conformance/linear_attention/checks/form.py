"""LATT-1 to 3: a result of the right form, linear in the values, for each head alone."""

from __future__ import annotations

import numpy as np

from rotary_spec_conformance.context import worst
from rotary_spec_conformance.linear_attention.checks.registration import clause
from rotary_spec_conformance.linear_attention.context import LinearAttentionContext
from rotary_spec_conformance.registry import Outcome

SHAPE = (3, 2, 6)
"""One for all: where a call is compiled, a new shape costs."""


@clause("LATT-1", "the result has the values' shape and dtype", dtypes="each")
def form(context: LinearAttentionContext, dtype: str) -> Outcome:
    """And it is finite for Gaussian queries, keys and values."""
    q, k, v = context.inputs(dtype, *SHAPE)
    probe = context.fresh(dtype)
    native = [probe.native(x) for x in (q, k, v)]
    out = probe.called(native, probe.places(np.arange(SHAPE[2])))
    host = probe.read_like(out, v)
    if (got := probe.framework.dtype_of(out)) != dtype:
        return Outcome(1.0, 0.0, message=f"{dtype} queries, keys and values gave {got}")
    wrong = int((~np.isfinite(host)).sum())
    message = f"{wrong} of {host.size} components are not finite"
    return Outcome(float(wrong), 0.0, message=message)


@clause("LATT-2", "linear in the values", needs=("LATT-1",))
def linearity(context: LinearAttentionContext, dtype: str) -> Outcome:
    """f(2v - 3w) = 2 f(v) - 3 f(w) and f(1024 v) = 1024 f(v): weights do not know the values."""
    q, k, _ = context.inputs(dtype, *SHAPE)
    # Small integers: the mixture is exact in every dtype.
    v, w = np.random.default_rng(0).integers(-8, 9, (2, *SHAPE, context.target.values)) * 1.0
    probe, ids = context.fresh(dtype), np.arange(SHAPE[2])
    of_v, of_w, mixed, scaled = (
        probe.attend(q, k, values, ids) for values in (v, w, 2 * v - 3 * w, 1024 * v)
    )
    size = np.abs(v)
    rooms = [
        context.loose_room(q, k, x, ids, dtype, out)
        for x, out in ((2 * size + 3 * np.abs(w), mixed), (size, of_v))
    ]
    return worst(
        np.stack([mixed - (2 * of_v - 3 * of_w), scaled / 1024 - of_v]),
        np.stack(rooms),
        "abs",
        lambda i: {"call": ("f(2v - 3w)", "f(1024 v)")[i[0]], "query": i[3], "lane": i[4]},
        "not linear in the values, so there are no weights (a norm, a clip or a quantisation "
        "inside?)",
    )


@clause("LATT-3", "batch rows and heads are independent", needs=("LATT-1",))
def independence(context: LinearAttentionContext, dtype: str) -> Outcome:
    """Each head of each batch row gives what it gives alone."""
    q, k, v = context.inputs(dtype, *SHAPE)
    probe, ids = context.fresh(dtype), np.arange(SHAPE[2])
    together = probe.attend(q, k, v, ids)
    alone = np.zeros_like(together)
    for b in range(3):
        for h in range(2):
            part = (slice(b, b + 1), slice(h, h + 1))
            alone[part] = probe.attend(q[part], k[part], v[part], ids)
    return worst(
        together - alone,
        context.loose_room(q, k, v, ids, dtype, alone),
        "abs",
        lambda i: {"call": f"batch row {i[0]} of 3, head {i[1]} of 2", "query": i[2]},
        "a head is not treated as it is alone: are sums taken over heads or batch rows, or is the "
        "sequence on another axis? (the suite passes (batch, heads, seq, dim))",
    )
