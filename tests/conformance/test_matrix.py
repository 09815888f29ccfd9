"""Every schedule, layout and order of axes together: each conforms, and is identified as itself.

NumPy runs the whole product. What differs between frameworks is the arithmetic, one function of
the turns and the lanes of the pairs, so PyTorch runs every schedule with every order of axes, and
JAX, which compiles each spec anew, every one of them once. Identification reads results on the
host; it is the same for every framework.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec import Sections
from rotary_spec_conformance import check, identify
from tests.conformance.own_targets import backend_target, jax_by_rows

DIM = 48
PAIRS = DIM // 2

LONGROPE = rs.LongRope(
    [1 + i / 50 for i in range(PAIRS)], [1 + i / 2 for i in range(PAIRS)], 4096, factor=32
)
# With the length of the sequence, for those that depend on it.
SCHEDULES = {
    "default": (rs.Default(), None),
    "linear": (rs.Linear(4), None),
    "ntk": (rs.Ntk(4), None),
    "dynamic below M": (rs.DynamicNtk(4, 4096), 100),
    "dynamic above M": (rs.DynamicNtk(4, 4096), 8192),
    "yarn": (rs.Yarn(8, 4096), None),
    "yarn not truncated": (rs.Yarn(8, 4096, truncate=False), None),
    "yarn with mscale": (rs.Yarn(40, 4096, mscale=1.0, mscale_all_dim=0.707), None),
    "longrope short": (LONGROPE, 4096),
    "longrope long": (LONGROPE, 4097),
    "llama3": (rs.Llama3(8, 1, 4, 8192), None),
    "proportional": (rs.Proportional(0.75, 8), None),
    "explicit": (rs.Explicit([1.5 / (1 + i) ** 2 for i in range(PAIRS)]), None),
}
LAYOUTS = {
    "interleaved": ("interleaved", None),
    "half": ("half", None),
    "interleaved to half": ("interleaved", "half"),
}
AXES = {
    "one": None,
    "chunked": Sections((6, 9, 9)),
    "interleaved": Sections((10, 7, 7), "interleaved"),
    "spatial first": Sections((6, 9, 9), "spatial_first"),
    "restart": Sections((9, 15), frequencies="restart"),
    "strided": Sections((12, 12), frequencies="strided"),
    "within": Sections((15, 9), frequencies="restart", pairing="within"),
}
LISTS = ("longrope short", "longrope long", "explicit")
"""Schedules with a number for each pair. An index that starts anew for each axis, or strides, has
no use for them: the numbers can be listed as the pairs take them."""

ANOTHER_SPELLING = ("yarn with mscale", *LISTS)
"""The same rotation can be said in other parameters."""


def meaningful(schedule: str, axes: str) -> bool:
    sections = AXES[axes]
    return schedule not in LISTS or sections is None or sections.frequencies == "shared"


CASES = [case for case in product(SCHEDULES, LAYOUTS, AXES) if meaningful(case[0], case[2])]


def covering() -> list[tuple[str, str, str]]:
    """Every schedule with every axes, the layouts taking turns."""
    layouts = list(LAYOUTS)
    return [
        (schedule, layouts[(i + j) % len(layouts)], axes)
        for i, schedule in enumerate(SCHEDULES)
        for j, axes in enumerate(AXES)
        if meaningful(schedule, axes)
    ]


def each() -> list[tuple[str, str, str]]:
    """Every schedule once, axes and layouts taking turns."""
    found = []
    for i, schedule in enumerate(SCHEDULES):
        rows = [case for case in covering() if case[0] == schedule]
        found.append(rows[i % len(rows)])
    return found


def spec_of(
    schedule: str, layout: str, axes: str, *, partial: bool = False
) -> tuple[rs.RotarySpec, int | None]:
    taken, given = LAYOUTS[layout]
    chosen, seq_len = SCHEDULES[schedule]
    spec = rs.RotarySpec(
        DIM + 8 * partial,
        base=500_000.0 if schedule == "llama3" else 10_000.0,
        layout=taken,  # type: ignore[arg-type]
        output_layout=given,  # type: ignore[arg-type]
        rotary_dim=DIM,
        rotary_start=4 * partial,
        schedule=chosen,
        sections=AXES[axes],
    )
    return spec, seq_len


def fixed(spec: rs.RotarySpec, seq_len: int | None) -> rs.RotarySpec:
    return spec if seq_len is None else spec.at(seq_len)


def assert_same_rotation(found: rs.RotarySpec, expected: rs.RotarySpec) -> None:
    assert found.sections == expected.sections
    assert (found.layout, found.output_layout) == (expected.layout, expected.output_layout)
    np.testing.assert_allclose(rs.frequencies(found), rs.frequencies(expected), rtol=1e-9)
    factor = rs.attention_factor(expected)
    assert rs.attention_factor(found) == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize(("schedule", "layout", "axes"), CASES)
def test_numpy_conforms_and_is_identified_as_itself(schedule, layout, axes):
    """Identification ends with the quick checks against what it found."""
    spec, seq_len = spec_of(schedule, layout, axes)
    expected, target = fixed(spec, seq_len), backend_target("numpy", spec, seq_len=seq_len)
    if schedule == "proportional" and (axes != "one" or layout != "half"):
        # Pairs that stand still have no axis, no partner and, interleaved, no part in the width.
        report = check(target, expected, quick=True)
        assert report.ok, str(report)
        return
    found = identify(target)
    assert found.spec is not None, found
    assert found.findings == []
    assert (found.precision, found.trusted_to) == ("exact", 2**31 - 1)
    assert_same_rotation(found.spec, expected)
    assert found.spec == expected or schedule in ANOTHER_SPELLING


@pytest.mark.parametrize(("schedule", "layout", "axes"), covering())
def test_torch_conforms(schedule, layout, axes):
    spec, seq_len = spec_of(schedule, layout, axes, partial=True)
    target = backend_target("torch", spec, seq_len=seq_len)
    report = check(target, fixed(spec, seq_len), quick=True)
    assert report.ok, str(report)
    assert {grade.precision for grade in report.grades} == {"exact"}


@pytest.mark.parametrize(("schedule", "layout", "axes"), each())
def test_jax_conforms(schedule, layout, axes):
    pytest.importorskip("jax")
    spec, seq_len = spec_of(schedule, layout, axes, partial=True)
    report = check(jax_by_rows(spec, seq_len), fixed(spec, seq_len), quick=True)
    assert report.ok, str(report)
    assert {grade.precision for grade in report.grades} == {"exact"}


def test_the_parts_hold_every_value():
    for part in (covering(), each()):
        for position, values in enumerate((SCHEDULES, LAYOUTS, AXES)):
            assert {case[position] for case in part} == set(values)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_numpy_conforms_in_every_dtype(layout, axes):
    spec, _ = spec_of("yarn", layout, axes, partial=True)
    report = check(backend_target("numpy", spec), spec)
    assert report.ok, str(report)
    assert not [result for result in report.results if result.status == "note"]


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_identified_in_other_frameworks(name):
    spec, _ = spec_of("llama3", "half", "interleaved", partial=True)
    target = jax_by_rows(spec) if name == "jax" else backend_target(name, spec)
    assert identify(target).spec == spec


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_coordinates(name):
    """DINOv3's: 2 pi times coordinates in [-1, 1], so that integers are whole turns of pair 0."""
    turns = [2 * np.pi / 100 ** (j / 8) for j in range(8)]
    spec = rs.RotarySpec(32, layout="half", sections=(8, 8), schedule=rs.Explicit(turns * 2))
    target = backend_target(name, spec, coordinates=True)
    report = check(target, spec)
    assert report.ok, str(report)
    assert "AXIS-3" in {result.clause for result in report.results if result.status == "pass"}
    found = identify(target)
    assert found.spec is not None, found
    assert_same_rotation(found.spec, spec)
