"""No clause fails on what is right, whichever convention it is written in."""

from __future__ import annotations

import pytest

from rotary_spec_conformance import CLAUSES, adapt, check
from tests.conformance.zoo_correct import CORRECT


@pytest.mark.parametrize("name", CORRECT)
def test_conforms_in_every_dtype(name):
    correct = CORRECT[name]
    target = adapt(correct.implementation, spec=correct.spec, **correct.options)
    report = check(target, correct.spec, dtypes=target.supported_dtypes())
    assert report.ok, str(report)
    assert not report.failures
    kept = {r.where["dtype"] for r in report.results if r.clause == "PURE-3"}
    assert kept == set(target.supported_dtypes())


@pytest.mark.parametrize("name", ["numpy_rotate_half", "torch_module_and_apply"])
def test_quick_run_conforms_too(name):
    correct = CORRECT[name]
    target = adapt(correct.implementation, spec=correct.spec, **correct.options)
    report = check(target, correct.spec, quick=True)
    assert report.ok, str(report)
    assert {r.clause for r in report.results} == set(CLAUSES)


def test_what_should_hold_is_noted_where_it_does_not():
    """A table read at negative ids, and 16-bit arithmetic: SHOULD clauses, so both conform."""
    for name, clause in (
        ("numpy_table_without_negative_ids", "POS-4"),
        ("torch_arithmetic_in_the_dtype_of_x", "PREC-3"),
    ):
        correct = CORRECT[name]
        target = adapt(correct.implementation, spec=correct.spec, **correct.options)
        report = check(target, correct.spec)
        assert clause in {r.clause for r in report.results if r.status == "note"}
        assert report.ok
