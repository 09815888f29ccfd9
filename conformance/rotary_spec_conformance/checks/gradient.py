"""GRAD: the gradient reaches the input, and is the transposed rotation."""

from __future__ import annotations

from typing import Any

import numpy as np

from rotary_spec_conformance.context import Context, worst
from rotary_spec_conformance.probe import TargetMisbehaved
from rotary_spec_conformance.registry import NotRun, Outcome, clause

COUNT = 6


@clause("GRAD-1", "the gradient is A Rᵀ g", needs=("ROT-1",))
def gradient(context: Context, dtype: str) -> Outcome:
    """Backward is the rotation by the opposite angle, in the exchanged layouts."""
    probe, ids = context.fresh(dtype), np.arange(COUNT)
    framework = probe.framework
    if not framework.differentiable:
        raise NotRun(f"{framework.name} has no automatic differentiation")
    if not context.target.differentiable:
        raise NotRun("declared not to be differentiable")
    shape = (2, 2, COUNT, context.target.head_dim)
    x = framework.asarray(context.random(*shape), dtype)
    g = context.rounded(context.random(*shape, seed=1), dtype)
    seed = framework.asarray(g, dtype)
    positions = probe.native_positions(COUNT)

    def function(v: Any) -> Any:
        # What works in place may not write into a leaf of the graph, in a model neither.
        return probe.instance(v * 1 if context.target.in_place else v, positions)

    try:
        got = framework.gradient(function, x, seed)
    except Exception as error:  # what severs a gradient differs by framework
        raise TargetMisbehaved(
            f"the gradient does not reach the input: {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    if got is None:
        raise TargetMisbehaved("the gradient does not reach the input: it is None")
    gradient_of_x = probe.read(got, shape)
    if not gradient_of_x.any():
        raise TargetMisbehaved("the gradient does not reach the input: it is zero")
    back = Context(context.target, context.spec.transposed(), context.max_position, context.quick)
    return worst(
        gradient_of_x - back.expected(g, ids),
        back.bound(g, ids, dtype),
        "abs",
        lambda i: {"position": i[2], "lane": i[3]},
        "the backward pass is not the transposed rotation (its own sign, base or scale?)",
    )
