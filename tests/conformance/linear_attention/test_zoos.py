"""Every fault is found by the clause that names it; nothing fails on what is right."""

from __future__ import annotations

from functools import cache

import pytest

from rotary_spec_conformance import Report, check_linear_attention
from rotary_spec_conformance.registry import LINEAR_ATTENTION_CLAUSES
from tests.conformance.linear_attention.zoo_broken import BROKEN, SPEC
from tests.conformance.linear_attention.zoo_correct import CORRECT


@cache
def report_of(name: str) -> Report:
    broken = BROKEN[name]
    return check_linear_attention(broken.implementation, SPEC, **broken.options)


@pytest.mark.parametrize("name", BROKEN)
def test_clause_names_the_fault(name):
    broken, report = BROKEN[name], report_of(name)
    level = LINEAR_ATTENTION_CLAUSES[broken.clause].level
    status = "fail" if level == "MUST" else "note"
    bad = [r for r in report.results if r.clause == broken.clause and r.status == status]
    assert bad, f"{broken.clause} does not fail:\n{report}"
    assert any(broken.says in result.message for result in bad), "\n".join(r.message for r in bad)
    assert report.ok == (level == "SHOULD")


@pytest.mark.parametrize("name", BROKEN)
def test_fault_is_not_drowned_by_others(name):
    """It is the first MUST to fail or the second, and others hold."""
    report = report_of(name)
    failed = list(dict.fromkeys(result.clause for result in report.failures))
    if LINEAR_ATTENTION_CLAUSES[BROKEN[name].clause].level == "MUST":
        assert BROKEN[name].clause in failed[:2]
    assert len(failed) <= 3, str(report)
    passed = {result.clause for result in report.results if result.status == "pass"}
    assert BROKEN[name].clause == "LATT-1" or len(passed) > len(failed)


@pytest.mark.parametrize("clause", LINEAR_ATTENTION_CLAUSES)
def test_every_clause_has_a_fault_that_it_names(clause):
    assert clause in {broken.clause for broken in BROKEN.values()}


@pytest.mark.parametrize("name", CORRECT)
def test_what_is_right_conforms(name):
    correct = CORRECT[name]
    report = check_linear_attention(correct.implementation, correct.spec, **correct.options)
    assert report.ok, str(report)
    assert not report.failures
    assert "numerator Rφ(q)·Rφ(k); denominator Σ φ(q)·φ(k)" in report.findings[-1]
