"""STATE: a result depends on the arguments of its call, not on the calls before it."""

from __future__ import annotations

import numpy as np

from rotary_spec_conformance.context import Context, worst
from rotary_spec_conformance.probe import Floats, Ints
from rotary_spec_conformance.registry import NotRun, Outcome, clause

SHORT = np.arange(8)


def _shifted(context: Context) -> Ints:
    """As many positions as `SHORT`, elsewhere."""
    if context.target.positions == "arange":
        raise NotRun("positions always start at 0")
    start = min(100, context.max_position - len(SHORT))
    if start <= 0:
        raise NotRun(f"only {context.max_position} positions are served")
    return np.arange(start, start + len(SHORT))


@clause("STATE-1", "call order does not matter")
def call_order(context: Context, dtype: str) -> Outcome:
    """Equal lengths at other positions: a cache keyed by the length alone gives the first back."""
    shifted = _shifted(context)
    x = context.random(1, 2, len(SHORT), context.target.head_dim)
    probe = context.fresh(dtype)
    before = probe(x, SHORT)
    later = probe(x, shifted)
    again = probe(x, SHORT)
    alone = context.fresh(dtype)(x, shifted)
    # Without a fresh instance, the rows of one longer call tell what the later call should say.
    start = int(shifted[0])
    whole = np.concatenate([context.random(1, 2, start, context.target.head_dim, seed=1), x], 2)
    inside = probe(whole, np.arange(start + len(SHORT)))[:, :, start:]
    bound = 2 * context.bound(x, shifted, dtype)
    differences = np.stack([again - before, later - alone, later - inside])
    tolerance = np.stack([np.zeros_like(bound), np.zeros_like(bound), bound])
    calls = (
        "repeated after another call",
        "after another call, against a new instance",
        "after another call of that length, against the same rows of a longer call",
    )
    return worst(
        differences,
        tolerance,
        "abs",
        lambda i: {"call": calls[i[0]], "position": int(shifted[i[3]])},
        "the result of a call depends on the calls before it: a cache does not know everything "
        "that its content depends on (its key lacks the offset or the positions)",
    )


@clause("STATE-2", "dtype order does not matter")
def dtype_order(context: Context, dtype: str) -> Outcome:
    """A call in another dtype, before and in between, leaves later ones as they were."""
    others = [d for d in context.dtypes if d in ("bfloat16", "float16", "float64") and d != dtype]
    if not others:
        raise NotRun(f"{dtype} is the only dtype under test")
    count = min(512, context.max_position)
    positions = np.arange(count)
    x = context.random(1, 1, count, context.target.head_dim)
    alone = context.fresh(dtype)(x, positions)
    differences, calls = [], []
    for other in others:
        probe = context.fresh(dtype)
        probe(x, positions, dtype=other)
        differences.append(probe(x, positions) - alone)
        calls.append(f"{dtype} after {other}")
    return worst(
        np.stack(differences),
        0.0,
        "abs",
        lambda i: {"call": calls[i[0]], "position": int(positions[i[3]])},
        "a call in another dtype changes later calls: a cached table keeps the precision of the "
        "call that made it",
    )


@clause("STATE-3", "instances are independent", quick=False)
def instances(context: Context, dtype: str) -> Outcome:
    """What one instance was asked does not show in another."""
    if not context.target.fresh:
        raise NotRun("a plain function: there is one instance")
    shifted = _shifted(context)
    x = context.random(1, 2, len(SHORT), context.target.head_dim)
    alone = context.fresh(dtype)(x, shifted)
    busy = context.fresh(dtype)
    for other in context.dtypes[::-1]:
        busy(x, SHORT, dtype=other)
    return worst(
        context.fresh(dtype)(x, shifted) - alone,
        0.0,
        "abs",
        lambda i: {"position": int(shifted[i[2]])},
        "a new instance remembers the calls of another: a cache is shared between instances",
    )


@clause("STATE-4", "length does not matter")
def growing_length(context: Context, dtype: str) -> Outcome:
    """The rows of a short call are the first rows of a longer one, in either order."""
    long = min(96, context.max_position)
    if long <= len(SHORT):
        raise NotRun(f"only {context.max_position} positions are served")
    x = context.random(1, 2, long, context.target.head_dim)
    head = x[:, :, : len(SHORT)]
    probe = context.fresh(dtype)
    short: Floats = probe(head, SHORT)
    grown = probe(x, np.arange(long))[:, :, : len(SHORT)]
    shrunk = probe(head, SHORT)
    bound = 2 * context.bound(head, SHORT, dtype)
    return worst(
        np.stack([grown - short, shrunk - short]),
        np.stack([bound, bound]),
        "abs",
        lambda i: {"call": ("longer", "short again")[i[0]], "position": int(SHORT[i[3]])},
        "the same row at the same position changes with the length of the call",
    )
