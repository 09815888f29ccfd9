"""What a result depends on beside its own position: earlier calls, and other rows of the call."""

from __future__ import annotations

import numpy as np

from rotary_spec_conformance.identification.structure import Structure
from rotary_spec_conformance.probe import Probe, TargetMisbehaved
from rotary_spec_conformance.target import Target
from rotary_spec_conformance.tolerances import NARROW, UNIT_ROUNDOFF


def dtype_dependence(target: Target, dtype: str) -> list[str]:
    """Whether a longer 16-bit call changes a later one; asked first, while tables are short."""
    narrow = [d for d in target.usual_dtypes() if d in NARROW and d != dtype]
    if not narrow:
        return []
    end = min(16, target.max_position or 16)
    x = np.ones((1, 1, end, target.head_dim))
    probe, short = Probe(target, dtype), end // 2
    before = probe(x[:, :, :short], np.arange(short))
    for other in narrow:
        try:
            probe(x, np.arange(end), dtype=other)
        except TargetMisbehaved:
            return []
    if np.array_equal(probe(x[:, :, :short], np.arange(short)), before):
        return []
    return [f"results depend on the dtype of earlier calls: {dtype} changed after {narrow[-1]}"]


def call_dependence(target: Target, dtype: str, structure: Structure, end: int) -> list[str]:
    """Whether rows at small positions change with a large position in the call, or before it."""
    if target.positions != "explicit":
        return []
    near, far = np.arange(1, 9), min(end - 1, 2**15 + 1)
    if far <= near[-1]:
        return []
    vectors = np.zeros((1, target.head_dim))
    vectors[0, [pair[0] for pair in structure.inputs]] = 1.0
    probe = Probe(target, dtype)
    try:
        alone = probe.responses(vectors, near)
        beside = probe.responses(vectors, [*near[:-1], far])
        after = probe.responses(vectors, near)
    except TargetMisbehaved:
        return []
    changed = np.abs(beside - alone)[:, : len(near) - 1].max()
    found = []
    if changed > 64 * UNIT_ROUNDOFF[dtype]:
        found.append(
            f"frequencies depend on the length of the call: position 1 changes by {changed:.2g} "
            f"when position {far:,} is in the same call (dynamic)"
        )
    if not np.array_equal(after, alone):
        found.append("results depend on earlier calls: position 1 changed after a longer call")
    return found
