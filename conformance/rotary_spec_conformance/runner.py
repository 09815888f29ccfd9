"""`check`: run every clause on a target and gather the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_conformance import checks
from rotary_spec_conformance.adapt import adapt
from rotary_spec_conformance.checks.precision import grade
from rotary_spec_conformance.context import LIMIT, Context
from rotary_spec_conformance.probe import TargetMisbehaved, first_touch
from rotary_spec_conformance.registry import CLAUSES, Clause, NotRun
from rotary_spec_conformance.results import Report, Result
from rotary_spec_conformance.target import Target
from rotary_spec_conformance.tolerances import NARROW

assert checks  # imported for its clauses

POSITIONS = 2**17
"""Positions that must be right, unless the caller or the target says otherwise."""

ARANGE_POSITIONS = 4096
"""The same for targets that can reach a position only by a sequence of that length."""

FEWEST = 8
"""Positions that the checks need."""


def check(
    target: Target | Any,
    spec: rs.RotarySpec,
    *,
    framework: str | None = None,
    dtypes: Sequence[str] | None = None,
    max_position: int | None = None,
    quick: bool = False,
    expected_failures: Mapping[str, str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Report:
    """Does an implementation do what a spec says?

    Parameters
    ----------
    target : Target, function, module or factory
        Anything but a `Target` goes through `adapt`, with ``framework`` and ``options``.
    spec : RotarySpec
        What the implementation is held against. With sections, the target takes positions on as
        many axes.
    framework : {"numpy", "torch", "jax", "cupy", "mlx"} or None
        None: inferred.
    dtypes : sequence of str or None
        Floating dtypes to test; None: all that the target
        takes; bfloat16 NumPy arrays, which are ml_dtypes', only where it declares them.
    max_position : int or None
        Positions below it must be right; None: 131072, 4096 where positions are implicit, or what
        the target declares. Beyond it the precision is graded, not judged.
    quick : bool
        Fewer dtypes and positions; for a first look.
    expected_failures : mapping or None
        Known deviations, clause id to reason. They are reported as ``xfail``; one that does not
        occur is a finding.
    progress : callable or None
        Called as ``progress(clause, done, total)`` before each check.

    Returns
    -------
    Report
        ``report.ok``, ``report.results``, ``report.grades``; ``print(report)``.

    Raises
    ------
    TargetError
        If the target cannot be adapted, its head_dim or its number of axes is not the spec's, or
        no dtype is left.

    Examples
    --------
    >>> import rotary_spec as rs
    >>> from rotary_spec_conformance import check
    >>> spec = rs.RotarySpec(head_dim=8)
    >>> check(lambda x, positions: rs.rotate(x, positions, spec), spec, framework="numpy").ok
    True
    """
    started = time.perf_counter()
    if not isinstance(spec, rs.RotarySpec):
        raise TargetError(f"spec must be a RotarySpec, got {spec!r}")
    if not isinstance(target, Target):
        target = adapt(target, spec=spec, framework=framework, **options)
    elif options or framework:
        given = ", ".join([*options, *(["framework"] if framework else [])])
        raise TargetError(f"{given}: only for targets that are adapted; this one is a Target")
    context = _context(target, spec, dtypes, max_position, quick)
    expected = _known(expected_failures)
    jobs = _jobs(context)
    first_touch(context.target)
    results: list[Result] = []
    for number, (clause, dtype) in enumerate(jobs):
        if progress is not None:
            progress(clause.id, number, len(jobs))
        results.append(_declared(_run(context, clause, dtype, results), expected))
    grades = []
    for dtype in context.dtypes:
        if any(r.clause in ("PREC-1", "PREC-2") and r.where.get("dtype") == dtype
               and r.deviation is not None for r in results):  # fmt: skip
            grades.append(grade(context, dtype))
    return Report(
        target=target.name,
        about=target.about,
        spec=spec,
        framework=target.framework.name,
        versions=target.versions,
        results=results,
        grades=grades,
        findings=_findings(context, results, expected),
        seconds=time.perf_counter() - started,
    )


def _context(
    target: Target,
    spec: rs.RotarySpec,
    dtypes: Sequence[str] | None,
    max_position: int | None,
    quick: bool,
) -> Context:
    if target.head_dim != spec.head_dim:
        raise TargetError(
            f"{target.name}: head_dim is {target.head_dim}, the spec's is {spec.head_dim}"
        )
    if max_position is not None and not FEWEST <= max_position <= LIMIT:
        raise TargetError(f"max_position must lie in {FEWEST} .. 2**31, got {max_position}")
    usual = ARANGE_POSITIONS if target.positions == "arange" else POSITIONS
    limit = min(max_position or usual, target.max_position or LIMIT)
    if limit < FEWEST:
        raise TargetError(f"{target.name} serves {limit} positions, the checks need {FEWEST}")
    axes = spec.sections.axes if spec.sections else None
    if target.axes != axes:
        raise TargetError(
            f"{target.name}: {_counted(target.axes)}, the spec has {_counted(axes)}. "
            "Hint: axes and sections belong together"
        )
    there = target.supported_dtypes()
    chosen = tuple(dtypes) if dtypes else target.usual_dtypes()
    if missing := [d for d in chosen if d not in there]:
        raise TargetError(
            f"{target.name}: dtype {', '.join(missing)} cannot be tested; "
            f"possible: {', '.join(there)}"
        )
    if quick and not dtypes:
        chosen = _one_of_each_width(chosen)
    return Context(replace(target, dtypes=chosen), spec, limit, quick)


def _counted(axes: int | None) -> str:
    return "positions on no axes" if axes is None else f"positions on {axes} axes"


def _one_of_each_width(dtypes: tuple[str, ...]) -> tuple[str, ...]:
    """The first wide dtype and a narrow one, the coarser where there are both."""
    wide = [d for d in dtypes if d not in NARROW][:1]
    narrow = [d for d in ("bfloat16", "float16") if d in dtypes][:1]
    return (*wide, *narrow)


def _known(expected_failures: Mapping[str, str] | None) -> dict[str, str]:
    expected = dict(expected_failures or {})
    if unknown := sorted(set(expected) - set(CLAUSES)):
        raise TargetError(
            f"expected_failures: {', '.join(unknown)} is no clause; known: {', '.join(CLAUSES)}"
        )
    return expected


def _jobs(context: Context) -> list[tuple[Clause, str]]:
    """Which clause runs for which dtypes, prerequisites before what needs them."""
    by_kind = {
        "first": context.dtypes[:1],
        "each": context.dtypes,
        "wide": tuple(d for d in context.dtypes if d not in NARROW),
        "narrow": tuple(d for d in context.dtypes if d in NARROW),
    }
    ordered: list[Clause] = []

    def place(clause: Clause) -> None:
        for needed in clause.needs:
            place(CLAUSES[needed])
        if clause not in ordered:
            ordered.append(clause)

    for clause in CLAUSES.values():
        place(clause)
    return [(clause, dtype) for clause in ordered for dtype in by_kind[clause.dtypes]]


@np.errstate(all="ignore")  # infinities are reported, not warned of
def _run(context: Context, clause: Clause, dtype: str, before: list[Result]) -> Result:
    """One check; whatever the target does in it stays in it."""
    place: dict[str, Any] = {} if clause.dtypes == "first" else {"dtype": dtype}
    if causes := _failed_needs(clause, before):
        reason = f"says nothing while {', '.join(causes)} fails"
        return Result(clause.id, clause.title, "skip", where=place, message=reason)
    bad: Any = "fail" if clause.level == "MUST" else "note"
    try:
        outcome = clause.check(context, dtype)
    except NotRun as reason:
        return Result(clause.id, clause.title, "skip", where=place, message=str(reason))
    except TargetMisbehaved as problem:
        message = f"the target {problem}"
        return Result(clause.id, clause.title, bad, where=place, message=message)
    return Result(
        clause.id,
        clause.title,
        "pass" if outcome.holds else bad,
        outcome.deviation,
        outcome.tolerance,
        outcome.unit,
        {**place, **outcome.where},
        "" if outcome.holds else _sentence(outcome.message, outcome.where),
    )


def _failed_needs(clause: Clause, before: list[Result]) -> list[str]:
    """The failed clauses that this one stands on, directly or through others."""
    failed = {r.clause for r in before if r.status in ("fail", "xfail")}
    causes: set[str] = set()
    for needed in clause.needs:
        causes |= {needed} if needed in failed else set(_failed_needs(CLAUSES[needed], before))
    return sorted(causes)


def _sentence(message: str, where: Mapping[str, Any]) -> str:
    place = ", ".join(
        str(value) if key == "call" else f"{key} {value:,}" for key, value in where.items()
    )
    return f"{message} (worst: {place})" if place else message


def _declared(result: Result, expected: Mapping[str, str]) -> Result:
    if result.status == "fail" and result.clause in expected:
        reason = f"declared: {expected[result.clause]}. {result.message}"
        return replace(result, status="xfail", message=reason)
    return result


def _findings(context: Context, results: list[Result], expected: Mapping[str, str]) -> list[str]:
    failed = {r.clause for r in results if r.status == "xfail"}
    ran = {r.clause for r in results if r.status != "skip"}
    stale = [
        f"{clause} was declared to fail ({reason}), and "
        f"{'passes' if clause in ran else 'did not run'}"
        for clause, reason in expected.items()
        if clause not in failed
    ]
    return [*stale, *dict.fromkeys(context.stops())]
