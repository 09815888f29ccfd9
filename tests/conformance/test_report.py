"""`Report`: what it says of a run, as a verdict, as text and as JSON, and its grades."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_conformance import Grade, Report, Result, adapt, check
from rotary_spec_conformance.results import measured

SPEC = rs.RotarySpec(head_dim=16, layout="half")


def report_with(*statuses, **fields) -> Report:
    results = [Result(f"C-{i}", "title", s, 0.5, 1.0) for i, s in enumerate(statuses)]
    values = {"target": "t", "about": "f(x)", "spec": SPEC, "framework": "numpy", "versions": {}}
    values |= {"grades": [], "findings": [], "seconds": 0.1, "results": results}
    return Report(**values | fields)


@pytest.mark.parametrize(
    ("statuses", "ok"),
    [
        (["pass"], True),
        (["pass", "note", "skip", "xfail"], True),
        (["pass", "fail"], False),
        (["fail"], False),
        ([], False),  # nothing was checked: nothing is known
        (["skip", "skip"], False),
        (["note", "xfail"], False),
    ],
)
def test_ok_needs_a_pass_and_no_failure(statuses, ok):
    assert report_with(*statuses).ok is ok


def test_counts_failures_and_verdict_agree():
    report = report_with("pass", "pass", "fail", "note", "skip", "xfail")
    assert report.counts() == {"pass": 2, "fail": 1, "note": 1, "skip": 1, "xfail": 1}
    assert [result.clause for result in report.failures] == ["C-2"]
    assert report.verdict() == (
        "does not conform: 2 passed, 1 failed, 1 noted, 1 not run, 1 failed as declared"
    )
    assert report_with("pass").verdict() == "conforms: 1 passed"


def test_a_run_without_a_measurement_could_not_be_run():
    results = [Result("C-0", "title", "fail", message="the target raised")]
    assert not report_with(results=results).ran
    assert report_with(results=results).verdict() == "could not be run: 1 failed"


def test_text_shows_what_a_reader_needs():
    results = [
        Result("ROT-1", "exact", "pass", 1e-8, 1e-6, where={"dtype": "float32"}),
        Result("ROT-1", "exact", "fail", 2.0, 1e-6, where={"dtype": "float16"}, message="too far"),
        Result("PURE-1", "unchanged", "fail", 1.0, 0.0, message="it wrote"),
        Result("EQV-5", "pairs", "skip", message="takes one tensor"),
        Result("POS-3", "range", "skip", message="takes one tensor"),
        Result("BAD-1", "odd", "note", message="no error"),
    ]
    grades = [Grade("float32", "exact", 100, 100), Grade("float16", "low", 7, 100)]
    findings = ["something is open"]
    text = str(report_with(results=results, grades=grades, findings=findings, versions={"np": "2"}))
    lines = text.splitlines()
    assert lines[0] == "t  (f(x), np 2)"
    assert lines[1] == f"held against {SPEC}"
    assert "✓ ROT-1   exact [float32]  1e-08 of 1e-06" in lines
    assert lines[lines.index("✗ ROT-1   exact [float16]  2 of 1e-06") + 1].strip() == "too far"
    assert "✗ PURE-1  unchanged  1 where none is allowed" in lines
    assert "! BAD-1   odd" in lines
    assert "- not run: EQV-5, POS-3: takes one tensor" in lines
    assert "precision float32: exact phases, trusted to position 100 (as far as probed)" in lines
    assert "precision float16: low-precision angles, trusted to position 7" in lines
    assert "finding   something is open" in lines
    assert lines[-1] == "does not conform: 1 passed, 2 failed, 1 noted, 2 not run (0.10 s)"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (Result("C", "t", "pass"), ""),
        (Result("C", "t", "pass", 0.0, 0.0), ""),
        (Result("C", "t", "fail", 3.0, 0.0), "3 where none is allowed"),
        (Result("C", "t", "pass", 1.234e-7, 2e-6, "rad"), "1.2e-07 of 2e-06 rad"),
        (Result("C", "t", "fail", math.nan, 1e-6), "nan of 1e-06"),
    ],
)
def test_measured_shows_deviation_against_tolerance(result, text):
    assert measured(result) == text


def test_json_round_trip():
    report = check(adapt(rotate_half, spec=SPEC), SPEC, expected_failures={"ROT-3": "stale"})
    data = json.loads(report.to_json())
    assert data == json.loads(report.to_json(indent=None))
    assert data["ok"] is True
    assert rs.RotarySpec.from_dict(data["spec"]) == SPEC
    assert data["counts"] == report.counts()
    assert [r["clause"] for r in data["results"]] == [r.clause for r in report.results]
    assert [Grade(**grade) for grade in data["grades"]] == report.grades
    assert data["findings"] == report.findings


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_no_number_that_json_does_not_know(value):
    results = [Result("C", "t", "fail", value, 1.0)]
    text = report_with(results=results).to_json()
    assert json.loads(text)["results"][0]["deviation"] == str(value)


# Grades ---------------------------------------------------------------------------------------


def rotated(x, angle):
    first, second = np.split(x.astype(np.float64), 2, -1)
    cos, sin = np.cos(angle), np.sin(angle)
    y = np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
    return y.astype(x.dtype)


def rotate_half(x, positions):
    return rotated(x, np.multiply.outer(positions, 10_000.0 ** (-np.arange(8) / 8)))


def float32_angles(x, positions):
    theta = (10_000.0 ** (-np.arange(8) / 8)).astype(np.float32)
    return rotated(x, positions[:, None].astype(np.float32) * theta)


def float16_angles(x, positions):
    theta = (10_000.0 ** (-np.arange(8) / 8)).astype(np.float32)
    # In turns, so that they do not overflow.
    turns = positions[:, None].astype(np.float32) * theta / (2 * np.pi) % 1
    return rotated(x, 2 * np.pi * turns.astype(np.float16).astype(np.float64))


def positions_in_float16(x, positions):
    theta = 10_000.0 ** (-np.arange(8) / 8)
    rounded = np.minimum(positions, 65_000).astype(np.float16).astype(np.float64)
    return rotated(x, np.multiply.outer(rounded, theta))


def grades_of(function) -> dict[str, Grade]:
    return {grade.dtype: grade for grade in check(adapt(function, spec=SPEC), SPEC).grades}


def test_exact_phases_are_graded_exact_as_far_as_int32_goes():
    dtypes = ("float32", "float16", "bfloat16", "float64")
    report = check(lambda x, p: rs.rotate(x, p, SPEC), SPEC, framework="numpy", dtypes=dtypes)
    assert {grade.dtype for grade in report.grades} == set(dtypes)
    for grade in report.grades:
        assert (grade.precision, grade.trusted_to) == ("exact", 2**31 - 1)


def test_float32_angles_are_graded_float32_and_trusted_to_some_hundred_thousand():
    for grade in grades_of(float32_angles).values():
        assert grade.precision == "float32"
        assert 2**14 < grade.trusted_to < 2**20
        assert grade.trusted_to < grade.probed_to


def test_positions_in_float16_are_graded_low_and_trusted_to_2048():
    for grade in grades_of(positions_in_float16).values():
        assert grade.precision == "low"
        assert grade.trusted_to == 2048


def test_what_fails_before_angles_can_be_read_has_no_grade():
    report = check(adapt(float16_angles, spec=SPEC), SPEC)
    assert not report.ok
    assert "FREQ-1" in {result.clause for result in report.failures}
    assert report.grades == []
