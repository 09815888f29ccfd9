"""Positions on several axes: declared, passed, checked, identified and compared."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import rotary_spec as rs
from rotary_spec import Sections, TargetError
from rotary_spec.cli import app
from rotary_spec_conformance import Target, adapt, check, compare, identify
from rotary_spec_conformance.axis_orders import axis_orders
from rotary_spec_conformance.inference import framework_named
from rotary_spec_conformance.probe import Probe
from tests.conformance import zoo_axes
from tests.conformance.own_targets import backend_target
from tests.conformance.zoo_axes import CHUNKED, RIGHT, VISION

AXIAL = zoo_axes.BROKEN


def of(spec):
    return lambda x, positions: rs.rotate(x, positions, spec)


def right_target(name: str) -> Target:
    right = RIGHT[name]
    return adapt(right.implementation, spec=right.spec, **right.options)


@pytest.mark.parametrize("name", RIGHT)
def test_right_ones_conform(name):
    target = right_target(name)
    report = check(target, RIGHT[name].spec, dtypes=target.supported_dtypes())
    assert report.ok, str(report)
    ran = {result.clause for result in report.results if result.status == "pass"}
    assert {"AXIS-1", "AXIS-2"} <= ran or target.given_tables
    assert ("AXIS-3" in ran) == target.coordinates


@pytest.mark.parametrize("name", RIGHT)
def test_right_ones_are_identified(name):
    found, expected = identify(right_target(name)), RIGHT[name].spec
    assert found.spec is not None, found
    assert found.spec.sections == expected.sections
    assert (found.spec.layout, found.spec.base) == (expected.layout, expected.base)
    np.testing.assert_allclose(rs.frequencies(found.spec), rs.frequencies(expected), rtol=1e-6)


@pytest.mark.parametrize("name", AXIAL)
def test_broken_ones_are_identified_as_something_else(name):
    found = identify(AXIAL[name].target)
    assert found.spec != AXIAL[name].spec, found
    assert found.spec is not None or found.findings


UNUSUAL = [
    rs.RotarySpec(16, sections=(8,)),
    rs.RotarySpec(32, layout="half", sections=(1, 5, 4, 2, 4)),
    rs.RotarySpec(4, sections=(1, 1)),
    rs.RotarySpec(
        32,
        layout="half",
        inverse=True,
        attention_factor=1.3,
        sections=Sections((8, 8), "interleaved"),
    ),
    rs.RotarySpec(
        32,
        layout="half",
        output_layout="interleaved",
        inverse=True,
        sections=Sections((6, 10), pairing="within"),
    ),
]


@pytest.mark.parametrize("spec", UNUSUAL, ids=repr)
def test_unusual_sections(spec):
    target = backend_target("numpy", spec)
    assert identify(target).spec == spec
    report = check(replace(target, max_position=8), spec, quick=True)
    assert report.ok, str(report)


# The target's side ----------------------------------------------------------------------------


def recorded(**declared):
    calls = []

    def rotate(x, positions):
        calls.append(positions)
        return x

    declared = {"framework": framework_named("numpy"), "head_dim": 8, **declared}
    return Target("recorded", build=lambda: rotate, **declared), calls


def test_text_stands_at_the_same_place_on_every_axis():
    target, calls = recorded(axes=3, row_positions=True)
    probe = Probe(target, "float32")
    probe(np.ones((2, 1, 4, 8)), [3, 1, 4, 1])
    probe(np.ones((2, 1, 2, 8)), [[3, 1], [4, 1]])
    probe.responses(np.eye(8)[:2], [5, 6])
    shapes = [(3, 4), (3, 2, 2), (3, 4)]
    assert [call.shape for call in calls] == shapes
    assert all((call == call[0]).all() and call.flags.writeable for call in calls)
    assert [call.dtype for call in calls] == [np.int64] * 3
    assert calls[2][0].tolist() == [5, 6, 5, 6]


def test_axes_stand_where_they_are_told():
    target, calls = recorded(axes=2, coordinates=True)
    places = [[0.5, -1.0, 3.0], [7.0, 0.25, 1.0]]
    Probe(target, "float32")(np.ones((1, 1, 3, 8)), places, axial=True)
    assert calls[0].tolist() == places
    assert calls[0].dtype == np.float32


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"axes": 0}, "axes must be a positive integer"),
        ({"axes": True}, "axes must be a positive integer"),
        ({"axes": 2, "positions": "offset"}, "axes need explicit positions"),
        ({"coordinates": True}, "coordinates need axes"),
    ],
)
def test_what_a_target_cannot_declare(declared, words):
    with pytest.raises(TargetError, match=words):
        recorded(**declared)


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        (CHUNKED, {"axes": 2}, "axes is 2, the spec has sections for 3"),
        (rs.RotarySpec(24), {"axes": 2, "shape": "x-cos-sin"}, "give a spec with sections"),
        (CHUNKED, {"axis_order": "middle"}, "axis_order must be 'first' or 'last'"),
    ],
)
def test_what_cannot_be_adapted(spec, options, words):
    with pytest.raises(TargetError, match=words):
        adapt(of(CHUNKED), spec=spec, framework="numpy", **options)


@pytest.mark.parametrize(("axes", "spec"), [(3, rs.RotarySpec(24)), (None, CHUNKED), (2, CHUNKED)])
def test_axes_and_sections_belong_together(axes, spec):
    target, _ = recorded(axes=axes, head_dim=24)
    with pytest.raises(TargetError, match="axes and sections belong together"):
        check(target, spec)


# Orders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["chunked", "interleaved", "spatial_first"])
@pytest.mark.parametrize("sizes", [(3, 3), (2, 2, 2), (4, 2, 2), (3, 2, 2, 2)])
def test_orders_are_named_whatever_axis_plays_which_part(sizes, order):
    sections = Sections(sizes, order)
    axes = len(sizes)
    plain = next(axis_orders(sections.axis_of_pair(), axes))
    assert plain.sections == sections
    assert plain.in_order
    moved = [(axis + 1) % axes for axis in sections.axis_of_pair()]
    found = [one for one in axis_orders(moved, axes) if one.sections.order == order]
    assert sections in [one.sections for one in found]
    for one in found:
        played = [one.roles[axis] for axis in one.sections.axis_of_pair()]
        assert played == moved


@pytest.mark.parametrize("axis_of_pair", [(0, 0, 1, 0), (0, 0, 0), (0, 2, 2, 0, 1, 1, 2)])
def test_what_has_no_order(axis_of_pair):
    assert list(axis_orders(axis_of_pair, 3)) == []


# identify and compare -------------------------------------------------------------------------


def test_scattered_axes_are_a_finding():
    turning = rs.frequencies(rs.RotarySpec(16, layout="half"))
    axis = np.asarray([0, 0, 1, 0, 1, 1, 0, 1])

    def rope(x, positions):
        angle = positions[axis].T * turning
        a, b = x[..., :8].astype(float), x[..., 8:].astype(float)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)

    found = identify(rope, 16, axes=2, framework="numpy")
    assert found.spec is None
    assert found.closest == rs.RotarySpec(16, layout="half")
    assert found.axis_of_pair == tuple(axis)
    assert "axis 0 turns pairs 0, 1, 3, 6, axis 1 turns pairs 2, 4, 5, 7" in found.findings[0]
    assert found.precision == "exact"
    assert json.loads(json.dumps(found.to_dict()))["axis_of_pair"] == axis.tolist()


def test_a_target_for_text_alone():
    def rope(x, positions):
        if (positions != positions[0]).any():
            raise ValueError("text only")
        return rs.rotate(x, positions[0], rs.RotarySpec(16))

    found = identify(rope, 16, axes=2, framework="numpy")
    assert found.spec is None
    assert "text only" in found.findings[0]


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (CHUNKED, CHUNKED, "equal"),
        (VISION, rs.RotarySpec(24, sections=VISION.sections), "equal after a permutation"),
        (VISION, zoo_axes.WITHIN, "different"),
        (VISION, rs.RotarySpec(24, layout="half", sections=Sections(
            (6, 6), "interleaved", "restart")), "equal after a permutation"),
        (CHUNKED, rs.RotarySpec(24, layout="half", sections=(5, 4, 3)), "different"),
    ],
)  # fmt: skip
def test_compare(a, b, verdict):
    found = compare(backend_target("numpy", a), backend_target("numpy", b))
    assert found.verdict == verdict, found
    if found.permutation is not None:
        x = np.random.default_rng(0).standard_normal((4, 24))
        ids = np.asarray([[1, 50, 3, 9], [8, 2, 700, 4]])
        lanes, outputs = list(found.permutation), list(found.output_permutation)
        np.testing.assert_allclose(
            rs.rotate(x[:, lanes], ids, b), rs.rotate(x, ids, a)[:, outputs], atol=1e-9
        )


def test_compare_needs_as_many_axes():
    with pytest.raises(TargetError, match="axes differ"):
        compare(backend_target("numpy", CHUNKED), backend_target("numpy", VISION))


# The command line -----------------------------------------------------------------------------

VISION_FILE = """
import numpy as np

def rope(x: np.ndarray, positions: np.ndarray):
    theta = 10_000.0 ** (-np.arange(4) / 4)
    angle = (positions[..., None] * theta).reshape(len(positions), 8)
    a, b = x[..., :8].astype(np.float64), x[..., 8:].astype(np.float64)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)
"""


@pytest.fixture
def vision(tmp_path):
    (tmp_path / "vision.py").write_text(VISION_FILE, encoding="utf-8")
    return f"{tmp_path}/vision.py:rope"


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(("frequencies", "code"), [("restart", 0), ("shared", 1)])
def test_check_command(vision, frequencies, code):
    result = run(
        "check", vision, "--head-dim", "16", "--layout", "half", "--sections", "4,4",
        "--section-frequencies", frequencies, "--axis-order", "last", "--quick",
    )  # fmt: skip
    assert result.exit_code == code, result.output
    assert ("frequencies are restart between the axes" in " ".join(result.output.split())) == code


def test_identify_command(vision):
    result = run(
        "identify", vision, "--head-dim", "16", "--axes", "2", "--axis-order", "last",
        "--coordinates", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    spec = rs.RotarySpec.from_dict(json.loads(result.output)["spec"])
    assert spec == rs.RotarySpec(
        16, layout="half", sections=Sections((4, 4), frequencies="restart")
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--section-order", "interleaved"], "needs --sections"),
        (["--sections", "4;4"], "must be pairs per axis"),
        (["--sections", "4,5"], "must sum to rotary_dim // 2 = 8"),
        (["--sections", "4,4", "--section-order", "random"], "order must be one of"),
    ],
)
def test_bad_sections(vision, options, words):
    result = run("check", vision, "--head-dim", "16", *options)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
