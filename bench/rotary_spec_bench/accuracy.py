"""Whether a result is right, before its time is taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rotary_spec_backends.frameworks import HostArray
from rotary_spec_bench.cases import Case, Inputs
from rotary_spec_bench.contestants import Prepared
from rotary_spec_conformance.tolerances import UNIT_ROUNDOFF, float32_angle, unit_roundoff


class Wrong(Exception):
    """A result that is off by more than its arithmetic explains."""


def error_of(inputs: Inputs, prepared: Prepared, out: object, kind: str) -> float:
    """Largest deviation of ``out`` from the float64 reference on the last tokens.

    Raises
    ------
    Wrong
        If a shape differs, or a deviation exceeds `allowed`.
    """
    framework = prepared.framework
    results = prepared.results(out)
    shapes = tuple(tuple(x.shape) for x in results)
    if shapes != inputs.case.shapes:
        raise Wrong(f"gives arrays of shapes {shapes}, not {inputs.case.shapes}")
    found = inputs.last_rows(results, framework)
    if prepared.bits:
        given = inputs.last_rows(inputs.of(framework), framework)
        if not all(np.array_equal(x, y) for x, y in zip(given, found)):
            raise Wrong("the copy is none")
        return 0.0
    expected, sizes = inputs.expected(framework)
    return _largest(found, expected, allowed(inputs.case, sizes, kind))


def _largest(
    found: Sequence[HostArray], expected: Sequence[HostArray], bounds: Sequence[HostArray]
) -> float:
    worst = 0.0
    for x, y, bound in zip(found, expected, bounds):
        deviation = np.abs(x - y)
        worst = max(worst, float(deviation.max()))
        if not np.all(deviation <= bound):  # NaN is not within a bound either
            at = np.nanargmax(np.where(np.isnan(deviation), np.inf, deviation - bound))
            raise Wrong(
                f"off by {deviation.flat[at]:.2g}, where its arithmetic explains "
                f"{bound.flat[at]:.2g}"
            )
    return worst


def allowed(case: Case, sizes: Sequence[HostArray], kind: str) -> list[HostArray]:
    """How far each element may be off.

    Of ours: 4 u (|a| + |b|) in float32 arithmetic, and one rounding of the result. Of others: the
    angles may be float32, and tables, products, sums and result may be rounded to the case's dtype,
    which makes 5 of its roundings.
    """
    u = unit_roundoff(case.dtype)
    if kind == "ours":
        once = UNIT_ROUNDOFF[case.dtype] if case.dtype != "float32" else 0.0
        return [(4 * UNIT_ROUNDOFF["float32"] * (1 + u) + once) * size for size in sizes]
    rows = min(case.length, sizes[0].shape[2])
    ids = np.arange(case.length)[-rows:]
    angle = float32_angle(case.spec, ids).max(axis=-1)[:, None]
    return [(5 * u * (1 + 5 * u) + angle) * size for size in sizes]
