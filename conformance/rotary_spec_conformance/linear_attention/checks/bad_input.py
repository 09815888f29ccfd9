"""LATT-18 and 19: input that fits no reading is refused. SHOULD clauses."""

from __future__ import annotations

import numpy as np

from rotary_spec_conformance.linear_attention.checks.registration import clause
from rotary_spec_conformance.linear_attention.context import LinearAttentionContext
from rotary_spec_conformance.probe import Floats, Ints, TargetMisbehaved
from rotary_spec_conformance.registry import NotRun, Outcome

NEEDS = ("LATT-1",)
"""What refuses good input too says nothing by refusing bad input."""


@clause("LATT-18", "more values than keys are refused", level="SHOULD", needs=NEEDS)
def unmatched_values(context: LinearAttentionContext, dtype: str) -> Outcome:
    """Four keys do not go with five values."""
    q, k, v = context.inputs(dtype, 1, 2, 5)
    return _refused(context, dtype, q, k[:, :, :4], v, np.arange(5), "4 keys with 5 values")


@clause("LATT-19", "positions of another length are refused", level="SHOULD", needs=NEEDS)
def unmatched_positions(context: LinearAttentionContext, dtype: str) -> Outcome:
    """Three ids for four tokens fit no reading."""
    if context.target.positions != "explicit":
        raise NotRun("takes no position ids")
    q, k, v = context.inputs(dtype, 1, 2, 4)
    return _refused(context, dtype, q, k, v, np.arange(3), "3 position ids for 4 tokens")


def _refused(
    context: LinearAttentionContext,
    dtype: str,
    q: Floats,
    k: Floats,
    v: Floats,
    ids: Ints,
    what: str,
) -> Outcome:
    probe = context.fresh(dtype)
    native = [probe.native(x) for x in (q, k, v)]
    try:
        out = probe.called(native, probe.places(ids))
    except TargetMisbehaved as refusal:
        return Outcome(0.0, 0.0, message=str(refusal))
    shape = tuple(getattr(out, "shape", ()))
    return Outcome(1.0, 0.0, message=f"{what} gave shape {shape}")
