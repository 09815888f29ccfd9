"""Every fault of the zoo is found by the clause that names it; no clause is without a fault."""

from __future__ import annotations

from functools import cache

import pytest

from rotary_spec_conformance import CLAUSES, Report, check
from tests.conformance.zoo_broken import BROKEN


@cache
def report_of(name: str) -> Report:
    """One run for all tests here: what has module-level state can be checked only once."""
    return check(BROKEN[name].target, BROKEN[name].spec)


@pytest.mark.parametrize("name", BROKEN)
def test_clause_names_the_fault(name):
    broken, report = BROKEN[name], report_of(name)
    bad = [r for r in report.results if r.clause == broken.clause and r.status in ("fail", "note")]
    assert bad, f"{broken.clause} does not fail:\n{report}"
    assert any(broken.says in result.message for result in bad), "\n".join(r.message for r in bad)


@pytest.mark.parametrize("name", BROKEN)
def test_must_decides_and_should_notes(name):
    report, level = report_of(name), CLAUSES[BROKEN[name].clause].level
    assert report.ok == (level == "SHOULD")
    statuses = {r.status for r in report.results if r.clause == BROKEN[name].clause}
    assert ("fail" if level == "MUST" else "note") in statuses


@pytest.mark.parametrize("name", [n for n in BROKEN if CLAUSES[BROKEN[n].clause].level == "MUST"])
def test_fault_is_not_drowned_by_others(name):
    """It is the first clause to fail or the second, and clauses it has nothing to do with hold."""
    report = report_of(name)
    failed = list(dict.fromkeys(result.clause for result in report.failures))
    assert BROKEN[name].clause in failed[:2]
    passed = {result.clause for result in report.results if result.status == "pass"}
    assert len(failed) <= 4
    assert len(passed) > 2 * len(failed)


@pytest.mark.parametrize("clause", CLAUSES)
def test_every_clause_has_a_fault_that_it_names(clause):
    assert clause in {broken.clause for broken in BROKEN.values()}
