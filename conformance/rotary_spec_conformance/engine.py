"""What the suites share: which clause runs for which dtype, and what becomes of its outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rotary_spec import TargetError
from rotary_spec_conformance.context import Context
from rotary_spec_conformance.probe import TargetMisbehaved
from rotary_spec_conformance.registry import Clause, NotRun
from rotary_spec_conformance.results import Result
from rotary_spec_conformance.target import Target
from rotary_spec_conformance.tolerances import NARROW

Progress = Callable[[str, int, int], None]
Clauses = Mapping[str, Clause]


def chosen_dtypes(target: Target, dtypes: Sequence[str] | None, quick: bool) -> tuple[str, ...]:
    """The dtypes to test: those asked for, or what is usual; `TargetError` if one cannot be."""
    there = target.supported_dtypes()
    chosen = tuple(dtypes) if dtypes else target.usual_dtypes()
    if missing := [d for d in chosen if d not in there]:
        raise TargetError(
            f"{target.name}: dtype {', '.join(missing)} cannot be tested; "
            f"possible: {', '.join(there)}"
        )
    return _one_of_each_width(chosen) if quick and not dtypes else chosen


def _one_of_each_width(dtypes: tuple[str, ...]) -> tuple[str, ...]:
    """The first wide dtype and a narrow one, the coarser where there are both."""
    wide = [d for d in dtypes if d not in NARROW][:1]
    narrow = [d for d in ("bfloat16", "float16") if d in dtypes][:1]
    return (*wide, *narrow)


def known_failures(expected: Mapping[str, str] | None, clauses: Clauses) -> dict[str, str]:
    """The declared failures, clause id to reason; `TargetError` if one is of no clause."""
    known = dict(expected or {})
    if unknown := sorted(set(known) - set(clauses)):
        raise TargetError(
            f"expected_failures: {', '.join(unknown)} is no clause; known: {', '.join(clauses)}"
        )
    return known


def run_clauses(
    clauses: Clauses, context: Context, expected: Mapping[str, str], progress: Progress | None
) -> list[Result]:
    """Every clause on the context's target, for the dtypes it is for."""
    jobs = _jobs(clauses, context)
    results: list[Result] = []
    for number, (clause, dtype) in enumerate(jobs):
        if progress is not None:
            progress(clause.id, number, len(jobs))
        causes = _failed_needs(clauses, clause, results)
        results.append(_declared(_run(context, clause, dtype, causes), expected))
    return results


def stale_declarations(results: list[Result], expected: Mapping[str, str]) -> list[str]:
    """What was declared to fail and did not, in words."""
    failed = {r.clause for r in results if r.status == "xfail"}
    ran = {r.clause for r in results if r.status != "skip"}
    return [
        f"{clause} was declared to fail ({reason}), and "
        f"{'passes' if clause in ran else 'did not run'}"
        for clause, reason in expected.items()
        if clause not in failed
    ]


def _jobs(clauses: Clauses, context: Context) -> list[tuple[Clause, str]]:
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
            place(clauses[needed])
        if clause not in ordered:
            ordered.append(clause)

    for clause in clauses.values():
        place(clause)
    return [(clause, dtype) for clause in ordered for dtype in by_kind[clause.dtypes]]


@np.errstate(all="ignore")  # infinities are reported, not warned of
def _run(context: Context, clause: Clause, dtype: str, causes: list[str]) -> Result:
    """One check; whatever the target does in it stays in it."""
    place: dict[str, Any] = {} if clause.dtypes == "first" else {"dtype": dtype}
    if causes:
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


def _failed_needs(clauses: Clauses, clause: Clause, before: list[Result]) -> list[str]:
    """The failed clauses that this one stands on, directly or through others."""
    failed = {r.clause for r in before if r.status in ("fail", "xfail")}
    causes: set[str] = set()
    for needed in clause.needs:
        deeper = _failed_needs(clauses, clauses[needed], before)
        causes |= {needed} if needed in failed else set(deeper)
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
