"""PREC: angles stay right as positions grow, whatever the dtype of the features."""

from __future__ import annotations

import numpy as np

import rotary_spec as rs
from rotary_spec_conformance import tolerances
from rotary_spec_conformance.context import LIMIT, Context, Ladder, trust, worst
from rotary_spec_conformance.probe import Floats, Ints
from rotary_spec_conformance.registry import NotRun, Outcome, clause
from rotary_spec_conformance.results import Grade
from rotary_spec_conformance.tolerances import NARROW

NEEDS = ("ROT-2", "ROT-3", "ROT-4", "PART-1", "POS-1", "FREQ-1", "STATE-1")


@clause("PREC-1", "angles are at least float32", needs=NEEDS, dtypes="wide")
def wide(context: Context, dtype: str) -> Outcome:
    """Within the bound of float32 angles at every probed position below the limit."""
    return _within_float32(context, dtype)


@clause("PREC-2", "angles do not depend on the input's dtype", needs=NEEDS, dtypes="narrow")
def narrow(context: Context, dtype: str) -> Outcome:
    """A 16-bit input rounds the result, never the position or the angle."""
    return _within_float32(context, dtype)


def _within_float32(context: Context, dtype: str) -> Outcome:
    if context.target.given_tables:
        raise NotRun("the caller supplies cos and sin")
    ladder = context.ladder(dtype)
    inside = ladder.responses.positions < context.max_position
    positions = ladder.responses.positions[inside]
    outcome = worst(
        _component_errors(context, ladder)[inside],
        (_component_bound(context, dtype) + _angle_bound(context, positions))[..., None, None],
        "abs",
        lambda i: {"position": int(positions[i[0]]), "pair": i[1]},
    )
    return Outcome(
        outcome.deviation,
        outcome.tolerance,
        "abs",
        outcome.where,
        _explain(ladder, int(outcome.where["position"])),
    )


@clause("PREC-3", "16-bit input is rounded once", level="SHOULD", needs=("ROT-1",), dtypes="narrow")
def rounded_once(context: Context, dtype: str) -> Outcome:
    """The arithmetic is float32: the result is off by half an ulp of its dtype, and no more."""
    ids = np.arange(min(16, context.max_position))
    x = context.rounded(context.random(2, 3, len(ids), context.target.head_dim), dtype)
    y, expected = context.fresh(dtype)(x, ids), context.expected(x, ids)
    bound = context.bound(x, ids, "float32")
    u = tolerances.UNIT_ROUNDOFF[dtype]
    smallest = tolerances.SPACING_OF_SUBNORMALS[dtype]
    return worst(
        y - expected,
        np.where(bound > 0, bound + u * (np.abs(expected) + bound) + smallest / 2, 0.0),
        "abs",
        lambda i: {"position": i[2], "lane": i[3]},
        f"cos, sin or the products are rounded to {dtype} before the sum",
    )


@np.errstate(all="ignore")
def grade(context: Context, dtype: str) -> Grade:
    """How precise the angles of one dtype are, and how far they can be trusted.

    A 16-bit output shows an angle only to its own precision. It is graded exact where it went far
    enough for float32 angles to have shown, and trusted no further than it can be read, which is
    as far as the float32 output of the same target.
    """
    ladder = context.ladder(dtype)
    positions = ladder.responses.positions
    probed_to = int(positions.max())
    errors = _component_errors(context, ladder)
    exact = _component_bound(context, dtype)
    float32 = exact + _angle_bound(context, positions)

    def within(bound: float | Floats) -> bool:
        room = np.broadcast_to(bound, errors.shape[:2])[..., None, None]
        return bool(np.all(np.abs(errors) <= room))

    visible = probed_to * tolerances.UNIT_ROUNDOFF["float32"] > 2 * exact
    doubtful = (np.abs(ladder.errors) > trust(context, dtype)).any(axis=1)
    first_bad = int(positions[doubtful].min(initial=LIMIT))
    trusted_to = int(positions[positions < first_bad].max(initial=0))
    if dtype in NARROW and "float32" in context.dtypes:
        trusted_to = min(trusted_to, grade(context, "float32").trusted_to)
    return Grade(
        dtype,
        "exact" if visible and within(exact) else "float32" if within(float32) else "low",
        trusted_to,
        probed_to,
    )


def _component_errors(context: Context, ladder: Ladder) -> Floats:
    """Differences of the 2 x 2 blocks from A R, shape (positions, pairs, 2, 2)."""
    cos, sin = context.cos_sin(context.everywhere(ladder.responses.positions))
    expected = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    return np.asarray(ladder.responses.matrix - expected)


def _component_bound(context: Context, dtype: str) -> float:
    return tolerances.component(dtype, rs.attention_factor(context.spec))


def _angle_bound(context: Context, positions: Ints) -> Floats:
    return np.asarray(rs.attention_factor(context.spec) * context.float32_angle(positions))


def _explain(ladder: Ladder, position: int) -> str:
    """Why an angle is off, from which positions give the same rotation."""
    matrix, positions = ladder.responses.matrix, ladder.responses.positions
    by_position = {int(p): matrix[i] for i, p in enumerate(positions)}
    same = [p for p in by_position if p + 1 in by_position and p > 0
            and np.array_equal(by_position[p], by_position[p + 1])]  # fmt: skip
    if same:
        last = min(same)
        dtype = {256: "bfloat16", 2048: "float16"}.get(last)
        return f"positions {last:,} and {last + 1:,} give the same rotation: " + (
            f"positions are rounded to {dtype}, which holds integers only up to {last:,}"
            if dtype
            else "are positions or angles rounded, or does a table end there?"
        )
    return (
        f"the angle at position {position:,} is off by more than float32 arithmetic explains: "
        "a table in a 16-bit dtype, a fast sine, or other frequencies?"
    )
