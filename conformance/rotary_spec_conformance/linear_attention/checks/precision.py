"""LATT-13 to 16: far positions, and 16-bit input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rotary_spec_conformance import tolerances
from rotary_spec_conformance.context import worst
from rotary_spec_conformance.linear_attention.checks.form import SHAPE
from rotary_spec_conformance.linear_attention.checks.registration import clause
from rotary_spec_conformance.linear_attention.context import (
    COUNT,
    LinearAttentionContext,
)
from rotary_spec_conformance.registry import NotRun, Outcome

FAR = (100_000, 2**20)
MANY = 4096
"""Tokens: float16 cannot count them, 1 by 1, past 2048, bfloat16 not past 256."""


@clause("LATT-13", "far positions are as near ones", needs=("LATT-6",))
def far(context: LinearAttentionContext, dtype: str) -> Outcome:
    """All positions moved by 100 000 and by 2^20, within what float32 angles explain."""
    return _moved(context, angles=True)


@clause("LATT-14", "far positions are exact", level="SHOULD", needs=("LATT-13",))
def far_exactly(context: LinearAttentionContext, dtype: str) -> Outcome:
    """Within a bound that does not grow with the position."""
    return _moved(context, angles=False)


def _moved(context: LinearAttentionContext, *, angles: bool) -> Outcome:
    plain = context.plain
    shifts = [s for s in FAR if s + COUNT <= context.max_position]
    if not shifts:
        raise NotRun(f"only {context.max_position} positions are served")
    differences, rooms = [], []
    for shift in shifts:
        moved = context.measure(plain.positions + shift)
        terms = context.definition.terms(
            moved.q, moved.k, moved.positions, u=plain.terms.u, angles=angles
        )
        differences.append(moved.weights - plain.weights)
        rooms.append(terms.weight_room(plain.denominators) + plain.room)
    return worst(
        np.stack(differences),
        np.stack(rooms),
        "abs",
        lambda i: {"call": f"moved by {shifts[i[0]]:,}", "query": i[1], "key": i[2]},
        "far out the weights change, by more than float32 angles explain: are positions or tables "
        "in a 16-bit dtype?"
        if angles
        else "angles are computed in float32: their error grows with the position",
    )


@clause("LATT-15", "16-bit input is summed in float32", needs=("LATT-10",), dtypes="narrow")
def sums(context: LinearAttentionContext, dtype: str) -> Outcome:
    """The last of many equal keys at one position: a narrow sum would no longer grow."""
    count = MANY if dtype == "float16" else MANY // 4
    if count > context.max_position:
        raise NotRun(f"only {context.max_position} positions are served")
    q, _, v = context.inputs(dtype, 1, 1, count)
    # Equal values make a narrow state stall as the denominator does; unequal ones tell them apart.
    v = context.rounded(1 + 0.25 * v * (np.arange(v.shape[-1]) % 2), dtype)
    k = np.zeros_like(q)
    # Turned against each other, numerators would not grow either.
    ids = np.arange(count) * (not context.repeats)
    terms = context.definition.terms(
        q, k, ids, u=tolerances.unit_roundoff(dtype), rows=slice(-1, None)
    )
    expected = terms.weights @ v
    out = context.fresh(dtype).attend(q, k, v, ids)[:, :, -1:]
    outcome = worst(
        out - expected,
        terms.room(v),
        "abs",
        lambda i: {"call": f"{count:,} tokens", "lane": i[3]},
    )
    lane = int(outcome.where["lane"])
    ratio = float(out[0, 0, 0, lane] / expected[0, 0, 0, lane])
    return replace(
        outcome,
        message=f"after many tokens the result is {ratio:.3g} times what it should be: sums are "
        f"kept in {dtype}",
    )


@clause(
    "LATT-16",
    "16-bit input is rounded once",
    level="SHOULD",
    needs=("LATT-10", "LATT-15"),
    dtypes="narrow",
)
def rounded_once(context: LinearAttentionContext, dtype: str) -> Outcome:
    """Features, rotation and sums in float32: off by half an ulp of the result's dtype."""
    q, k, v = context.inputs(dtype, *SHAPE)
    ids = np.arange(SHAPE[2])
    expected = context.definition(q, k, v, ids)
    room = context.definition.terms(q, k, ids).room(v)
    smallest = tolerances.SPACING_OF_SUBNORMALS[dtype]
    return worst(
        context.fresh(dtype).attend(q, k, v, ids) - expected,
        room + tolerances.UNIT_ROUNDOFF[dtype] * (np.abs(expected) + room) + smallest / 2,
        "abs",
        lambda i: {"query": i[2], "lane": i[3]},
        f"features, weights or states are rounded to {dtype} on the way",
    )
