"""What a target is called with, and which positions it is asked about."""

from __future__ import annotations

import math

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_conformance import Target
from rotary_spec_conformance.context import rungs, worst
from rotary_spec_conformance.inference import framework_named
from rotary_spec_conformance.probe import Probe
from rotary_spec_conformance.registry import NotRun, Outcome

SPEC = rs.RotarySpec(head_dim=8)


class Recorder:
    """Rotates rightly, and keeps what it was called with."""

    def __init__(self, positions):
        self.kind, self.calls = positions, []

    def __call__(self, x, given):
        self.calls.append((x, given))
        rows = np.arange(x.shape[2])
        ids = {"explicit": lambda: given, "offset": lambda: given + rows, "arange": lambda: rows}
        return rs.rotate(x, ids[self.kind](), SPEC)


def probe_and_calls(positions):
    recorder = Recorder(positions)
    target = Target("t", lambda: recorder, framework_named("numpy"), 8, positions=positions)
    return Probe(target, "float32"), recorder.calls


@pytest.mark.parametrize("positions", ["explicit", "offset", "arange"])
def test_every_kind_of_position_gives_the_same_rows(positions):
    probe, _ = probe_and_calls(positions)
    ids = np.asarray([7, 0, 1, 2, 40, 3])
    x = np.random.default_rng(0).standard_normal((2, 3, len(ids), 8)).astype(np.float32)
    np.testing.assert_allclose(probe(x, ids), rs.rotate(x, ids, SPEC), atol=1e-6)
    vectors = np.eye(8)[:3]
    expected = rs.rotate(vectors[:, None].repeat(len(ids), 1), ids, SPEC)
    np.testing.assert_allclose(probe.responses(vectors, ids), expected, atol=1e-6)


def test_offsets_are_runs_of_consecutive_positions():
    probe, calls = probe_and_calls("offset")
    probe(np.ones((1, 1, 6, 8)), [5, 6, 7, 1, 2, 9])
    assert [(x.shape[2], offset) for x, offset in calls] == [(3, 5), (2, 1), (1, 9)]


def test_arange_is_one_sequence_up_to_the_largest_position():
    probe, calls = probe_and_calls("arange")
    probe(np.ones((1, 1, 2, 8)), [3, 9])
    ((x, given),) = calls
    assert given is None
    assert x.shape == (1, 1, 10, 8)


@pytest.mark.parametrize("positions", ["explicit", "offset", "arange"])
def test_targets_get_contiguous_input(positions):
    """Strides are the business of PURE-2 alone: no other clause may fail by them."""
    probe, calls = probe_and_calls(positions)
    x = np.ones((2, 3, 8, 6)).swapaxes(-1, -2)
    probe(x, np.arange(6))
    probe(x[:, :, ::2], np.asarray([0, 2, 4]))
    probe(x[:, :, [4, 0, 1]], np.asarray([4, 0, 1]))
    assert all(given.flags.c_contiguous for given, _ in calls)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    ("served", "limit"), [(8, 8), (9, 2**12), (1000, 1000), (4096, 4096), (2**17, 2**31)]
)
def test_rungs_hold_the_positions_where_tables_and_dtypes_end(served, limit, quick):
    climbed = list(rungs(served, limit, quick))
    positions = set(np.concatenate(climbed).tolist())
    assert len({len(rung) for rung in climbed}) == 1  # one shape, compiled once
    assert all(rung[-1] == rung.max() for rung in climbed)
    assert min(positions) == 0
    assert {served - 1, limit - 1} <= positions
    assert max(positions) == limit - 1
    for power in (2**k for k in range(5, 31) if 2**k + 1 < served or served < 2**k < limit - 1):
        assert {power - 2, power - 1, power, power + 1} <= positions
    # No rung mixes positions that must be right with others: one of these may raise.
    assert all(rung[-1] < served or rung[0] >= served - 2 for rung in climbed)


@pytest.mark.parametrize(
    ("deviation", "tolerance", "at"),
    [
        ([0.1, 0.3, 0.2], 1.0, 1),
        ([0.1, 0.3, 0.2], [0.1, 1.0, 1.0], 0),  # in units of the tolerance
        ([0.1, math.nan, 5.0], 1.0, 1),  # NaN is worse than anything
        ([0.0, 0.0, 1e-9], [1.0, 0.0, 0.0], 2),  # nothing is allowed
        ([-2.0, 1.0, 0.0], 1.0, 0),
    ],
)
def test_worst_is_the_entry_that_uses_most_of_its_tolerance(deviation, tolerance, at):
    outcome = worst(np.asarray(deviation), tolerance, "abs", lambda i: {"lane": i[0]})
    assert outcome.where == {"lane": at}
    np.testing.assert_equal(outcome.deviation, abs(deviation[at]))


def test_worst_of_nothing_is_not_a_pass():
    with pytest.raises(NotRun):
        worst(np.zeros((0, 3)), 1.0, "abs")


@pytest.mark.parametrize(("deviation", "holds"), [(1.0, True), (1.1, False), (math.nan, False)])
def test_outcome_holds_up_to_its_tolerance(deviation, holds):
    assert Outcome(deviation, 1.0).holds is holds
