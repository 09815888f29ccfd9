"""`parametrize_with_checks`, in a pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rotary_spec as rs
from rotary_spec_conformance import CLAUSES, Target, parametrize_with_checks
from rotary_spec_conformance.inference import framework_named

ROOT = Path(__file__).parents[2]
TESTS = """
import rotary_spec as rs
from rotary_spec_conformance import adapt, parametrize_with_checks

spec = rs.RotarySpec(head_dim=8)

def right(x, positions):
    return rs.rotate(x, positions, spec)

def backwards(x, positions):
    return rs.rotate(x, -positions, spec)

@parametrize_with_checks([(right, spec), (backwards, spec)], framework="numpy")
def test_as_it_is(rotary_check):
    rotary_check()

target = adapt(backwards, spec=spec, framework="numpy", name="declared")

@parametrize_with_checks([(target, spec)], expected_failures={"ROT-3": "ours"}, quick=True)
def test_declared(rotary_check):
    rotary_check()
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, str]:
    """Outcome and reason of each test in `TESTS`, by its name."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "test_rope.py").write_text(TESTS, encoding="utf-8")
    paths = [str(ROOT / room) for room in (".", "backends", "conformance")]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "test_rope.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "300"},
    )
    assert run.returncode == 1, run.stdout + run.stderr
    summary = run.stdout.partition("short test summary info")[2]
    found = re.findall(r"^(PASSED|FAILED|XFAIL) test_rope\.py::(\S+)(.*)$", summary, re.MULTILINE)
    outcomes = {name: outcome + reason for outcome, name, reason in found}
    for count, reason in re.findall(r"^SKIPPED \[(\d+)\] \S+ (.*)$", summary, re.MULTILINE):
        outcomes[reason] = f"SKIPPED {count}"
    return outcomes


def test_a_clause_that_holds_passes(outcomes):
    assert outcomes["test_as_it_is[right-ROT-1]"] == "PASSED"
    assert outcomes["test_as_it_is[backwards-STATE-1]"] == "PASSED"
    assert not any(o.startswith("FAILED") and "[right-" in name for name, o in outcomes.items())


def test_a_clause_that_fails_says_why(outcomes):
    text = outcomes["test_as_it_is[backwards-ROT-3]"]
    assert text.startswith("FAILED")
    assert "ROT-3: 100% of the pairs rotate by -m*theta" in text
    assert sum(o.startswith("FAILED") for o in outcomes.values()) == 1


def test_a_clause_that_is_not_run_is_skipped_with_its_reason(outcomes):
    assert outcomes["takes one tensor at a time"] == "SKIPPED 3"
    assert "says nothing while ROT-3 fails" in outcomes


def test_a_declared_failure_is_an_xfail(outcomes):
    assert outcomes["test_declared[declared-ROT-3]"].startswith("XFAIL")
    assert "declared: ours" in outcomes["test_declared[declared-ROT-3]"]


def test_collecting_runs_nothing():
    """The report is made by the first item that is called, not when pytest collects."""

    def explode():
        raise AssertionError("built while collecting")

    target = Target("late", explode, framework_named("numpy"), 8)
    mark = parametrize_with_checks([(target, rs.RotarySpec(head_dim=8))])
    assert [item.id for item in mark.args[1]] == [f"late-{clause}" for clause in CLAUSES]


def test_the_items_of_one_target_share_one_run():
    built = []

    def build():
        built.append(1)
        return lambda x, positions: x

    target = Target("once", build, framework_named("numpy"), 8, fresh=False)
    mark = parametrize_with_checks([(target, rs.RotarySpec(head_dim=8))], dtypes=["float32"])
    items = {item.id: item.values[0] for item in mark.args[1]}
    items["once-STATE-1"]()
    count = len(built)
    assert count > 0
    with pytest.raises(pytest.fail.Exception, match="FREQ-1: nothing is rotated"):
        items["once-FREQ-1"]()
    with pytest.raises(pytest.skip.Exception, match="float32 is the only dtype"):
        items["once-STATE-2"]()
    assert len(built) == count


def test_one_failing_dtype_fails_the_clause():
    """A clause that runs in several dtypes is one item: the worst of them decides."""
    import numpy as np

    spec = rs.RotarySpec(head_dim=8)

    def wrong_in_float16(x, positions):
        return rs.rotate(x, -positions if x.dtype == np.float16 else positions, spec)

    target = Target("t", lambda: wrong_in_float16, framework_named("numpy"), 8, fresh=False)
    items = {i.id: i.values[0] for i in parametrize_with_checks([(target, spec)]).args[1]}
    with pytest.raises(pytest.fail.Exception, match="wrong in float16"):
        items["t-ROT-1"]()
