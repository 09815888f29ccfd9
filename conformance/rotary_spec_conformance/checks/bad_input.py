"""BAD: input that has no rotation is refused. What an implementation does with it is its own
affair, so these are SHOULD clauses.
"""

from __future__ import annotations

from rotary_spec_conformance.context import Context
from rotary_spec_conformance.probe import TargetMisbehaved
from rotary_spec_conformance.registry import NotRun, Outcome, clause

NEEDS = ("PURE-3",)
"""What refuses good input too says nothing by refusing bad input."""


@clause("BAD-1", "an odd last axis is refused", level="SHOULD", needs=NEEDS)
def odd_features(context: Context, dtype: str) -> Outcome:
    """One lane of the rotated ones is missing: some pair has one member only."""
    lanes = context.spec.rotary_start + context.spec.rotary_dim - 1
    probe = context.fresh(dtype)
    x = probe.framework.asarray(context.random(1, 2, 4, lanes), dtype)
    try:
        y = probe.call(x, probe.native_positions(4))
    except TargetMisbehaved as refusal:
        return Outcome(0.0, 0.0, message=str(refusal))
    shape = tuple(getattr(y, "shape", ()))
    return Outcome(1.0, 0.0, message=f"{lanes} lanes, one without a partner, gave shape {shape}")


@clause("BAD-2", "positions of another length are refused", level="SHOULD", needs=NEEDS)
def unmatched_positions(context: Context, dtype: str) -> Outcome:
    """Three ids for four rows fit no reading."""
    if context.target.positions != "explicit":
        raise NotRun("takes no position ids")
    probe = context.fresh(dtype)
    x = probe.framework.asarray(context.random(1, 2, 4, context.target.head_dim), dtype)
    try:
        y = probe.call(x, probe.native_positions(3))
    except TargetMisbehaved as refusal:
        return Outcome(0.0, 0.0, message=str(refusal))
    shape = tuple(getattr(y, "shape", ()))
    return Outcome(1.0, 0.0, message=f"3 position ids for 4 rows gave shape {shape}")
