"""Multi-axis positions: who turns which pair, at what frequency, in which lanes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rotary_spec as rs
from tests import oracle
from tests.spaces import Space

SECTIONS = {
    "chunked": rs.Sections((2, 3, 3)),
    "interleaved": rs.Sections((4, 2, 2), order="interleaved"),
    "spatial_first": rs.Sections((2, 3, 3), order="spatial_first"),
    "restart": rs.Sections((2, 3, 3), frequencies="restart"),
    "strided": rs.Sections((4, 4), frequencies="strided"),
    "within": rs.Sections((2, 6), pairing="within", frequencies="restart"),
    "one": rs.Sections((8,)),
}
SPECS = {
    name: rs.RotarySpec(20, layout="half", rotary_dim=16, rotary_start=2, sections=sections)
    for name, sections in SECTIONS.items()
}
SPECS["interleaved-layout"] = replace(SPECS["chunked"], layout="interleaved")
SPECS["crossed"] = replace(SPECS["within"], output_layout="interleaved", inverse=True)
SPECS["scaled"] = replace(SPECS["interleaved"], schedule=rs.Linear(4), attention_factor=1.25)
PLACES = np.random.default_rng(5).integers(-(2**31), 2**31, size=(3, 6))
PLACES[:, :3] = [[0, 1, 7], [0, 2, 5], [0, 3, 131_072]]


@pytest.fixture(params=SPECS)
def spec(request: pytest.FixtureRequest) -> rs.RotarySpec:
    return SPECS[request.param]


def places(spec: rs.RotarySpec, positions: Any = PLACES) -> Any:
    assert spec.sections is not None
    return positions[: spec.sections.axes]


def features(*shape: int) -> Any:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def test_rotation_on_every_namespace(space: Space, spec: rs.RotarySpec) -> None:
    """Every token at its own place on every axis, up to the ends of 32 bits."""
    x, positions = features(2, 6, 20), places(spec)
    y = space.check(rs.rotate(space.asarray(x), space.ids(positions), spec), x.shape, "float32")
    exact = oracle.rotate(x, positions, spec)
    assert np.all(np.abs(y - exact) <= oracle.tolerance(x, positions, spec, "float32", "float32"))


def test_three_ways_to_write_it(spec: rs.RotarySpec) -> None:
    x, positions = features(6, 20).astype(np.float64), places(spec)
    y = rs.rotate(x, positions, spec)
    matrix = rs.rotation_matrix(positions, spec, dtype=np.float64)
    np.testing.assert_allclose(np.einsum("sij,sj->si", matrix, x), y, atol=1e-14)
    np.testing.assert_allclose(rs.rotate_complex(x, positions, spec), y, atol=1e-14)
    plain = replace(spec, attention_factor=None)
    back = rs.rotate(rs.rotate(x, positions, plain), positions, plain.transposed())
    np.testing.assert_allclose(back, x, atol=1e-14)


@given(
    row=st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3),
    dtype=st.sampled_from(["float32", "float64"]),
    name=st.sampled_from(sorted(SPECS)),
)
def test_coordinates_are_taken_exactly(row: list[float], dtype: str, name: str) -> None:
    """Fractions turn in float64: within 2^-53 turns of the exact angle, and cos' own rounding."""
    spec = SPECS[name]
    positions = places(spec, np.asarray(row, dtype=dtype)[:, None])
    got = rs.cos_sin(positions, spec, dtype=np.float64)
    bound = oracle.table_error(positions, spec, "float64")[:, None] + 4 * np.pi * 2.0**-53
    for values, exact in zip(got, oracle.cos_sin(positions, spec), strict=True):
        assert np.all(np.abs(values - exact) <= bound)


COORDINATES = np.asarray([[-1.0, -0.3, 0.0, 0.1, 0.875], [0.5, 1e-3, 700.25, 1e6, -1e6]])


def test_coordinates_on_every_namespace(space: Space) -> None:
    """Pixel centres in [-1, 1] times 2 pi and more: pairs that turn more than once per unit."""
    inv_freq = tuple(2 * np.pi * 100.0 ** -(np.arange(4) / 4)) * 2
    spec = rs.RotarySpec(16, schedule=rs.Explicit(inv_freq), sections=(4, 4))
    positions = COORDINATES.astype(np.float32)
    got = rs.cos_sin(space.asarray(positions), spec)
    # Without float64 a fraction is held to 2^-31, and turns a pair at most once per unit.
    turned = 2 * np.pi * (2.0**-53 if space.widest == "float64" else 2.0**-31)
    for values, exact in zip(got, oracle_explicit(positions, inv_freq), strict=True):
        assert np.all(np.abs(space.check(values, (5, 8), "float32") - exact) <= 2.0**-23 + turned)


def oracle_explicit(positions: Any, inv_freq: tuple[float, ...]) -> tuple[Any, Any]:
    import mpmath

    with mpmath.workdps(60):
        axis = [0] * 4 + [1] * 4
        angle = [
            [mpmath.mpf(float(m[axis[i]])) * theta for i, theta in enumerate(inv_freq)]
            for m in positions.T
        ]
        exact = [[[float(f(a)) for a in row] for row in angle] for f in (mpmath.cos, mpmath.sin)]
    return np.asarray(exact[0]), np.asarray(exact[1])


def test_text_is_rotated_as_ever() -> None:
    """M-RoPE with the same position on every axis is the plain embedding, bit for bit."""
    x = features(6, 16)
    for sections in (SECTIONS["chunked"], SECTIONS["interleaved"], SECTIONS["spatial_first"]):
        spec = rs.RotarySpec(16, layout="half", sections=sections)
        text = np.broadcast_to(np.arange(6), (3, 6))
        plain = rs.rotate(x, np.arange(6), replace(spec, sections=None))
        assert np.array_equal(rs.rotate(x, text, spec), plain)


@pytest.mark.parametrize(
    ("sections", "axes"),
    [
        (rs.Sections((2, 1)), (0, 0, 1)),
        # Qwen3-VL's [24, 20, 20], cut short: time fills what the others leave.
        (rs.Sections((4, 2, 2), order="interleaved"), (0, 1, 2, 0, 1, 2, 0, 0)),
        (rs.Sections((2, 2, 2), order="spatial_first"), (1, 2, 1, 2, 0, 0)),
    ],
)
def test_axis_of_every_pair(sections: rs.Sections, axes: tuple[int, ...]) -> None:
    assert sections.axis_of_pair() == axes


class TestValue:
    def test_a_plain_sequence_is_chunked(self) -> None:
        spec = rs.RotarySpec(16, layout="half", sections=[2, 3, 3])  # type: ignore[arg-type]
        assert spec.sections == SECTIONS["chunked"]
        assert repr(spec) == "RotarySpec(head_dim=16, layout='half', sections=Sections((2, 3, 3)))"

    def test_json(self, spec: rs.RotarySpec) -> None:
        assert rs.RotarySpec.from_json(spec.to_json()) == spec
        assert hash(rs.RotarySpec.from_json(spec.to_json())) == hash(spec)

    def test_pairs_of_neighbours_lie_within_their_axis_anyway(self) -> None:
        across = rs.RotarySpec(16, sections=(4, 4))
        assert rs.RotarySpec(16, sections=rs.Sections((4, 4), pairing="within")) == across

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: rs.RotarySpec(16, sections=(4, 3)), r"rotary_dim // 2 = 8.* 4 \+ 3 = 7"),
            (lambda: rs.Sections(()), "at least one pair"),
            (lambda: rs.Sections((4, 0)), "at least one pair"),
            (lambda: rs.Sections((4.0, 4)), "must hold integers"),
            (lambda: rs.Sections("44"), "sequence of pairs per axis, got '44'"),
            (lambda: rs.RotarySpec(16, sections=8), "sequence of pairs per axis, got 8"),
            (lambda: rs.Sections((4, 4), order="rowwise"), "order must be one of 'chunked'"),
            (lambda: rs.Sections((4, 4), frequencies="own"), "frequencies must be one of"),
            (lambda: rs.Sections((4, 4), pairing="half"), "pairing must be one of"),
            (lambda: rs.Sections((1, 4, 3), order="interleaved"), "do not hold sizes"),
            (lambda: rs.Sections((2, 4, 3), order="spatial_first"), "equal sizes for all axes but"),
            (lambda: rs.Sections((3, 5), frequencies="strided"), "'strided' need equal sizes"),
            (
                lambda: rs.Sections((2, 1, 1), order="interleaved", pairing="within"),
                "order must be 'chunked'",
            ),
            (
                lambda: rs.RotarySpec(
                    16,
                    schedule=rs.Explicit((1.0,) * 8),
                    sections=rs.Sections((4, 4), frequencies="restart"),
                ),
                "one number per pair, 4; got 8",
            ),
            (lambda: rs.Sections.from_dict({"size": [8]}), "unknown field 'size'"),
            (lambda: rs.Sections.from_dict({"order": "chunked"}), "sizes is missing"),
        ],
    )
    def test_contradictions(self, make: Any, said: str) -> None:
        with pytest.raises(rs.SpecError, match=said):
            make()


class TestPositions:
    @pytest.mark.parametrize(
        ("positions", "said"),
        [
            (np.arange(6), r"shape \(axes, ...\) with 3 axes.*got shape \(6,\).*Hint: text"),
            (np.zeros((2, 6), int), r"got shape \(2, 6\)"),
            (np.zeros((3, 5), int), r"after their 3 axes .*\(2, 6\); got shape \(3, 5\)"),
            (np.zeros((3, 6), np.float16), "integers or float32 or float64 coordinates, got fl"),
            (5, r"got shape \(\)"),
        ],
    )
    def test_refused(self, positions: Any, said: str) -> None:
        with pytest.raises(rs.PositionError, match=said):
            rs.rotate(features(2, 6, 20), positions, SPECS["chunked"])

    def test_ids_per_row(self) -> None:
        """(axes, batch, 1, seq) against (batch, heads, seq, head_dim)."""
        spec, x = SPECS["chunked"], features(2, 4, 6, 20)
        ids = np.random.default_rng(0).integers(0, 99, size=(3, 2, 1, 6))
        y = rs.rotate(x, ids, spec)
        for row in range(2):
            assert np.array_equal(y[row], rs.rotate(x[row], ids[:, row], spec))
        with pytest.raises(rs.PositionError, match=re.escape("positions[:, :, None, :]")):
            rs.rotate(x, ids[:, :, 0], spec)

    def test_token_positions_stay_integers(self) -> None:
        with pytest.raises(rs.PositionError, match="must be integers, got float64"):
            rs.rotate(features(6, 20), np.arange(6.0), rs.RotarySpec(20))


class TestFixedLength:
    """`RotarySpec.at`: the schedule of one length, for every length."""

    @pytest.mark.parametrize("length", [1, 2048, 2049, 4096, 100_000])
    def test_dynamic(self, length: int) -> None:
        spec = rs.RotarySpec(64, schedule=rs.DynamicNtk(2.5, 2048))
        np.testing.assert_allclose(
            rs.frequencies(spec.at(length)), rs.frequencies(spec, length), rtol=2e-15
        )
        assert spec.at(length).at(7) == spec.at(length)

    @pytest.mark.parametrize("length", [2047, 2048, 2049])
    def test_longrope(self, length: int) -> None:
        short, long = (1.0, 1.5), (2.0, 30.0)
        spec = rs.RotarySpec(4, schedule=rs.LongRope(short, long, 2048, factor=8))
        fixed = spec.at(length)
        for other in (None, 1, 10**6):
            assert rs.turns(fixed, other) == rs.turns(spec, length)
            assert rs.attention_factor(fixed, other) == rs.attention_factor(spec, length)

    def test_others_are_themselves(self) -> None:
        spec = rs.RotarySpec(4, schedule=rs.Linear(3))
        assert spec.at(10**6) == spec
