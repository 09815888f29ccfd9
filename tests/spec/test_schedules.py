"""Frequencies of every schedule, to the last bit, and the value semantics of `RotarySpec`."""

from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rotary_spec as rs
from tests import oracle
from tests.strategies import specs

LLAMA31 = rs.Llama3(8.0, 1.0, 4.0, 8192)


@pytest.mark.parametrize("dim", [2, 64, 80, 128])
@pytest.mark.parametrize("base", [10_000.0, 500_000.0, 1e6, 2.5])
@pytest.mark.parametrize(
    "schedule",
    [rs.Default(), rs.Linear(4), rs.Linear(2.7), LLAMA31, rs.Llama3(32.0, 1.0, 4.0, 8192)],
    ids=repr,
)
def test_frequencies_are_correctly_rounded(dim: int, base: float, schedule: rs.Schedule) -> None:
    """The float64 nearest to the formula, which the oracle evaluates with 70 digits."""
    spec = rs.RotarySpec(dim, base=base, schedule=schedule)
    got = rs.frequencies(spec)
    assert got.dtype == np.float64
    assert got.tolist() == [float(theta) for theta in oracle.thetas(spec)]


@given(specs())
def test_frequencies_of_any_spec(spec: rs.RotarySpec) -> None:
    assert rs.frequencies(spec).tolist() == [float(theta) for theta in oracle.thetas(spec)]


def test_rotary_dim_takes_the_place_of_head_dim() -> None:
    """A partial rotation has the frequencies of its own width, not of the head's."""
    partial = rs.RotarySpec(128, rotary_dim=32)
    assert rs.frequencies(partial).tolist() == rs.frequencies(rs.RotarySpec(32)).tolist()


def one_pair(turns: float, **kwargs: Any) -> float:
    """A Llama 3 frequency whose unscaled value is 1 rad and which turns so often in L positions."""
    length = 2 * np.pi * turns
    schedule = rs.Llama3(original_max_position_embeddings=length, **kwargs)
    return rs.frequencies(rs.RotarySpec(2, schedule=schedule)).item()


class TestLlama3:
    """Bands are told apart by how often a pair turns within the original length."""

    @pytest.mark.parametrize(
        ("turns", "expected"),
        [
            (0.5, 1 / 8),  # long wavelength: stretched
            (1 - 1e-12, 1 / 8),
            (1 + 1e-12, 1 / 8),  # the ramp starts where the band ends
            (2.5, (1 - 0.5) / 8 + 0.5),  # half-way up the ramp
            (4 - 1e-12, 1.0),
            (4 + 1e-12, 1.0),
            (9.0, 1.0),  # short wavelength: kept
        ],
    )
    def test_bands_meet(self, turns: float, expected: float) -> None:
        got = one_pair(turns, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
        # The ramp's slope is 7/24 per turn, so 1e-12 of a turn moves the result by less than that.
        assert abs(got - expected) <= 1e-12 + 2.0**-52

    @pytest.mark.parametrize(("turns", "expected"), [(1.999, 0.25), (2.001, 1.0)])
    def test_equal_factors_make_a_step(self, turns: float, expected: float) -> None:
        """low == high leaves no ramp to divide by."""
        got = one_pair(turns, factor=4.0, low_freq_factor=2.0, high_freq_factor=2.0)
        assert got == expected

    def test_factor_one_changes_nothing(self) -> None:
        spec = rs.RotarySpec(64, schedule=rs.Llama3(1.0, 1.0, 4.0, 8192))
        assert rs.frequencies(spec).tolist() == rs.frequencies(rs.RotarySpec(64)).tolist()

    def test_published_model(self) -> None:
        """Llama 3.1 8B: short wavelengths are kept, long ones stretched by 8, a ramp."""
        spec = rs.RotarySpec(128, layout="half", base=500_000.0, schedule=LLAMA31)
        ratio = rs.frequencies(replace(spec, schedule=rs.Default())) / rs.frequencies(spec)
        wavelengths = 2 * np.pi / rs.frequencies(replace(spec, schedule=rs.Default()))
        assert np.array_equal(ratio == 1.0, wavelengths < 8192 / 4)
        assert np.array_equal(np.isclose(ratio, 8.0, rtol=1e-15), wavelengths > 8192)
        assert np.all(np.diff(ratio) >= -1e-15)


class TestAttentionFactor:
    @pytest.mark.parametrize("schedule", [rs.Default(), rs.Linear(4.0), LLAMA31], ids=repr)
    def test_no_schedule_scales_by_itself(self, schedule: rs.Schedule) -> None:
        assert rs.attention_factor(rs.RotarySpec(8, schedule=schedule)) == 1.0

    def test_the_spec_overrides_its_schedule(self) -> None:
        assert rs.attention_factor(rs.RotarySpec(8, attention_factor=1.25)) == 1.25


class TestValue:
    """A spec is a value: equal, hashable, frozen, and the same after JSON, repr and pickle."""

    @given(specs())
    def test_round_trips(self, spec: rs.RotarySpec) -> None:
        for copy in (
            rs.RotarySpec.from_json(spec.to_json()),
            rs.RotarySpec.from_json(spec.to_json(indent=2)),
            rs.RotarySpec.from_dict(spec.to_dict()),
            eval(repr(spec), {name: getattr(rs, name) for name in rs.__all__}),
            pickle.loads(pickle.dumps(spec)),
        ):
            assert copy == spec
            assert hash(copy) == hash(spec)
            assert repr(copy) == repr(spec)

    def test_json_is_plain(self) -> None:
        """Every field by name, the schedule as Hugging Face writes it."""
        values = json.loads(rs.RotarySpec(8, layout="half", schedule=rs.Linear(4)).to_json())
        assert values == {
            "head_dim": 8,
            "base": 10_000.0,
            "layout": "half",
            "output_layout": None,
            "rotary_dim": 8,
            "rotary_start": 0,
            "schedule": {"rope_type": "linear", "factor": 4},
            "attention_factor": None,
            "inverse": False,
            "sections": None,
        }

    def test_defaults_are_the_papers(self) -> None:
        spec = rs.RotarySpec.from_dict({"head_dim": 8})
        assert spec == rs.RotarySpec(head_dim=8)
        assert (spec.base, spec.layout, spec.rotary_dim) == (10_000.0, "interleaved", 8)
        assert (spec.schedule, spec.pairs, spec.inverse) == (rs.Default(), 4, False)
        assert repr(spec) == "RotarySpec(head_dim=8)"

    def test_two_spellings_are_one_value(self) -> None:
        assert rs.RotarySpec(8, output_layout="interleaved") == rs.RotarySpec(8)
        assert rs.RotarySpec(8, rotary_dim=8) == rs.RotarySpec(8)
        assert rs.RotarySpec(8, base=10_000) == rs.RotarySpec(8)

    def test_numpy_scalars_become_python_numbers(self) -> None:
        """From an array or a config library, say; JSON would not take them."""
        spec = rs.RotarySpec(
            np.int64(8),
            base=np.float32(500_000.0),
            rotary_dim=np.int32(4),
            schedule=rs.Linear(np.float32(2.5)),
            attention_factor=np.float64(1.5),
        )
        plain = rs.RotarySpec(
            8, base=500_000.0, rotary_dim=4, schedule=rs.Linear(2.5), attention_factor=1.5
        )
        assert spec == plain
        assert spec.to_json() == plain.to_json()
        assert repr(spec) == repr(plain)

    def test_frozen(self) -> None:
        for value, name in ((rs.RotarySpec(8), "base"), (rs.Linear(4.0), "factor")):
            with pytest.raises(FrozenInstanceError):
                setattr(value, name, 2.0)

    def test_every_field_shows_in_repr_and_tells_specs_apart(self) -> None:
        changes = {
            "head_dim": 16,
            "base": 2.0,
            "layout": "half",
            "output_layout": "half",
            "rotary_dim": 4,
            "schedule": rs.Linear(4),
            "attention_factor": 2.0,
            "inverse": True,
            "sections": rs.Sections((2, 2)),
        }
        spec = rs.RotarySpec(8)
        for name, value in changes.items():
            changed = replace(rs.RotarySpec(8, rotary_dim=8), **{name: value})
            if name == "head_dim":
                changed = rs.RotarySpec(16)
            assert changed != spec
            assert f"{name}={value!r}" in repr(changed)
        moved = rs.RotarySpec(8, rotary_dim=4, rotary_start=2)
        assert "rotary_start=2" in repr(moved)
        assert {*changes, "rotary_start"} == {field.name for field in fields(rs.RotarySpec)}


def test_a_new_schedule_registers_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subclassing is all it takes: JSON finds it by its rope_type."""
    monkeypatch.setattr(rs.Schedule, "registry", dict(rs.Schedule.registry))

    @dataclass(frozen=True)
    class Halved(rs.Schedule):
        rope_type = "halved"

        def scale(self, theta: Any, seq_len: int | None) -> Any:
            return theta / 2

    spec = rs.RotarySpec(8, schedule=Halved())
    assert rs.RotarySpec.from_json(spec.to_json()) == spec
    assert rs.turns(spec) == rs.turns(rs.RotarySpec(8, schedule=rs.Linear(2)))


@given(st.floats(1.0, 1e3), st.integers(-(2**20), 2**20))
def test_linear_divides_positions(factor: float, m: int) -> None:
    """Libraries that divide the position by the factor describe the same angle."""
    spec = rs.RotarySpec(4, schedule=rs.Linear(factor))
    angle = m / factor * np.asarray([1.0, 0.01])
    cos, sin = rs.cos_sin(np.asarray(m), spec, dtype=np.float64)
    # m / factor, 0.01 and their product are each rounded here: 3 u of the angle.
    bound = oracle.table_error(m, spec, "float64") + 2.0**-53 * (3 * np.abs(angle) + 2)
    assert np.all(np.abs(cos - np.cos(angle)) <= bound)
    assert np.all(np.abs(sin - np.sin(angle)) <= bound)
