"""`check`: run every clause on a target and gather the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_conformance import checks
from rotary_spec_conformance.adapt import adapt
from rotary_spec_conformance.checks.precision import grade
from rotary_spec_conformance.context import LIMIT, Context
from rotary_spec_conformance.engine import (
    chosen_dtypes,
    known_failures,
    run_clauses,
    stale_declarations,
)
from rotary_spec_conformance.probe import first_touch
from rotary_spec_conformance.registry import CLAUSES
from rotary_spec_conformance.results import Report
from rotary_spec_conformance.target import Target

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
    expected = known_failures(expected_failures, CLAUSES)
    first_touch(context.target)
    results = run_clauses(CLAUSES, context, expected, progress)
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
        findings=[*stale_declarations(results, expected), *dict.fromkeys(context.stops())],
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
    chosen = chosen_dtypes(target, dtypes, quick)
    return Context(replace(target, dtypes=chosen), spec, limit, quick)


def _counted(axes: int | None) -> str:
    return "positions on no axes" if axes is None else f"positions on {axes} axes"
