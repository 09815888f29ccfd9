"""identify() on the implementations that the checks are tested with: right ones and broken ones."""

import importlib.util
import sys

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_conformance import adapt, identify
from rotary_spec_conformance.registry import CLAUSES
from tests.conformance import zoo_state
from tests.conformance.zoo_broken import BROKEN as ALL_BROKEN
from tests.conformance.zoo_correct import CORRECT


@pytest.mark.parametrize("case", CORRECT.values(), ids=CORRECT)
def test_correct_implementations_are_what_they_are(case):
    target = adapt(case.implementation, spec=case.spec, **case.options)
    found = identify(target)
    assert found.spec is not None, found
    assert set(found.findings) <= {"cos and sin are the caller's"}
    expected = case.spec
    for field in ("head_dim", "rotary_start", "layout", "output_layout", "inverse"):
        assert getattr(found.spec, field) == getattr(expected, field)
    assert found.attention_factor == pytest.approx(rs.attention_factor(expected), rel=1e-6)
    exact = rs.frequencies(expected)[: len(found.frequencies)]
    np.testing.assert_allclose(found.frequencies, exact, rtol=1e-6)
    same = found.spec.base == expected.base and found.spec.schedule == expected.schedule
    np.testing.assert_allclose(rs.frequencies(found.spec)[: len(exact)], exact, rtol=1e-6)
    assert same or found.spec.rotary_dim <= 8  # few pairs fit more than one schedule


def own_copy(module):
    """A module executed anew: some faults are tables that the first call of the process makes."""
    spec = importlib.util.spec_from_file_location(f"{module.__name__}_again", module.__file__)
    copy = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = copy  # dataclasses look their module up
    spec.loader.exec_module(copy)
    return copy


BROKEN = ALL_BROKEN | own_copy(zoo_state).BROKEN
MUST = {name: broken for name, broken in BROKEN.items() if CLAUSES[broken.clause].level == "MUST"}


@pytest.mark.parametrize("broken", MUST.values(), ids=MUST)
def test_broken_implementations_are_never_clean(broken):
    found = identify(broken.target)
    assert found.spec != broken.spec, found
    if found.spec is None:
        assert found.reason or found.findings or found.layout == "permuted", found
    if not found.is_rotary:
        assert found.reason
