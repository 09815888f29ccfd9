"""What the suite is told, and what it reports."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_conformance import LinearAttentionTarget, check_linear_attention
from rotary_spec_conformance.inference import framework_named
from tests.conformance.linear_attention.zoo_correct import torch_cumulative_sum

SPEC = rs.RotarySpec(head_dim=8)


def reference(q, k, v, positions):
    return rs.linear_attention(q, k, v, positions, SPEC, causal=True)


# What it is told ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        (3, {}, "must be callable, got 3 (int)"),
        (torch.nn.Identity, {}, "is a class. Hint: factory=True"),
        (reference, {"framework": "abacus"}, "framework must be one of"),
        (eval("lambda q, k: q", {}), {}, "cannot tell the framework"),
        (reference, {"dtypes": ["float8"]}, "dtype float8"),
        (reference, {"max_position": 4}, "max_position must lie in 16"),
        (reference, {"expected_failures": {"ROT-1": "?"}}, "ROT-1 is no clause"),
        (reference, {"framework": "numpy", "positions": "later"}, "positions must be"),
    ],
)
def test_what_cannot_be_checked_says_why(target, options, says):
    with pytest.raises(TargetError, match=re.escape(says)):
        check_linear_attention(target, SPEC, **options)


def test_what_is_a_target_already_is_not_adapted():
    target = LinearAttentionTarget("mine", lambda: reference, framework_named("numpy"), 8)
    with pytest.raises(TargetError, match="only for targets that are adapted"):
        check_linear_attention(target, SPEC, framework="numpy")
    with pytest.raises(TargetError, match="serves 8 positions"):
        check_linear_attention(replace(target, max_position=8), SPEC)


def test_an_unknown_feature_map():
    with pytest.raises(rs.SpecError, match="feature_map must be"):
        check_linear_attention(reference, SPEC, framework="numpy", feature_map="relu")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda q, k, v, p: v[:, :1], "returned shape (3, 1, 6, 8) for v of shape (3, 2, 6, 8)"),
        (lambda q, k, v, p: list(v), "instead of a numpy array"),
        (lambda q, k, v, p: 1 / 0, "raised ZeroDivisionError"),
        (lambda q, k, v, p: v * np.nan, "288 of 288 components are not finite"),
    ],
)
def test_what_a_target_does_stays_in_the_report(function, says):
    report = check_linear_attention(function, SPEC, framework="numpy", dtypes=["float32"])
    assert not report.ok
    (form,) = [r for r in report.results if r.clause == "LATT-1"]
    assert says in form.message
    assert report.computes.numerator == "not known"


def test_consecutive_positions_leave_out_what_needs_others():
    """Told an offset, or nothing: what cannot be asked is not run, and no failure."""

    def implicit(q, k, v, _):
        return torch_cumulative_sum(q, k, v, torch.arange(q.shape[-2]))

    report = check_linear_attention(
        implicit, SPEC, framework="torch", positions="arange", dtypes=["float32"]
    )
    assert report.ok
    skipped = {r.clause: r.message for r in report.results if r.status == "skip"}
    assert skipped["LATT-5"] == "takes no two tokens at one position"
    assert skipped["LATT-6"] == skipped["LATT-13"] == "positions always start at 0"
    assert "features as declared" in str(report)


def test_a_target_may_refuse_tokens_at_one_position():
    def strict(q, k, v, positions):
        if (np.diff(positions) < 1).any():
            raise ValueError("positions must grow")
        return reference(q, k, v, positions)

    report = check_linear_attention(strict, SPEC, framework="numpy", dtypes=["float32", "bfloat16"])
    assert report.ok, str(report)
    statuses = {r.clause: r.status for r in report.results}
    assert (statuses["LATT-5"], statuses["LATT-15"]) == ("skip", "pass")


def test_a_spec_with_every_field():
    spec = rs.RotarySpec(
        head_dim=8,
        base=500.0,
        layout="half",
        output_layout="interleaved",
        rotary_dim=4,
        rotary_start=2,
        schedule=rs.Linear(factor=2),
        attention_factor=1.3,
        inverse=True,
    )

    def attend(q, k, v, positions):
        return rs.linear_attention(q, k, v, positions, spec, causal=True)

    report = check_linear_attention(attend, spec, framework="numpy", dtypes=["float32"])
    assert report.ok, str(report)
    assert report.computes.features == "elu+1"
    assert report.computes.denominator == "Σ φ(q)·φ(k)"


def test_declared_failures_are_no_failures():
    def rotated(q, k, v, positions):
        return rs.linear_attention(q, k, v, positions, SPEC, causal=True, denominator="rotated")

    known = {"LATT-8": "as kernels do", "LATT-4": "?"}
    report = check_linear_attention(
        rotated, SPEC, framework="numpy", quick=True, expected_failures=known
    )
    assert {r.clause for r in report.results if r.status == "xfail"} == {"LATT-8"}
    assert report.ok
    assert any("LATT-4 was declared to fail (?), and passes" in text for text in report.findings)


# What it reports ------------------------------------------------------------------------------


def test_the_report_says_what_is_computed():
    def unrotated(q, k, v, positions):
        return rs.linear_attention(q, k, v, positions * 0, SPEC, causal=True, eps=1e-5)

    report = check_linear_attention(unrotated, SPEC, framework="numpy", quick=True, eps=1e-5)
    told = json.loads(report.to_json())
    assert told["computes"] == {
        "features": "elu+1",
        "numerator": "φ(q)·φ(k), not rotated",
        "denominator": "Σ φ(q)·φ(k) + 1e-05",
        "sees": "causal",
    }
    assert "feature map elu+1, causal, eps 1e-05" in told["about"]
    assert "finding   computes: features elu+1; numerator φ(q)·φ(k), not rotated" in str(report)
