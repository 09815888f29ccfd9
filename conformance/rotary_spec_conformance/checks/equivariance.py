"""LIN and EQV: linear in x; batch rows and heads do not see each other; rows follow their ids."""

from __future__ import annotations

import numpy as np

from rotary_spec_conformance.context import Context, worst
from rotary_spec_conformance.registry import NotRun, Outcome, clause

SEQ = 6


@clause("EQV-1", "batch rows are independent")
def batch(context: Context, dtype: str) -> Outcome:
    """Each row of a batch gives what it gives alone."""
    x = context.random(3, 2, SEQ, context.target.head_dim)
    probe, ids = context.fresh(dtype), np.arange(SEQ)
    together = probe(x, ids)
    alone = np.concatenate([probe(row[None], ids) for row in x])
    return worst(
        together - alone,
        2 * context.bound(x, ids, dtype),
        "abs",
        lambda i: {"call": f"batch row {i[0]} of 3", "position": i[2], "lane": i[3]},
        "a row of a batch is not treated as it is alone",
    )


@clause("EQV-2", "heads are independent")
def heads(context: Context, dtype: str) -> Outcome:
    """Each head gives what it gives alone; with more heads than rows, axes cannot be confused."""
    x = context.random(1, SEQ + 3, SEQ, context.target.head_dim)
    probe, ids = context.fresh(dtype), np.arange(SEQ)
    together = probe(x, ids)
    alone = np.concatenate([probe(x[:, h : h + 1], ids) for h in range(x.shape[1])], axis=1)
    return worst(
        together - alone,
        2 * context.bound(x, ids, dtype),
        "abs",
        lambda i: {"call": f"head {i[1]} of {x.shape[1]}", "position": i[2], "lane": i[3]},
        "a head is not treated as it is alone: is the rotation over the heads axis, or applied to "
        "some heads only? (the suite passes (batch, heads, seq, head_dim))",
    )


@clause("EQV-3", "rows follow their positions", needs=("STATE-1",))
def sequence(context: Context, dtype: str) -> Outcome:
    """Rows in another order, with their position ids, give the same rows in that order."""
    if context.target.positions == "arange":
        raise NotRun("positions are implicit")
    x = context.random(1, 2, SEQ, context.target.head_dim)
    order = np.random.default_rng(1).permutation(SEQ)
    probe = context.fresh(dtype)
    plain = probe(x, np.arange(SEQ))
    shuffled = probe(x[:, :, order], order)
    return worst(
        shuffled - plain[:, :, order],
        2 * context.bound(x[:, :, order], order, dtype),
        "abs",
        lambda i: {"position": int(order[i[2]]), "lane": i[3]},
        "a row's result depends on its place in the call, not on its position alone",
    )


@clause("EQV-4", "one row, batch above one")
def single_row(context: Context, dtype: str) -> Outcome:
    """The decoding step: seq = 1 with several batch rows."""
    x = context.random(3, 2, 1, context.target.head_dim)
    at = 0 if context.target.positions == "arange" else min(5, context.max_position - 1)
    ids = np.asarray([at])
    probe = context.fresh(dtype)
    together = probe(x, ids)
    alone = np.concatenate([probe(row[None], ids) for row in x])
    return worst(
        together - alone,
        2 * context.bound(x, ids, dtype),
        "abs",
        lambda i: {"call": f"batch row {i[0]} of 3, seq 1", "position": at, "lane": i[3]},
        "with one row per batch entry, entries are mixed up or left out",
    )


@clause("EQV-5", "queries and keys are independent")
def queries_and_keys(context: Context, dtype: str) -> Outcome:
    """Rotated together, each gives what it gives alone; keys have fewer heads."""
    if context.target.pair is None:
        raise NotRun("takes one tensor at a time")
    probe, ids = context.fresh(dtype), np.arange(SEQ)
    d = context.target.head_dim
    q, k = context.random(2, 4, SEQ, d), context.random(2, 2, SEQ, d, seed=1)
    rotate = context.target.pair()
    fw = probe.framework
    both = rotate(fw.asarray(q, dtype), fw.asarray(k, dtype), probe.native_positions(SEQ))
    outputs = [probe.read(y, x.shape) for y, x in zip(both, (q, k), strict=True)]
    difference = np.concatenate([y - probe(x, ids) for y, x in zip(outputs, (q, k))], axis=1)
    bound = np.concatenate([2 * context.bound(x, ids, dtype) for x in (q, k)], axis=1)
    return worst(
        difference,
        bound,
        "abs",
        lambda i: {"call": "q" if i[1] < 4 else "k", "position": i[2], "lane": i[3]},
        "queries and keys rotated together differ from each alone",
    )


@clause("LIN-1", "linear in x")
def linearity(context: Context, dtype: str) -> Outcome:
    """f(2x - 3y) = 2 f(x) - 3 f(y): a rotary embedding is a matrix."""
    ids = np.arange(SEQ)
    rng = np.random.default_rng(0)
    # Small integers: the mixture is exact in every dtype.
    x, y = rng.integers(-8, 9, (2, 1, 2, SEQ, context.target.head_dim)).astype(np.float64)
    probe = context.fresh(dtype)
    return worst(
        probe(2 * x - 3 * y, ids) - (2 * probe(x, ids) - 3 * probe(y, ids)),
        2 * context.bound(2 * np.abs(x) + 3 * np.abs(y), ids, dtype),
        "abs",
        lambda i: {"position": i[2], "lane": i[3]},
        "not linear in x, so not a rotation (a norm, a clip or a quantisation inside?)",
    )
