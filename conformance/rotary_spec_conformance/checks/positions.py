"""POS: ids per row, the end of the declared range, negative ids."""

from __future__ import annotations

import numpy as np

from rotary_spec_conformance.context import Context, worst
from rotary_spec_conformance.probe import Ints, TargetMisbehaved
from rotary_spec_conformance.registry import NotRun, Outcome, clause

NEEDS = ("ROT-1",)


@clause("POS-2", "ids per batch row are honoured", needs=NEEDS)
def row_positions(context: Context, dtype: str) -> Outcome:
    """Each batch row stands where its own ids say, as left padding and packing need."""
    if not context.target.row_positions:
        raise NotRun("does not take one row of ids per batch row")
    starts = np.asarray([[0], [7], [40]])
    outcomes = []
    for count in (6, 1):  # prefill, and the decoding step
        x = context.rounded(context.random(3, 2, count, context.target.head_dim), dtype)
        outcomes.append(
            _against_spec(
                context,
                x,
                starts + np.arange(count),
                dtype,
                "the ids of one batch row are used for another, or are ignored"
                + (" where seq is 1" if count == 1 else ""),
            )
        )
    return next((outcome for outcome in outcomes if not outcome.holds), outcomes[0])


@clause("POS-3", "beyond its range it refuses or is right", needs=NEEDS)
def end_of_range(context: Context, dtype: str) -> Outcome:
    """The first positions that the target does not promise: an error, or the right rotation."""
    end = context.target.max_position
    if end is None:
        raise NotRun("declares no last position")
    ids = np.asarray([end, end + 1])
    x = context.rounded(context.random(1, 2, 2, context.target.head_dim), dtype)
    try:
        return _against_spec(
            context, x, ids, dtype, f"positions from {end} on are rotated wrongly, without an error"
        )
    except TargetMisbehaved as refusal:
        return Outcome(0.0, 0.0, message=str(refusal))


@clause("POS-4", "negative ids refuse or turn back", level="SHOULD", needs=NEEDS)
def negative(context: Context, dtype: str) -> Outcome:
    """M < 0 is an error, or the rotation by m theta; not a row from the end of a table."""
    if context.target.positions == "arange":
        raise NotRun("positions are implicit")
    ids = np.arange(-6, 0)
    x = context.rounded(context.random(1, 2, 6, context.target.head_dim), dtype)
    try:
        return _against_spec(
            context, x, ids, dtype, "negative positions give a rotation that is not theirs"
        )
    except TargetMisbehaved as refusal:
        return Outcome(0.0, 0.0, message=str(refusal))


def _against_spec(context: Context, x: np.ndarray, ids: Ints, dtype: str, message: str) -> Outcome:
    if context.target.given_tables:
        raise NotRun("the caller supplies cos and sin")
    y, expected = context.fresh(dtype)(x, ids), context.expected(x, ids)
    rows = np.broadcast_to(ids, (len(x), ids.shape[-1]))
    return worst(
        y - expected,
        context.bound(x, ids, dtype),
        "abs",
        lambda i: {"position": int(rows[i[0], i[2]]), "lane": i[3]},
        message,
    )
