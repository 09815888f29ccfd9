"""`identify`: what does an implementation do? From its outputs alone.

One-hot inputs give its matrix at a few positions, and with it the pairs (`structure`). The pairs'
angles, followed over doubling positions, give the frequencies (`unwrap`), and those the schedule
(`schedule_fit`). What was found is then checked like any other spec.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec.spec import LAYOUTS, Layout
from rotary_spec_conformance.adapt import adapt
from rotary_spec_conformance.identification.arrangement import Arrangement, arrange
from rotary_spec_conformance.identification.axes import AxialFit, axial_fits, axis_of_pair
from rotary_spec_conformance.identification.dependence import call_dependence, dtype_dependence
from rotary_spec_conformance.identification.result import Identification
from rotary_spec_conformance.identification.schedule_fit import Measured, fits
from rotary_spec_conformance.identification.structure import NotRotary, Structure, read_structure
from rotary_spec_conformance.identification.unwrap import Frequencies, unwrap
from rotary_spec_conformance.identification.views import along_diagonal, between_permuted_lanes
from rotary_spec_conformance.probe import (
    Floats,
    Probe,
    TargetMisbehaved,
    first_touch,
)
from rotary_spec_conformance.results import Grade, Report
from rotary_spec_conformance.runner import ARANGE_POSITIONS, check
from rotary_spec_conformance.target import Target
from rotary_spec_conformance.tolerances import UNIT_ROUNDOFF

POSITIONS = (0, 1, 2, 3, 61, 509)
"""Where the whole matrix is measured: far enough for slow pairs, not beyond small tables."""

BETWEEN = 11 / 32
"""What these are multiplied by for coordinates, of which integers may all be whole turns."""


def identify(
    target: Target | Any,
    head_dim: int | None = None,
    *,
    verify: bool = True,
    **options: Any,
) -> Identification:
    """What does an implementation do? Pairs, direction, schedule, magnitude, precision.

    Parameters
    ----------
    target : Target, function, module or factory
        Anything but a `Target` goes through `adapt`, with ``options``; then head_dim is needed.
        Options of `adapt` that matter here: ``axes`` for positions on several axes, such as time,
        row and column, and ``coordinates`` where these may be fractions.
    head_dim : int or None
    verify : bool
        Whether to check the target against what was found. Without, there is no ``spec`` (only
        ``closest``), no grade, and findings are fewer.

    Returns
    -------
    Identification

    Raises
    ------
    TargetError
        If the target cannot be adapted, or cannot be called at all.

    Examples
    --------
    >>> import rotary_spec as rs
    >>> from rotary_spec_conformance import identify
    >>> spec = rs.RotarySpec(head_dim=16, layout="half", base=500_000.0)
    >>> identify(lambda x, positions: rs.rotate(x, positions, spec), 16, framework="numpy").spec
    RotarySpec(head_dim=16, base=500000.0, layout='half')
    """
    started = time.perf_counter()
    found = _identify(target_of(target, head_dim, options), verify)
    return replace(found, seconds=time.perf_counter() - started)


def target_of(obj: Target | Any, head_dim: int | None, options: dict[str, Any]) -> Target:
    """``obj`` itself, or adapted; where its caller supplies tables, in the layout that suits it.

    Raises
    ------
    TargetError
        If it cannot be adapted, or head_dim is missing.
    """
    if isinstance(obj, Target):
        if options:
            raise TargetError(f"{', '.join(options)}: only for targets that are adapted")
        return obj
    if head_dim is None:
        raise TargetError("head_dim is needed for anything but a Target")
    targets = [adapt(obj, spec=rs.RotarySpec(head_dim, layout=o), **options) for o in LAYOUTS]
    if targets[0].given_tables and not _identify(targets[0], verify=False).is_rotary:
        return targets[1]
    return targets[0]


def _identify(target: Target, verify: bool) -> Identification:
    dtype = target.supported_dtypes()[0]
    roundoff = UNIT_ROUNDOFF[dtype]
    end = target.max_position or (ARANGE_POSITIONS if target.positions == "arange" else 2**31)
    findings: list[str] = []
    try:
        first_touch(target)
        probe = Probe(target, dtype)
        findings += dtype_dependence(target, dtype)
        _check_map(probe, roundoff)
        structure = _structure(target, dtype, end, findings)
        measured = unwrap(Probe(target, dtype), structure, roundoff, end)
        findings += measured.findings + call_dependence(target, dtype, structure, end)
        followed = None
        if target.axes is not None:
            probe = Probe(target, dtype)
            followed, unclear = axis_of_pair(probe, structure, measured, roundoff)
            findings += unclear
    except NotRotary as breach:
        return Identification(
            target.name, False, findings=findings, reason=f"{breach.breach}: {breach}"
        )
    except TargetMisbehaved as problem:
        return Identification(target.name, False, findings=findings, reason=f"it {problem}")
    return _describe(target, structure, measured, followed, roundoff, findings, verify)


def _check_map(probe: Probe, roundoff: float) -> None:
    """A rotary embedding is one and the same linear map each time it is asked."""
    rng = np.random.default_rng(0)
    ids = np.arange(min(8, probe.target.max_position or 8))
    x, y = rng.integers(-8, 9, (2, 1, 1, len(ids), probe.target.head_dim)).astype(np.float64)
    fx = probe(x, ids)
    again = np.abs(probe(x, ids) - fx).max()
    if not again <= 64 * roundoff * 8:
        raise NotRotary("determinism", f"the same call gives results that differ by {again:.2g}")
    apart = np.abs(probe(2 * x - 3 * y, ids) - (2 * fx - 3 * probe(y, ids))).max()
    if not apart <= 64 * roundoff * max(40.0, np.abs(fx).max()):
        raise NotRotary("linearity", f"f(2x - 3y) differs from 2 f(x) - 3 f(y) by {apart:.2g}")


def _structure(target: Target, dtype: str, end: int, findings: list[str]) -> Structure:
    positions = np.asarray([p for p in POSITIONS if p < end])
    if target.coordinates:
        positions = positions * BETWEEN
    vectors = np.eye(target.head_dim)
    try:
        columns = Probe(target, dtype).responses(vectors, positions)
    except TargetMisbehaved as problem:  # a short table: try what is left
        findings.append(f"at positions up to {positions[-1]} it {problem}")
        columns = Probe(target, dtype).responses(vectors, positions[:4])
    operators = np.moveaxis(columns, 0, -1)
    if len(operators) > 1 and np.array_equal(operators[1:], operators[:-1]):
        identity = np.array_equal(operators[0], vectors)
        raise NotRotary(
            "positions",
            "the position is ignored: every position gives "
            + ("the input back" if identity else "the same matrix"),
        )
    structure = read_structure(operators, UNIT_ROUNDOFF[dtype])
    if not structure.inputs:
        raise NotRotary("pairs", "no lane turns")
    return structure


def _describe(
    target: Target,
    structure: Structure,
    measured: Frequencies,
    followed: tuple[int, ...] | None,
    roundoff: float,
    findings: list[str],
    verify: bool,
) -> Identification:
    forwards = measured.theta >= 0
    inverse = not forwards.any()
    keep, blocks = forwards | inverse, target.axes is not None
    arranged = arrange(structure, measured, keep, target.head_dim, blocks=blocks)
    theta = np.abs(measured.theta)[list(arranged.order)]
    uncertainty = measured.uncertainty[list(arranged.order)]
    factor = _factor(measured.magnitude, roundoff)
    findings += _oddities(structure, measured, factor, roundoff)
    padded = np.concatenate([theta, np.zeros(arranged.rotary_dim // 2 - len(theta))])
    blur = np.concatenate([uncertainty, np.zeros(len(padded) - len(theta))])
    spectrum = Measured(padded, blur, arranged.rotary_dim)
    explained = [AxialFit(fit, None) for fit in fits(spectrum)] if followed is None else []
    if followed is not None:
        assert target.axes is not None
        followed = tuple(followed[i] for i in arranged.order)
        explained, unnamed = axial_fits(spectrum, followed, target.axes, arranged.pairing)
        findings += unnamed
    specs = [_spec(target.head_dim, arranged, inverse, one, factor) for one in explained]
    rotated = tuple(sorted(lane for pair in structure.inputs for lane in pair))
    found = Identification(
        target=target.name,
        is_rotary=True,
        closest=specs[0],
        alternatives=specs[1:],
        layout=arranged.layout,
        output_layout=arranged.output_layout,
        pairs=arranged.pairs,
        outputs=arranged.outputs,
        permutation=arranged.permutation,
        inverse=inverse,
        axis_of_pair=followed,
        rotated=rotated,
        frequencies=theta,
        uncertainty=uncertainty,
        attention_factor=factor,
        findings=findings,
    )
    return _verified(found, target, arranged) if verify else found


def _factor(magnitude: Floats, roundoff: float) -> float:
    """A, round where that is within the rounding of the outputs."""
    value = float(np.median(magnitude))
    for digits in range(1, 8):
        candidate = float(f"{value:.{digits - 1}e}")
        if abs(candidate - value) <= 2 * roundoff * value:
            return candidate
    return value


def _oddities(
    structure: Structure, measured: Frequencies, factor: float, roundoff: float
) -> list[str]:
    found = []
    if np.abs(measured.magnitude - factor).max() > 64 * roundoff * factor:
        low, high = measured.magnitude.min(), measured.magnitude.max()
        found.append(f"pairs have magnitudes of their own, {low:.6g} to {high:.6g}")
    if structure.kept and abs(structure.kept_gain - 1) > 64 * roundoff:
        found.append(f"lanes that do not turn are multiplied by {structure.kept_gain:.7g}")
    if np.abs(measured.origin).max() > 64 * roundoff:
        shift = float(np.median(measured.origin / measured.theta))
        found.append(f"position 0 turns as if it were position {shift:.4g}")
    return found


def _spec(
    head_dim: int,
    arranged: Arrangement,
    inverse: bool,
    explained: AxialFit,
    factor: float,
) -> rs.RotarySpec:
    schedule = explained.fit.schedule
    named = arranged.layout in LAYOUTS
    layout: Layout = arranged.layout if named else "half"  # type: ignore[assignment]
    out: Any = arranged.output_layout if arranged.output_layout in LAYOUTS else None
    implied = schedule.magnitude(None)
    return rs.RotarySpec(
        head_dim,
        base=explained.fit.base,
        layout=layout,
        output_layout=out,
        rotary_dim=arranged.rotary_dim,
        rotary_start=arranged.rotary_start,
        schedule=schedule,
        attention_factor=None if abs(factor - implied) < 1e-6 * implied else factor,
        inverse=inverse,
        sections=explained.sections,
    )


def _verified(found: Identification, target: Target, arranged: Arrangement) -> Identification:
    """Check the target against what was found; what does not hold becomes a finding."""
    assert found.closest is not None
    judged = target
    if found.permutation is not None:
        judged = between_permuted_lanes(target, found.permutation)
    nameless = target.axes is not None and found.closest.sections is None
    if nameless:  # no spec says which axis turns what; what holds for text can still be said
        judged = along_diagonal(judged)
    report = check(judged, found.closest, quick=True, dtypes=target.usual_dtypes())
    # A spec is of one call: what depends on others, or on the call's length, it does not say.
    stable = not any(" depend on " in finding for finding in found.findings)
    holds = report.ok and stable and not nameless and not _uncovered(arranged)
    grade = _grade(report)
    return replace(
        found,
        spec=found.closest if holds else None,
        precision=grade.precision if grade else None,
        trusted_to=grade.trusted_to if grade else None,
        findings=[
            *found.findings,
            *(f"{r.clause} {r.title}: {r.message}" for r in report.results if r.status == "fail"),
            *(["cos and sin are the caller's"] if target.given_tables else []),
        ],
    )


def _uncovered(arranged: Arrangement) -> bool:
    """Whether the outputs stand where no layout of a spec puts them."""
    if arranged.permutation is not None:
        return arranged.output_layout != "permuted"
    return arranged.output_layout not in LAYOUTS


def _grade(report: Report) -> Grade | None:
    return report.grades[0] if report.grades else None
