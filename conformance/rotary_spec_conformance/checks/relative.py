"""REL: scores depend on the distance of two positions only. The spec is needed for nothing else."""

from __future__ import annotations

import numpy as np

from rotary_spec.layouts import output_lanes
from rotary_spec_conformance.context import Context, worst
from rotary_spec_conformance.registry import NotRun, Outcome, clause

DISTANCES = np.asarray([0, 1, 3, 7])


@clause("REL-1", "scores depend on m - n only", needs=("EQV-2", "EQV-3"))
def relative(context: Context, dtype: str) -> Outcome:
    """<R_m q, R_n k> is the same for (m, n) and (m + s, n + s) (RoFormer Eq. 11 and 16)."""
    if context.target.given_tables:
        raise NotRun("the caller supplies cos and sin")
    shifts = context.positions_below(0, 1, 10, 100, 1_000, 10_000, 100_000)
    shifts = shifts[shifts + DISTANCES[-1] < context.max_position]
    if context.target.positions == "arange":
        shifts = shifts[shifts < 4096]
    if len(shifts) < 2:
        raise NotRun(f"only {context.max_position} positions are served")
    d = context.target.head_dim
    vectors = context.rounded(context.random(2, d), dtype)
    positions = (shifts[:, None] + DISTANCES).ravel()
    probe = context.fresh(dtype)
    q, k = probe.responses(vectors, positions).reshape(2, len(shifts), len(DISTANCES), d)
    scores = np.einsum("sd,sjd->sj", q[:, 0], k)  # query at s, keys at s + distance
    bound = context.bound(vectors[:, None, None].repeat(len(positions), 2), positions, dtype)
    bound = bound.reshape(2, len(shifts), len(DISTANCES), d)
    tolerance = np.einsum("sd,sjd->sj", np.abs(q[:, 0]), bound[1]) + np.einsum(
        "sd,sjd->sj", bound[0][:, 0], np.abs(k)
    )
    rotated = [lane for lanes in output_lanes(context.spec) for lane in lanes]
    if not np.abs(q[..., rotated]).any():
        raise NotRun("the output is zero")
    return worst(
        scores - scores[0],
        tolerance + tolerance[0],
        "abs",
        lambda i: {"position": int(shifts[i[0]]), "call": f"distance {DISTANCES[i[1]]}"},
        "the score of two tokens changes when both move by the same distance: not a rotary "
        "embedding, or its positions are rounded",
    )
