"""LIN and EQV: linear in x; batch rows and heads do not see each other; rows follow their ids."""

from __future__ import annotations

import numpy as np

from rotary_spec_conformance import tolerances
from rotary_spec_conformance.context import Context, worst
from rotary_spec_conformance.registry import NotRun, Outcome, clause

SEQ = 6
ORDERS = ([0, 3, 1, 4, 2, 5], [4, 5, 0, 1, 2, 3])
"""One that looks like 0 .. 5 from its ends and its length, and one that starts anew, as packed
sequences do."""
LONG = 301  # rows: more than two blocks of 128, and a whole number of no block


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
    """Rows in another order, with their positions, give that order; the last of many count too."""
    if context.target.positions == "arange":
        raise NotRun("positions are implicit")
    count = min(LONG, context.max_position)
    x = context.random(1, 2, count, context.target.head_dim)
    probe = context.fresh(dtype)
    plain = probe(x[:, :, :SEQ], np.arange(SEQ))
    whole, end = probe(x, np.arange(count)), np.arange(count - SEQ, count)
    differences = [probe(x[:, :, end], end) - whole[:, :, end]]
    for order in ORDERS:
        differences.append(probe(x[:, :, order], order) - plain[:, :, order])
    positions = np.concatenate([end, *ORDERS])
    return worst(
        np.concatenate(differences, axis=2),
        2 * context.bound(x[:, :, positions], positions, dtype),
        "abs",
        lambda i: {"position": int(positions[i[2]]), "lane": i[3]},
        "a row's result depends on its place in the call, not on its position alone",
    )


@clause("EQV-4", "single rows are what they are in a batch")
def single_row(context: Context, dtype: str) -> Outcome:
    """The decoding step: seq = 1 with several batch rows gives what prefill gives."""
    rows = context.random(3, 2, 2, context.target.head_dim)
    x = rows[:, :, :1]
    at = 0 if context.target.positions == "arange" else 5
    ids = np.asarray([at])
    probe = context.fresh(dtype)
    together = probe(x, ids)
    alone = np.concatenate([probe(row[None], ids) for row in x])
    inside = probe(rows, np.asarray([at, at + 1]))[:, :, :1]
    others = ("alone", "as one of two rows")
    return worst(
        np.stack([together - alone, together - inside]),
        2 * context.bound(x, ids, dtype),
        "abs",
        lambda i: {"call": f"batch row {i[1]} of 3, seq 1, against {others[i[0]]}",
                   "position": at, "lane": i[4]},
        "with one row per batch entry, as in decoding, entries are mixed up, left out or put at "
        "another position",
    )  # fmt: skip


@clause("EQV-5", "queries and keys are independent")
def queries_and_keys(context: Context, dtype: str) -> Outcome:
    """Rotated together, each gives what it gives alone; keys have fewer heads."""
    if context.target.pair is None:
        raise NotRun("takes one tensor at a time")
    probe, ids = context.fresh(dtype), np.arange(SEQ)
    differences, bounds, calls = [], [], []
    for heads_of_k in (4, 2):
        d = context.target.head_dim
        q, k = context.random(2, 4, SEQ, d), context.random(2, heads_of_k, SEQ, d, seed=1)
        for name, x, y in zip("qk", (q, k), probe.pair(q, k), strict=True):
            differences.append(y - probe(x, ids))
            bounds.append(2 * context.bound(x, ids, dtype))
            calls += [f"{name}, {heads_of_k} heads of k for 4 of q"] * x.shape[1]
    return worst(
        np.concatenate(differences, axis=1),
        np.concatenate(bounds, axis=1),
        "abs",
        lambda i: {"call": calls[i[1]], "position": i[2], "lane": i[3]},
        "queries and keys rotated together differ from each alone",
    )


@clause("LIN-1", "linear in x")
def linearity(context: Context, dtype: str) -> Outcome:
    """f(2x - 3y) = 2 f(x) - 3 f(y), and f(1024 x) = 1024 f(x): a rotary embedding is a matrix."""
    ids = np.arange(SEQ)
    rng = np.random.default_rng(0)
    # Small integers: the mixture is exact in every dtype.
    x, y = rng.integers(-8, 9, (2, 1, 2, SEQ, context.target.head_dim)).astype(np.float64)
    probe = context.fresh(dtype)
    fx, fy = probe(x, ids), probe(y, ids)
    mixed = probe(2 * x - 3 * y, ids) - (2 * fx - 3 * fy)
    scaled = probe(1024 * x, ids) / 1024 - fx
    # Which lanes a pair holds is not known here: none is longer than all lanes of the row together.
    size = (2 * np.abs(fx) + 3 * np.abs(fy)).sum(-1, keepdims=True)
    return worst(
        np.stack([mixed, scaled]),
        2 * np.sqrt(2) * tolerances.component(dtype) * size,
        "abs",
        lambda i: {"call": ("f(2x - 3y)", "f(1024 x)")[i[0]], "position": i[3], "lane": i[4]},
        "not linear in x, so not a rotation (a norm, a clip or a quantisation inside?)",
    )
