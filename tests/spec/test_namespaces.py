"""One definition serves every array namespace: the same numbers, and the caller's own arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from tests import oracle
from tests.spaces import Space

# One head_dim: JAX compiles every operation anew for every shape.
SPECS = {
    "paper": rs.RotarySpec(8),
    "half": rs.RotarySpec(8, layout="half", base=5e5),
    "partial-last": rs.RotarySpec(8, rotary_dim=4, rotary_start=4),
    "partial-middle": rs.RotarySpec(8, layout="half", rotary_dim=4, rotary_start=3),
    "interleaved-to-half": rs.RotarySpec(8, output_layout="half"),
    "half-to-interleaved": rs.RotarySpec(8, layout="half", output_layout="interleaved"),
    "inverse-scaled": rs.RotarySpec(8, inverse=True, attention_factor=1.3),
    "linear": rs.RotarySpec(8, schedule=rs.Linear(4.0)),
    # Wavelengths 6, 167, 4443 and 118144: one pair is kept, one between, one stretched.
    "llama3": rs.RotarySpec(8, base=5e5, schedule=rs.Llama3(8.0, 1.0, 4.0, 8192)),
}
# A prefix, a jump, and one before the start: at most 2^17, so that float64 phases stay sharp.
POSITIONS = np.asarray([0, 1, 2, 131_071, -5])


@pytest.fixture(params=SPECS.values(), ids=SPECS.keys())
def spec(request: pytest.FixtureRequest) -> rs.RotarySpec:
    return request.param


def features(spec: rs.RotarySpec, dtype: str, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, 3, len(POSITIONS), spec.head_dim)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("rotate", [rs.rotate, rs.rotate_complex], ids=["rotate", "complex"])
def test_rotate(space: Space, spec: rs.RotarySpec, rotate: Any, dtype: str) -> None:
    if not space.has(dtype):
        pytest.skip(f"{space.name} has no {dtype}")
    if dtype == "float16" and space.name == "array_api_strict":
        pytest.skip("the standard has no float16")
    host = features(spec, dtype)
    x, positions = space.asarray(host), space.ids(POSITIONS)
    y = space.check(rotate(x, positions, spec), host.shape, dtype)
    allowed = oracle.tolerance(host, POSITIONS, spec, space.widest, dtype)
    error = np.abs(y.astype(np.float64) - oracle.rotate(host, POSITIONS, spec))
    assert np.all(error <= allowed)
    assert np.array_equal(space.to_numpy(x), host)  # the caller's array is left alone
    assert np.array_equal(space.to_numpy(positions), POSITIONS)


@pytest.mark.parametrize("dtype", [None, "float64", "float32"])
def test_cos_sin(space: Space, spec: rs.RotarySpec, dtype: str | None) -> None:
    if dtype is not None and not space.has(dtype):
        pytest.skip(f"{space.name} has no {dtype}")
    target = None if dtype is None else getattr(space.xp, dtype)
    table = rs.cos_sin(space.ids(POSITIONS), spec, dtype=target)
    bound = oracle.table_error(POSITIONS, spec, space.widest)[:, None] + 1e-15
    for got, exact in zip(table, oracle.cos_sin(POSITIONS, spec)):
        host = space.check(got, exact.shape, dtype or "float32")
        rounding = 0.0 if space.widest == (dtype or "float32") else 2.0**-24 * np.abs(exact)
        assert np.all(np.abs(host - exact) <= bound + rounding)


def test_rotation_matrix(space: Space, spec: rs.RotarySpec) -> None:
    dtype = getattr(space.xp, space.widest)
    matrix = rs.rotation_matrix(space.ids(POSITIONS), spec, dtype=dtype)
    host = space.check(matrix, (len(POSITIONS), spec.head_dim, spec.head_dim), space.widest)
    exact = oracle.rotation_matrix(POSITIONS, spec)
    bound = oracle.table_error(POSITIONS, spec, space.widest)[:, None, None] + 1e-15
    assert np.all(np.abs(host - exact) <= np.where(np.abs(exact) % 1.0 == 0, 0.0, bound))


@pytest.mark.parametrize("positions", [3, [0, 1, 2, 3, 4], range(5), (4, 3, 2, 1, 0)], ids=repr)
def test_python_positions(space: Space, positions: Any) -> None:
    """Python integers become ids of the namespace and of the device of x."""
    spec = SPECS["paper"]
    x = space.asarray(features(spec, "float32"))
    given = rs.rotate(x, positions, spec)
    as_array = rs.rotate(x, space.ids(positions), spec)
    assert np.array_equal(space.to_numpy(given), space.to_numpy(as_array))


def test_strict_namespace_without_extensions() -> None:
    """The reference needs none of the standard's optional parts."""
    strict = pytest.importorskip("array_api_strict")
    with strict.ArrayAPIStrictFlags(
        boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
    ):
        x = strict.asarray(features(SPECS["paper"], "float64"))
        for rotate in (rs.rotate, rs.rotate_complex):
            assert rotate(x, strict.asarray(POSITIONS), SPECS["paper"]).shape == x.shape


def test_device_of_the_input_is_kept() -> None:
    """Nothing is made on the default device: a second device shows it, without a GPU."""
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    spec = SPECS["partial-middle"]
    x = strict.asarray(features(spec, "float64"), device=device)
    positions = strict.asarray(POSITIONS, device=device)
    for y in (
        rs.rotate(x, positions, spec),
        rs.rotate(x, range(5), spec),
        rs.rotate_complex(x, positions, spec),
        rs.rotation_matrix(positions, spec),
        *rs.cos_sin(positions, spec),
        *rs.phases(positions, rs.turns(spec), strict),
    ):
        assert y.device == device


def test_bfloat16() -> None:
    """Torch's and JAX's bfloat16; the standard has none, so it stands apart."""
    torch = pytest.importorskip("torch")
    spec = SPECS["partial-last"]
    x = torch.from_numpy(features(spec, "float32")).bfloat16()
    y = rs.rotate(x, torch.from_numpy(POSITIONS), spec)
    assert y.dtype == torch.bfloat16
    host = x.double().numpy()
    error = np.abs(y.double().numpy() - oracle.rotate(host, POSITIONS, spec))
    assert np.all(error <= oracle.tolerance(host, POSITIONS, spec, "float64", "bfloat16"))
