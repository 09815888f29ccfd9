"""identify() recovers every field of correct implementations, of many conventions.

Each specification is realised twice: with exact phases by the reference, and with float32 angles by
code written here that shares nothing with the library but the frequencies.
"""

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec.spec import LAYOUTS
from rotary_spec_backends import select
from rotary_spec_conformance import identify

S = rs.RotarySpec
LLAMA3 = rs.Llama3(8, 1, 4, 8192)

SPECS = [
    *(S(d, base=b, layout=o) for d in (16, 64, 128) for b in (1e4, 5e5) for o in LAYOUTS),
    S(128, base=1_000_000, layout="half"),
    S(128, base=150_000, layout="half"),
    S(64, base=30_000),
    S(2),
    S(4, layout="half"),
    S(256, base=10_000_000, layout="half", rotary_dim=64),
    S(128, rotary_dim=32),
    S(128, layout="half", rotary_dim=32, rotary_start=96),
    S(128, rotary_dim=64, rotary_start=32),
    S(64, output_layout="half"),
    S(64, layout="half", output_layout="interleaved"),
    S(64, inverse=True),
    S(64, layout="half", inverse=True),
    S(64, attention_factor=1.25),
    S(64, layout="half", attention_factor=0.8),
    S(128, schedule=rs.Linear(4)),
    S(128, base=1e6, layout="half", schedule=rs.Linear(2.5)),
    S(8, layout="half", schedule=rs.Linear(2)),
    S(128, base=5e5, layout="half", schedule=LLAMA3),
    S(64, base=5e5, layout="half", schedule=rs.Llama3(32, 1, 4, 8192)),
    S(128, layout="half", schedule=rs.Yarn(8, 4096)),
    S(128, base=1e6, layout="half", schedule=rs.Yarn(4, 32768)),
    S(64, base=1.5e5, layout="half", schedule=rs.Yarn(32, 4096, truncate=False)),
    S(128, schedule=rs.Ntk(4)),
    S(128, layout="half", schedule=rs.Ntk(8)),
    S(128, base=1e6, layout="half", schedule=rs.Proportional(0.25)),
    S(64, layout="half", schedule=rs.Proportional(0.5, 8)),
]  # fmt: skip


def float32_code(spec):
    """What a port would write: float32 positions times float32 frequencies."""
    inv_freq = rs.frequencies(spec).astype(np.float32)
    magnitude = np.float32(rs.attention_factor(spec))
    stop = spec.rotary_start + spec.rotary_dim

    def members(x, layout):
        lanes = x[..., spec.rotary_start : stop]
        if layout == "half":
            return lanes[..., : spec.pairs], lanes[..., spec.pairs :]
        return lanes[..., ::2], lanes[..., 1::2]

    def rope(x, positions):
        angle = positions.astype(np.float32)[:, None] * inv_freq
        cos, sin = (magnitude * f(angle) for f in (np.cos, np.sin))
        cos, sin = cos.astype(x.dtype), (-sin if spec.inverse else sin).astype(x.dtype)
        a, b = members(x, spec.layout)
        y = x.copy()
        to_a, to_b = members(y, spec.output_layout or spec.layout)
        new_a, new_b = a * cos - b * sin, b * cos + a * sin
        to_a[...], to_b[...] = new_a, new_b
        return y

    return rope


def assert_frequencies(found, spec, relative):
    """Those that turn, against the exact ones."""
    exact = rs.frequencies(spec)
    np.testing.assert_allclose(found.frequencies, exact[: len(found.frequencies)], rtol=relative)
    assert not exact[len(found.frequencies) :].any()


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_exact_phases(spec):
    found = identify(lambda x, ids: rs.rotate(x, ids, spec), spec.head_dim, framework="numpy")
    assert found.spec == spec, found
    assert found.precision == "exact"
    assert found.trusted_to == 2**31 - 1
    assert found.findings == []
    assert_frequencies(found, spec, 1e-9)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_float32_angles(spec):
    found = identify(float32_code(spec), spec.head_dim, framework="numpy")
    assert found.spec == spec, found
    assert_frequencies(found, spec, 1e-6)
    if spec.rotary_dim > 2:  # with one pair, of 1 radian, products with the position are exact
        assert found.precision == "float32"


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize(
    "spec", [S(128, base=5e5, layout="half", schedule=LLAMA3), S(64, rotary_dim=32)], ids=repr
)
def test_other_frameworks(name, spec):
    backend = select(name)
    found = identify(lambda x, ids: backend.rotate(x, ids, spec), spec.head_dim, framework=name)
    assert found.spec == spec, found
    assert_frequencies(found, spec, 1e-9)


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        (S(64, layout="half", schedule=rs.DynamicNtk(4, 4096)), S(64, layout="half")),
        (
            S(64, layout="half", schedule=rs.Yarn(8, 4096, attention_factor=1.0)),
            S(64, layout="half", schedule=rs.Yarn(8, 4096), attention_factor=1.0),
        ),
    ],
    ids=["dynamic within its length", "yarn without its magnitude"],
)
def test_two_descriptions_of_one_rotation(spec, same):
    found = identify(lambda x, ids: rs.rotate(x, ids, spec), 64, framework="numpy")
    assert found.spec == same


def test_another_base_and_an_ntk_factor_are_both_named():
    spec = S(128, schedule=rs.Ntk(4))
    found = identify(lambda x, ids: rs.rotate(x, ids, spec), 128, framework="numpy")
    assert found.spec == spec
    assert [type(other.schedule) for other in found.alternatives] == [rs.Default]
    assert found.alternatives[0].base == pytest.approx(10_000 * 4 ** (128 / 126), rel=1e-6)


def test_lists_of_the_same_frequencies_become_explicit():
    factors = tuple(1 + 0.02 * i for i in range(48))
    spec = S(96, layout="half", schedule=rs.LongRope(factors, factors, 4096, factor=32))
    found = identify(lambda x, ids: rs.rotate(x, ids, spec), 96, framework="numpy")
    assert isinstance(found.spec.schedule, rs.Explicit)
    assert found.base is None
    assert found.attention_factor == pytest.approx(rs.attention_factor(spec), rel=1e-6)
    assert_frequencies(found, spec, 1e-9)


def test_any_permutation_of_lanes_is_recovered():
    spec, lanes = S(32, layout="half"), np.random.default_rng(0).permutation(32)
    back = np.argsort(lanes)

    def rope(x, ids):
        return rs.rotate(np.ascontiguousarray(x[..., lanes]), ids, spec)[..., back]

    found = identify(rope, 32, framework="numpy")
    assert found.layout == "permuted"
    assert found.permutation == tuple(lanes)
    assert found.spec == spec


def test_scattered_lanes():
    """Every other pair of the half layout turns; the others pass through."""
    spec = S(16, layout="half")
    turning = np.tile(np.arange(8) % 2 == 0, 2)

    def rope(x, ids):
        return np.where(turning, rs.rotate(x, ids, spec), x)

    found = identify(rope, 16, framework="numpy")
    assert found.is_rotary
    assert found.rotated == tuple(np.flatnonzero(turning))
    np.testing.assert_allclose(found.frequencies, rs.frequencies(spec)[::2], rtol=1e-9)


def test_recurrences_within_their_bound():
    """theta *= r in float32 loses up to 2i roundings; the base is still the paper's."""
    ratio = np.float32(10_000.0 ** (-2 / 64))

    def rope(x, ids):
        angle = np.empty((len(ids), 32), np.float32)
        angle[:, 0] = ids
        for i in range(1, 32):
            angle[:, i] = angle[:, i - 1] * ratio
        a, b = x[..., :32], x[..., 32:]
        cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    found = identify(rope, 64, framework="numpy")
    assert found.closest == S(64, layout="half")
    assert_frequencies(found, found.closest, 3e-6)
