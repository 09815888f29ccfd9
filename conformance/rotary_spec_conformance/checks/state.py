"""STATE: a result depends on the arguments of its call, not on the calls before it."""

from __future__ import annotations

import numpy as np

from rotary_spec_conformance.context import Context, worst
from rotary_spec_conformance.probe import Floats, Ints
from rotary_spec_conformance.registry import NotRun, Outcome, clause
from rotary_spec_conformance.tolerances import NARROW

SHORT = np.arange(8)
LONG = 512


def _elsewhere(context: Context, start: int, spare: int) -> Ints:
    """As many positions as `SHORT` from ``start`` on, with ``spare`` served ones after them."""
    if context.target.positions == "arange":
        raise NotRun("positions always start at 0")
    start = min(start, context.max_position - len(SHORT) - spare)
    if start <= 0:
        raise NotRun(f"only {context.max_position} positions are served")
    return np.arange(start, start + len(SHORT))


@clause("STATE-1", "call order does not matter")
def call_order(context: Context, dtype: str) -> Outcome:
    """Equal lengths at other positions: a cache keyed by the length alone gives the first back."""
    shifted = _elsewhere(context, 100, spare=1)
    rows = context.random(1, 2, len(SHORT) + 1, context.target.head_dim)
    x = rows[:, :, :-1]
    probe = context.fresh(dtype)
    ids = probe.native_positions(len(SHORT))
    result = probe.call(probe.native(x), ids)
    before = probe.read(result, x.shape)
    alone = context.fresh(dtype)(x, shifted)
    differences, calls = [], []
    if context.target.positions == "explicit":
        ids += int(shifted[0])  # in the same memory, as engines with static buffers do
        differences.append(probe.read(probe.call(probe.native(x), ids), x.shape) - alone)
        calls.append("other positions in the array of the call before, against a new instance")
    later = probe(x, shifted)
    kept = probe.read(result, x.shape)
    again = probe(x, SHORT)
    # Without a fresh instance, a call of another length tells what the later call should say.
    inside = probe(rows, np.append(shifted, shifted[-1] + 1))[:, :, :-1]
    differences += [again - before, later - alone, kept - before, later - inside]
    calls += [
        "repeated after another call",
        "after another call, against a new instance",
        "the result of the first call, read again after another",
        "after another call of that length, against the same rows of a longer call",
    ]
    allowed = np.zeros((len(calls), *x.shape))
    allowed[-1] = 2 * context.bound(x, shifted, dtype)
    return worst(
        np.stack(differences),
        allowed,
        "abs",
        lambda i: {"call": calls[i[0]], "position": int(shifted[i[3]])},
        "the result of a call depends on the calls before it: a cache does not know everything "
        "that its content depends on (its key lacks the offset or the positions)",
    )


@clause("STATE-2", "dtype order does not matter")
def dtype_order(context: Context, dtype: str) -> Outcome:
    """A call in another dtype, before or after, leaves the results of a call as they are."""
    others = [d for d in context.dtypes if d != dtype]
    if not others:
        raise NotRun(f"{dtype} is the only dtype under test")
    compare = _against_new_instances if context.target.fresh else _against_longer_calls
    differences, tolerance, calls = compare(context, dtype, others)
    changed = [
        call.partition(",")[0]
        for call, difference in zip(calls, differences, strict=True)
        if not np.all(np.abs(difference) <= tolerance)
    ]
    return worst(
        np.stack(differences),
        tolerance,
        "abs",
        lambda i: {"call": calls[i[0]], "position": i[3]},
        f"a call in another dtype changes later calls ({', '.join(changed)}): a cached table keeps "
        "the precision of the call that made it",
    )


def _against_new_instances(
    context: Context, dtype: str, others: list[str]
) -> tuple[list[Floats], float, list[str]]:
    """Both orders of each two dtypes, bit for bit what a new instance gives."""
    positions = np.arange(min(LONG, context.max_position))
    x = context.random(1, 1, len(positions), context.target.head_dim)
    alone = context.fresh(dtype)(x, positions)
    differences, calls = [], []
    for other in others:
        probe, reverse = context.fresh(dtype), context.fresh(dtype)
        first = probe(x, positions, dtype=other)
        differences.append(probe(x, positions) - alone)
        reverse(x, positions)
        differences.append(reverse(x, positions, dtype=other) - first)
        calls += [f"{dtype} after {other}", f"{other} after {dtype}"]
    return differences, 0.0, calls


def _against_longer_calls(
    context: Context, dtype: str, others: list[str]
) -> tuple[list[Floats], Floats, list[str]]:
    """With one instance: a longer call in ``dtype`` makes a new table, or needs none."""
    count = min(LONG, context.max_position - 1)
    positions = np.arange(count)
    rows = context.random(1, 1, count + 1, context.target.head_dim)
    x = rows[:, :, :count]
    differences, calls = [], []
    for other in others:
        probe = context.fresh(dtype)
        probe(x, positions, dtype=other)
        later = probe(x, positions)
        differences.append(later - probe(rows, np.arange(count + 1))[:, :, :count])
        calls.append(f"{dtype} after {other}, against the same rows of a longer call")
    return differences, 2 * context.bound(x, positions, dtype), calls


@clause("STATE-3", "instances are independent")
def instances(context: Context, dtype: str) -> Outcome:
    """What one instance was asked does not show in another."""
    if not context.target.fresh:
        raise NotRun("a plain function: there is one instance")
    shifted = _elsewhere(context, 600, spare=len(SHORT))
    rows = context.random(1, 2, len(SHORT) + 1, context.target.head_dim)
    x = rows[:, :, :-1]
    # A call of another length, so that it does not itself fill a cache that is shared.
    before = context.fresh(dtype)(rows, np.append(shifted, shifted[-1] + 1))[:, :, :-1]
    busy = context.fresh(dtype)
    for other in sorted(context.dtypes, key=lambda d: d not in NARROW):
        for positions in (SHORT, shifted, shifted + len(SHORT)):
            busy(x, positions, dtype=other)
    return worst(
        context.fresh(dtype)(x, shifted) - before,
        2 * context.bound(x, shifted, dtype),
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
