"""identify() of what is not clean, or not rotary at all: it says so, and by how much."""

import json
import math

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_conformance import Target, identify
from rotary_spec_conformance.inference import framework_named

SPEC = rs.RotarySpec(head_dim=32, layout="half")


def rope(x, positions):
    return rs.rotate(x, positions, SPEC)


def normalised(x, positions):
    return rope(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6), positions)


GENERATOR = np.random.default_rng(0)


def noisy(x, positions):
    return rope(x, positions) + GENERATOR.standard_normal(x.shape).astype(x.dtype) * 1e-2


def growing(x, positions):
    """xPos: the magnitude of each pair depends on the position."""
    scale = 1.01 ** positions[:, None]
    return (rope(x, positions) * scale).astype(x.dtype)


def sheared(x, positions):
    """Cosines tiled for one layout, sines for the other: neither orthogonal nor relative."""
    cos, sin = rs.cos_sin(positions, SPEC)
    cos, sin = np.concatenate([cos, cos], -1), np.repeat(sin, 2, -1)
    a, b = np.split(x, 2, -1)
    return (x * cos + np.concatenate([-b, a], -1) * sin).astype(x.dtype)


def mixed(x, positions):
    mixer = np.linalg.qr(np.random.default_rng(0).standard_normal((32, 32)))[0]
    return (rope(x, positions) @ mixer).astype(x.dtype)


@pytest.mark.parametrize(
    ("implementation", "words"),
    [
        (lambda x, positions: x.copy(), "ignored"),
        (lambda x, positions: 2 * x, "ignored"),
        (normalised, "linearity"),
        (noisy, "determinism"),
        (growing, "xPos"),
        (sheared, "norm"),
        (mixed, "pairs"),
        (lambda x, positions: x * np.nan, "differ"),
        (lambda x, positions: None, "NoneType"),
    ],
)
def test_not_rotary(implementation, words):
    found = identify(implementation, 32, framework="numpy")
    assert not found.is_rotary
    assert found.spec is None
    assert words in found.reason
    assert words in str(found)


@pytest.mark.parametrize(
    ("implementation", "words"),
    [
        (lambda x, positions: rope(x, positions + 1), "as if it were position 1"),
        (lambda x, positions: rope(x, positions.astype(np.float16).astype(int)), "PREC"),
        (lambda x, positions: rope(x, positions * (len(positions) < 5)), "position"),
    ],
    ids=["counted from 1", "positions in float16", "long calls ignored"],
)
def test_findings(implementation, words):
    found = identify(implementation, 32, framework="numpy")
    assert found.spec is None
    assert words in " ".join([*found.findings, found.reason])


def test_frequencies_that_depend_on_the_length_of_the_call():
    def dynamic(x, positions):
        length = int(positions.max()) + 1
        spec = rs.RotarySpec(32, layout="half", schedule=rs.DynamicNtk(4, 2048))
        return rs.rotate(x, positions, spec, seq_len=length)

    found = identify(dynamic, 32, framework="numpy")
    assert any("length of the call" in finding for finding in found.findings)
    assert found.closest == SPEC
    assert found.spec is None


def test_frequencies_that_remember_earlier_calls():
    class Remembers:
        """The base of the longest call stays."""

        longest = 0

        def __call__(self, x, positions):
            self.longest = max(self.longest, int(positions.max()) + 1)
            spec = rs.RotarySpec(32, layout="half", schedule=rs.DynamicNtk(4, 2048))
            return rs.rotate(x, positions, spec, seq_len=self.longest)

    found = identify(Remembers, 32, framework="numpy", factory=True)
    assert any("earlier calls" in finding for finding in found.findings)


def test_a_target_that_ends_early_is_identified_in_part():
    def short(x, positions):
        if positions.max() >= 100:
            raise IndexError("position 100 is out of range")
        return rope(x, positions)

    found = identify(short, 32, framework="numpy")
    assert found.is_rotary
    assert found.closest == SPEC
    assert any("out of range" in finding for finding in found.findings)


def test_lanes_that_pass_through_scaled():
    spec = rs.RotarySpec(32, layout="half", rotary_dim=16)
    found = identify(
        lambda x, positions: rs.rotate(x, positions, spec) * x.dtype.type(1.5),
        32,
        framework="numpy",
    )
    assert any("do not turn are multiplied by 1.5" in finding for finding in found.findings)
    assert found.attention_factor == 1.5
    assert found.spec is None


def test_a_noisy_target_of_one_dtype():
    numpy = framework_named("numpy")
    target = Target("noisy", lambda: noisy, numpy, 32, dtypes=("float32",), fresh=False)
    assert identify(target).reason.startswith("determinism")


def test_json():
    found = identify(rope, 32, framework="numpy")
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert rs.RotarySpec.from_dict(values["spec"]) == SPEC
    assert math.isclose(values["frequencies"][0], 1.0)


def test_head_dim_is_needed():
    with pytest.raises(TargetError, match="head_dim"):
        identify(rope)
