"""`check`: what the target does wrong stays in its report, what the caller does wrong is raised."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_conformance import CLAUSES, Target, adapt, check
from rotary_spec_conformance.inference import framework_named

SPEC = rs.RotarySpec(head_dim=8)


def right(x, positions):
    return rs.rotate(x, positions, SPEC)


def target_of(function, **declared) -> Target:
    numpy = framework_named("numpy")
    return Target("t", lambda: function, numpy, SPEC.head_dim, **{"fresh": False, **declared})


def raises(x, positions):
    raise RuntimeError("kernel launch failed\nwith a second line")


class Silent(Exception):
    def __str__(self):
        return ""


def raises_silently(x, positions):
    raise Silent


MISBEHAVIOUR = {
    "raised RuntimeError for x of shape (1, 2, 8, 8), float32": raises,
    "raised Silent": raises_silently,
    "returned builtins.NoneType instead of a numpy array": lambda x, positions: None,
    "returned builtins.tuple": lambda x, positions: (x, x),
    "returned builtins.list": lambda x, positions: x.tolist(),
    "returned shape (1, 2, 8, 4)": lambda x, positions: x[..., ::2],
    "returned shape ()": lambda x, positions: np.asarray(x.sum()),
    "returned complex64": lambda x, positions: x.astype(np.complex64),
    "returned bool": lambda x, positions: x > 0,
    "a float32 input gives a int32 result": lambda x, positions: x.astype(np.int32),
    "a float32 input gives a float64 result": lambda x, positions: x.astype(np.float64),
    "not linear in x": lambda x, positions: np.full_like(x, np.nan),
    "not linear in x, so": lambda x, positions: np.full_like(x, np.inf),
}


@pytest.mark.parametrize("says", MISBEHAVIOUR)
def test_misbehaviour_is_reported_and_never_raised(says):
    report = check(target_of(MISBEHAVIOUR[says]), SPEC)
    assert not report.ok
    assert any(says in result.message for result in report.failures), str(report)
    json.loads(report.to_json())
    assert str(report)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, np.nan, np.inf, 1e-300])
@pytest.mark.parametrize("dtypes", [None, ("float16",)])
def test_constant_results_are_reported(value, dtypes):
    report = check(target_of(lambda x, positions: np.full_like(x, value), dtypes=dtypes), SPEC)
    assert not report.ok
    assert len(report.results) >= len(CLAUSES) - 2  # every clause says something
    json.loads(report.to_json())


def test_first_line_of_an_error_is_enough():
    report = check(target_of(raises), SPEC)
    assert "kernel launch failed" in report.failures[0].message
    assert "second line" not in report.failures[0].message


def test_a_target_that_always_raises_was_not_run():
    report = check(target_of(raises), SPEC)
    assert not report.ran
    assert report.verdict().startswith("could not be run")


def test_what_works_is_still_checked():
    """It raises for one row per call only: the clauses that need one row fail, no others."""

    def not_one_row(x, positions):
        if x.shape[2] == 1:
            raise ValueError("one row")
        return right(x, positions)

    report = check(target_of(not_one_row), SPEC)
    assert {result.clause for result in report.failures} == {"EQV-4"}
    assert report.counts()["pass"] > 25


def test_a_dtype_that_raises_does_not_hide_the_others():
    def no_float16(x, positions):
        if x.dtype == np.float16:
            raise TypeError("no kernel for float16")
        return right(x, positions)

    report = check(target_of(no_float16), SPEC, dtypes=target_of(right).supported_dtypes())
    failed = {r.clause for r in report.failures}
    assert failed == {"STATE-2", "PURE-3", "ROT-1", "PREC-2"}
    statuses = {r.where["dtype"]: r.status for r in report.results if r.clause == "ROT-1"}
    assert statuses.pop("float16") == "fail"
    assert set(statuses.values()) == {"pass"}
    assert {grade.dtype for grade in report.grades} == {"float32", "bfloat16", "float64"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass_through(error):
    def interrupted(x, positions):
        raise error

    with pytest.raises(error):
        check(target_of(interrupted), SPEC)


def test_a_target_that_cannot_be_built_is_reported():
    def build():
        raise OSError("no such file")

    report = check(Target("t", build, framework_named("numpy"), 8), SPEC)
    assert not report.ok
    assert "raised OSError while it was built" in report.failures[0].message


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        (raises, "raised TypeError for q, k of shape (2, 4, 6, 8)"),
        (lambda q, k, positions: None, "returned NoneType instead of a pair"),
        (lambda q, k, positions: (q, k, q), "returned tuple instead of a pair"),
        (lambda q, k, positions: (q, q), "returned shape (2, 4, 6, 8) for x of shape (2, 2, 6, 8)"),
    ],
)
def test_a_pair_that_misbehaves_is_reported(pair, says):
    report = check(target_of(right, pair=lambda: pair), SPEC)
    (result,) = report.failures
    assert result.clause == "EQV-5"
    assert says in result.message


def test_a_gradient_that_raises_is_reported():
    torch = pytest.importorskip("torch")

    def severed(x, positions):
        return torch.from_numpy(rs.rotate(x.detach().numpy(), positions.numpy(), SPEC))

    declared = {"framework": "torch", "dtypes": ("float32",), "shape": "x-positions"}
    report = check(adapt(severed, spec=SPEC, **declared), SPEC)
    assert {r.clause for r in report.failures} == {"GRAD-1"}


@pytest.mark.parametrize("limit", [8, 9, 10, 16, 17, 33, 100])
@pytest.mark.parametrize("positions", ["explicit", "offset", "arange"])
def test_short_ranges_are_never_left(limit, positions):
    """Whatever it does beyond the positions that must be right, it conforms."""

    def rope(x, given):
        ids = given
        if positions != "explicit":
            ids = np.arange(given or 0, (given or 0) + x.shape[2])
        y = right(x, ids)
        y[..., np.broadcast_to(ids >= limit, y.shape[:-1]), :] = 0
        return y

    report = check(target_of(rope, positions=positions), SPEC, max_position=limit)
    assert report.ok, str(report)


@pytest.mark.parametrize("limit", [8, 100, 2048])
def test_the_last_position_that_must_be_right_is_looked_at(limit):
    def last_is_wrong(x, positions):
        y = right(x, positions)
        y[..., positions == limit - 1, :] *= -1
        return y

    report = check(target_of(last_is_wrong), SPEC, max_position=limit)
    assert not report.ok


# Arguments of the caller ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"spec": rs.RotarySpec(head_dim=16)}, "head_dim is 8, the spec's is 16"),
        ({"spec": "half"}, "spec must be a RotarySpec, got 'half'"),
        ({"dtypes": ["float8"]}, "dtype float8 cannot be tested; possible: float32"),
        ({"max_position": 0}, "max_position must lie in 8 .. 2**31, got 0"),
        ({"max_position": 7}, "max_position must lie in 8 .. 2**31, got 7"),
        ({"max_position": 2**31 + 1}, "max_position must lie in 8 .. 2**31"),
        ({"framework": "numpy"}, "framework: only for targets that are adapted"),
        ({"name": "mine", "factory": True}, "name, factory: only for targets that are adapted"),
        ({"expected_failures": {"ROT-9": "why not"}}, "ROT-9 is no clause; known: STATE-1"),
    ],
)
def test_wrong_arguments_are_refused(options, says):
    options = {"spec": SPEC, **options}
    with pytest.raises(TargetError, match=re.escape(says)):
        check(target_of(right), **options)


def test_a_target_of_a_few_positions_is_refused():
    with pytest.raises(TargetError, match="t serves 4 positions, the checks need 8"):
        check(target_of(right, max_position=4), SPEC)


def test_dtypes_are_those_asked_for():
    report = check(target_of(right), SPEC, dtypes=["bfloat16"])
    assert {r.where["dtype"] for r in report.results if "dtype" in r.where} == {"bfloat16"}
    assert report.ok


def test_quick_runs_less_and_says_so():
    whole, quick = check(target_of(right), SPEC), check(target_of(right), SPEC, quick=True)
    assert quick.ok
    assert {r.clause for r in quick.results} == {r.clause for r in whole.results}
    assert len(quick.results) < len(whole.results)
    assert {g.dtype for g in quick.grades} == {"float32", "float16"}
    whole = check(target_of(right, dtypes=("float32", "float16", "bfloat16")), SPEC, quick=True)
    assert {g.dtype for g in whole.grades} == {"float32", "bfloat16"}


def test_bfloat16_numpy_arrays_are_tested_where_they_are_asked_for():
    usual = check(target_of(right), SPEC, quick=True)
    assert "bfloat16" not in {r.where.get("dtype") for r in usual.results}
    declared = check(target_of(right, dtypes=("float32", "bfloat16")), SPEC, quick=True)
    assert "bfloat16" in {r.where.get("dtype") for r in declared.results}


def test_progress_is_told_of_every_check():
    calls = []
    report = check(target_of(right), SPEC, progress=lambda *call: calls.append(call))
    clauses, done, totals = zip(*calls, strict=True)
    assert list(clauses) == [r.clause for r in report.results]
    assert list(done) == list(range(len(calls)))
    assert set(totals) == {len(calls)}


def test_runs_are_repeatable():
    first, second = (check(target_of(right), SPEC).to_dict() for _ in range(2))
    del first["seconds"], second["seconds"]
    assert first == second


def test_needed_clauses_run_first_and_their_failure_skips_the_rest():
    report = check(target_of(lambda x, positions: right(x, -positions)), SPEC)
    order = [r.clause for r in report.results]
    for clause in CLAUSES.values():
        for needed in clause.needs:
            assert order.index(needed) < order.index(clause.id)
    skipped = {r.clause: r.message for r in report.results if r.status == "skip"}
    assert skipped["PREC-1"] == "says nothing while ROT-3 fails"


def test_state_is_looked_at_before_anything_else_is_called():
    assert next(iter(CLAUSES)) == "STATE-1"


# Declared failures ----------------------------------------------------------------------------


def test_a_declared_failure_is_expected_and_not_a_failure():
    target = target_of(lambda x, positions: right(x, -positions))
    report = check(target, SPEC, expected_failures={"ROT-3": "the NanoChat convention"})
    (result,) = (r for r in report.results if r.clause == "ROT-3")
    assert result.status == "xfail"
    assert result.message.startswith("declared: the NanoChat convention. ")
    assert report.ok
    assert not report.failures


def test_a_stale_declaration_is_a_finding():
    declared = {"ROT-3": "long ago", "EQV-5": "never run"}
    report = check(target_of(right), SPEC, expected_failures=declared)
    assert report.ok
    assert "ROT-3 was declared to fail (long ago), and passes" in report.findings
    assert "EQV-5 was declared to fail (never run), and did not run" in report.findings


def test_a_declaration_does_not_cover_other_failures():
    target = target_of(lambda x, positions: right(x, -positions) * x.dtype.type(1.5))
    report = check(target, SPEC, expected_failures={"ROT-3": "the NanoChat convention"})
    assert not report.ok
    assert [r.clause for r in report.failures] == ["ROT-4"]
