"""LATT-10 to 12: the result itself, whatever the length, whole or token by token."""

from __future__ import annotations

from functools import partial

import numpy as np

from rotary_spec_conformance import tolerances
from rotary_spec_conformance.context import worst
from rotary_spec_conformance.linear_attention.checks.form import SHAPE
from rotary_spec_conformance.linear_attention.checks.registration import clause
from rotary_spec_conformance.linear_attention.context import LinearAttentionContext
from rotary_spec_conformance.linear_attention.probe import LinearAttentionProbe
from rotary_spec_conformance.probe import Floats, Ints, TargetMisbehaved, guarded
from rotary_spec_conformance.registry import NotRun, Outcome

LENGTHS = (1, 63, 64, 65, 130)
"""Either side of a chunk of 64, and more than two."""
STEPS = 3


@clause(
    "LATT-10",
    "the result is Eq. 19",
    needs=("LATT-2", "LATT-3", "LATT-8", "LATT-9"),
    dtypes="each",
)
def definition(context: LinearAttentionContext, dtype: str) -> Outcome:
    """The definition in float64, on Gaussian queries, keys and values."""
    q, k, v = context.inputs(dtype, *SHAPE)
    ids = np.arange(SHAPE[2])
    terms = context.definition.terms(q, k, ids, u=tolerances.unit_roundoff(dtype))
    return worst(
        context.fresh(dtype).attend(q, k, v, ids) - context.definition(q, k, v, ids),
        terms.room(v),
        "abs",
        lambda i: {"query": i[2], "lane": i[3]},
        "every term is right, their combination is not"
        if dtype == context.dtypes[0]
        else f"right in {context.dtypes[0]}, wrong in {dtype}: is there other code for it?",
    )


@clause("LATT-11", "any length will do", needs=("LATT-10",))
def lengths(context: LinearAttentionContext, dtype: str) -> Outcome:
    """The definition again, for one token and either side of the usual chunks."""
    served = _lengths(context)
    probe, u = context.fresh(dtype), tolerances.unit_roundoff(dtype)
    differences, rooms, calls = [], [], []
    for length in served:
        q, k, v = context.inputs(dtype, 1, 2, length)
        ids = np.arange(length)
        differences.append(probe.attend(q, k, v, ids) - context.definition(q, k, v, ids))
        rooms.append(context.definition.terms(q, k, ids, u=u).room(v))
        calls += [(length, row) for row in range(length)]
    return worst(
        np.concatenate(differences, axis=2),
        np.concatenate(rooms, axis=2),
        "abs",
        lambda i: {"call": f"{calls[i[2]][0]} tokens", "query": calls[i[2]][1]},
        "right for short sequences, wrong for longer ones: what does one chunk hand to the next, "
        "and is the padding of the last left out?",
    )


@clause("LATT-12", "prefill, then steps, is the whole", needs=("LATT-10",))
def recurrence(context: LinearAttentionContext, dtype: str) -> Outcome:
    """A prefix in one step and the next tokens one by one, for prefixes of chunk lengths."""
    if context.target.step is None:
        raise NotRun("no recurrent form is declared")
    if not context.definition.causal:
        raise NotRun("what is not causal has no recurrent form")
    prefixes = _lengths(context, STEPS)
    u = tolerances.unit_roundoff(dtype)
    differences, rooms, calls, anew = [], [], [], True
    for prefix in prefixes:
        ids = np.arange(prefix + STEPS)
        q, k, v = context.inputs(dtype, 1, 2, len(ids))
        out = _in_steps(context.fresh(dtype), q, k, v, ids, prefix)
        room = context.definition.terms(q, k, ids, u=u).room(v)
        differences.append(out - context.definition(q, k, v, ids))
        rooms.append(room)
        calls += [(prefix, row) for row in ids]
        restarted = np.where(ids < prefix, ids, 0)
        anew &= _explains(context, q, k, v, restarted, out, room)
    hint = (
        "every step stands at position 0: is the position not kept?"
        if anew
        else "does the state keep its sum of keys rotated in the numerator and unrotated in the "
        "denominator, and what chunks handed over?"
    )
    return worst(
        np.concatenate(differences, axis=2),
        np.concatenate(rooms, axis=2),
        "abs",
        lambda i: {"call": f"token {calls[i[2]][1]} after a prefix of {calls[i[2]][0]}"},
        f"token by token the result is another: {hint}",
    )


def _lengths(context: LinearAttentionContext, more: int = 0) -> list[int]:
    """Those of `LENGTHS` that are served, with as many ``more``; where it must be quick, some."""
    chosen = LENGTHS[::3] if context.quick else LENGTHS
    return [n for n in chosen if n + more <= context.max_position]


def _in_steps(
    probe: LinearAttentionProbe, q: Floats, k: Floats, v: Floats, ids: Ints, prefix: int
) -> Floats:
    assert probe.target.step is not None
    step = guarded(probe.target.step, "while its step was built")
    state, parts = None, []
    for start, stop in [(0, prefix), *((n, n + 1) for n in range(prefix, len(ids)))]:
        tokens = slice(start, stop)
        native = [probe.native(x[:, :, tokens]) for x in (q, k, v)]
        places = probe.places(ids[tokens]) if probe.target.positions != "arange" else None
        made = guarded(
            partial(step, state, *native, places),
            f"in step(state, q, k, v, positions) for tokens {start} to {stop - 1}",
        )
        if not isinstance(made, tuple) or len(made) != 2:
            raise TargetMisbehaved(f"gave {type(made).__name__} from step, not (state, out)")
        state, out = made
        parts.append(probe.read_like(out, v[:, :, tokens]))
    return np.concatenate(parts, axis=2)


def _explains(
    context: LinearAttentionContext,
    q: Floats,
    k: Floats,
    v: Floats,
    positions: Ints,
    out: Floats,
    room: Floats,
) -> bool:
    """Whether the definition at other positions gives ``out``."""
    return bool(np.all(np.abs(context.definition(q, k, v, positions) - out) <= 2 * room))
