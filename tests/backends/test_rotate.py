"""Native `rotate` and `rotate_back` of every backend, for every dtype, against the paper.

The arithmetic is float32 (float64 for float64), so that an element is off by at most 4 u (|a| +
|b|), u = 2^-24, and half an ulp of the output dtype: see ``oracle.tolerance``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import Backend, for_array
from tests import oracle

SPECS = {
    "paper": rs.RotarySpec(8),
    "half": rs.RotarySpec(8, layout="half", base=5e5),
    "partial-last": rs.RotarySpec(8, layout="half", rotary_dim=4, rotary_start=4),
    "partial-middle-crossed": rs.RotarySpec(8, output_layout="half", rotary_dim=4, rotary_start=1),
    "inverse-scaled": rs.RotarySpec(8, inverse=True, attention_factor=1.3),
}
# At most 2^17: in float64 the phase's own error grows with the position.
POSITIONS = np.asarray([0, 1, 2, 131_071, -5])
DTYPES = ("float64", "float32", "float16", "bfloat16")


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest, backend: Backend) -> str:
    supported = backend.framework.supported_dtypes()
    if request.param not in supported:
        pytest.skip(f"{backend.name} has {', '.join(supported)} here, not {request.param}")
    return request.param


def features(backend: Backend, dtype: str, shape: tuple[int, ...], seed: int = 0) -> Any:
    return backend.framework.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def ids(backend: Backend, positions: Any = POSITIONS) -> Any:
    return backend.framework.asarray(np.asarray(positions), "int64")


def assert_rotated(backend: Backend, y: Any, x: Any, positions: Any, spec: rs.RotarySpec) -> None:
    """``y`` is a rotation of ``x``: of its kind, shape, dtype and device, and within the bound."""
    framework = backend.framework
    dtype = framework.dtype_of(x)
    assert backend.accepts(y)
    assert tuple(y.shape) == tuple(x.shape)
    assert framework.dtype_of(y) == dtype
    assert getattr(y, "device", None) == getattr(x, "device", None)
    host = framework.to_numpy(x)
    exact = oracle.rotate(host, positions, spec)
    arithmetic = "float64" if dtype == "float64" else "float32"
    bound = oracle.tolerance(host, positions, spec, arithmetic, dtype)
    assert np.all(np.abs(framework.to_numpy(y) - exact) <= bound)


def check_both_ways(backend: Backend, dtype: str, spec: rs.RotarySpec) -> None:
    x = features(backend, dtype, (2, 3, 5, 8))
    before = backend.framework.to_numpy(x).copy()
    assert_rotated(backend, backend.rotate(x, ids(backend), spec), x, POSITIONS, spec)
    back = backend.rotate_back(x, ids(backend), spec)
    assert_rotated(backend, back, x, POSITIONS, spec.transposed())
    assert np.array_equal(backend.framework.to_numpy(x), before)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_specs(backend: Backend, spec: rs.RotarySpec) -> None:
    check_both_ways(backend, "float32", spec)


@pytest.mark.parametrize("spec", ["partial-middle-crossed", "inverse-scaled"])
def test_dtypes(backend: Backend, dtype: str, spec: str) -> None:
    check_both_ways(backend, dtype, SPECS[spec])


def test_far_positions(backend: Backend) -> None:
    """Float32 results are as good at 2^31 as at 0."""
    spec, far = SPECS["half"], np.asarray([2**31 - 1, -(2**31), 2**24 + 1, 2**30 + 7])
    x = features(backend, "float32", (3, 4, 8))
    assert_rotated(backend, backend.rotate(x, ids(backend, far), spec), x, far, spec)


@pytest.mark.parametrize("container", [tuple, list])
def test_queries_and_keys_together(backend: Backend, dtype: str, container: Any) -> None:
    """Each with its own heads, batch and dtype, and the same positions."""
    spec = SPECS["partial-last"]
    q = features(backend, dtype, (2, 8, 5, 8))
    k = features(backend, "float32", (2, 2, 5, 8), seed=1)
    rotated = backend.rotate(container([q, k]), ids(backend), spec)
    assert isinstance(rotated, tuple)
    for y, x in zip(rotated, (q, k), strict=True):
        assert_rotated(backend, y, x, POSITIONS, spec)
    alone = backend.rotate((q,), ids(backend), spec)
    assert isinstance(alone, tuple)
    assert len(alone) == 1
    back = backend.rotate_back((q, k), ids(backend), spec)
    for y, x in zip(back, (q, k), strict=True):
        assert_rotated(backend, y, x, POSITIONS, spec.transposed())


def test_rotate_back_is_the_gradient(backend: Backend, dtype: str) -> None:
    """Where the framework differentiates: of sum(rotate(x) * seed) with respect to x."""
    if not backend.framework.differentiable:
        pytest.skip(f"{backend.name} does not differentiate; see test_rotate_back_is_the_adjoint")
    spec = SPECS["partial-middle-crossed"]
    x, seed = (features(backend, dtype, (3, 5, 8), seed=s) for s in (0, 1))
    gradient = backend.framework.gradient(lambda x: backend.rotate(x, ids(backend), spec), x, seed)
    assert_rotated(backend, gradient, seed, POSITIONS, spec.transposed())


def test_rotate_back_is_the_adjoint(backend: Backend) -> None:
    """<A R x, g> = <x, A R^T g>, which needs no automatic differentiation."""
    spec = SPECS["inverse-scaled"]
    x, g = (features(backend, "float32", (3, 5, 8), seed=s) for s in (0, 1))
    y, back = backend.rotate(x, ids(backend), spec), backend.rotate_back(g, ids(backend), spec)
    x, g, y, back = map(backend.framework.to_numpy, (x, g, y, back))
    errors = [oracle.tolerance(v, POSITIONS, spec, "float32", "float32") for v in (x, g)]
    bound = np.sum(errors[0] * np.abs(g)) + np.sum(errors[1] * np.abs(x))
    assert abs(np.sum(y * g) - np.sum(x * back)) <= bound


def test_strided_memory(backend: Backend, dtype: str) -> None:
    spec = SPECS["partial-middle-crossed"]
    x = features(backend, dtype, (2, 3, 5, 8))
    strided = backend.framework.strided(x)
    if strided is None:
        pytest.skip(f"{backend.name} arrays have no strides")
    assert_rotated(backend, backend.rotate(strided, ids(backend), spec), x, POSITIONS, spec)


@pytest.mark.parametrize("seq_axis", [1, -3, 2, -2])
def test_seq_axis(backend: Backend, seq_axis: int) -> None:
    """(batch, seq, heads, head_dim) and (batch, heads, seq, head_dim)."""
    spec = SPECS["partial-last"]
    shape = (2, 5, 3, 8) if seq_axis in (1, -3) else (2, 3, 5, 8)
    x = features(backend, "float32", shape)
    host = np.moveaxis(backend.framework.to_numpy(x), seq_axis, -2)
    bound = oracle.tolerance(host, POSITIONS, spec, "float32", "float32")
    for rotate, meant in ((backend.rotate, spec), (backend.rotate_back, spec.transposed())):
        y = rotate(x, ids(backend), spec, seq_axis=seq_axis)
        assert tuple(y.shape) == shape
        moved = np.moveaxis(backend.framework.to_numpy(y), seq_axis, -2)
        assert np.all(np.abs(moved - oracle.rotate(host, POSITIONS, meant)) <= bound)


@pytest.mark.parametrize(
    ("shape", "id_shape"),
    [((8,), ()), ((1, 8), (1,)), ((5, 8), ()), ((0, 8), (0,)), ((2, 0, 3, 8), (3,)), ((0, 8), ())],
    ids=str,
)
def test_small_and_empty_shapes(
    backend: Backend, shape: tuple[int, ...], id_shape: tuple[int, ...]
) -> None:
    positions = np.full(id_shape, 7)
    for spec in (SPECS["paper"], SPECS["partial-last"]):
        x = features(backend, "float32", shape)
        y = backend.rotate(x, ids(backend, positions), spec)
        assert_rotated(backend, y, x, positions, spec)


@pytest.mark.parametrize(
    "positions",
    [3, [0, 1, 2, 3, 4], range(5), np.arange(5), np.arange(5, dtype=np.uint8), np.int32(3)],
    ids=repr,
)
def test_host_positions(backend: Backend, positions: Any) -> None:
    """Python integers, NumPy arrays and NumPy scalars are taken by every backend."""
    x = features(backend, "float32", (2, 5, 8))
    y = backend.rotate(x, positions, SPECS["paper"])
    assert_rotated(backend, y, x, np.asarray(positions), SPECS["paper"])


def test_ids_per_row(backend: Backend) -> None:
    rows = np.asarray([[0, 1, 2, 3, 4], [7, 8, 9, 0, 1]])[:, None, :]
    x = features(backend, "float32", (2, 3, 5, 8))
    for positions in (rows, ids(backend, rows)):
        y = backend.rotate(x, positions, SPECS["half"])
        assert_rotated(backend, y, x, rows, SPECS["half"])


def test_ids_beyond_32_bits(backend: Backend) -> None:
    """Where there is no int64 they are refused; elsewhere they are positions like any other."""
    x = features(backend, "float32", (2, 8))
    for far in (np.asarray([0, 2**31]), [0, 2**31], np.asarray([0, -(2**31) - 1])):
        if backend.name == "jax" and "float64" not in backend.framework.supported_dtypes():
            with pytest.raises(rs.PositionError, match=r"-2\*\*31 .. 2\*\*31 - 1"):
                backend.rotate(x, far, SPECS["paper"])
        else:
            y = backend.rotate(x, far, SPECS["paper"])
            assert_rotated(backend, y, x, np.asarray(far), SPECS["paper"])


def test_jax_unsigned_ids() -> None:
    """A uint32 id from 2^31 on is not a negative one, though it has the bits of one."""
    jnp = pytest.importorskip("jax.numpy")
    x, far = jnp.ones((1, 8), jnp.float32), [2**32 - 1]
    y = for_array(x).rotate(x, jnp.asarray(far, jnp.uint32), SPECS["paper"])
    assert_rotated(for_array(x), y, x, np.asarray(far), SPECS["paper"])


class Foreign:
    """An array of a framework that nobody knows."""

    shape, dtype = (5, 8), "float32"


@pytest.mark.parametrize("given", [[0.0] * 8, 1.0, None, Foreign()], ids=lambda x: type(x).__name__)
def test_foreign_features(backend: Backend, given: Any) -> None:
    if isinstance(given, list):
        given = (given,)  # a list is a list of arrays; its items are not arrays
    kind = type(given[0] if isinstance(given, tuple) else given).__name__
    with pytest.raises(rs.DtypeError, match=rf"'{backend.name}' takes .* got \w+\S*\.{kind}$"):
        backend.rotate(given, ids(backend), SPECS["paper"])


def test_nothing_to_rotate(backend: Backend) -> None:
    with pytest.raises(rs.DtypeError, match=r"non-empty tuple of arrays, got \(\)"):
        backend.rotate((), ids(backend), SPECS["paper"])


def test_other_frameworks(backend: Backend) -> None:
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    everyone = {"numpy": np.ones((5, 8)), "torch": torch.ones(5, 8), "jax": jnp.ones((5, 8))}
    everyones_ids = {"torch": torch.arange(5), "jax": jnp.arange(5)}
    x = features(backend, "float32", (5, 8))
    for name, theirs in everyone.items():
        if name != backend.framework.name:
            with pytest.raises(rs.DtypeError, match=f"'{backend.name}' takes {backend.name} arr"):
                backend.rotate(theirs, ids(backend), SPECS["paper"])
            with pytest.raises(rs.DtypeError, match=f"takes {backend.name} arr"):
                backend.rotate((x, theirs), ids(backend), SPECS["paper"])
    for name, theirs in everyones_ids.items():
        if name != backend.framework.name:
            with pytest.raises(rs.DtypeError, match=f"'{backend.name}' takes .* positions"):
                backend.rotate(x, theirs, SPECS["paper"])


@pytest.mark.parametrize(
    ("shape", "positions", "keywords", "error", "said"),
    [
        ((5, 6), np.arange(5), {}, rs.ShapeError, "head_dim = 8"),
        ((5, 8), np.arange(4), {}, rs.PositionError, r"\(5,\); got shape \(4,\)"),
        ((5, 8), np.arange(5) * 1.0, {}, rs.PositionError, "must be integers, got float64"),
        ((5, 8), np.arange(5), {"seq_axis": -1}, rs.ShapeError, "seq_axis"),
        ((2, 3, 5, 8), np.zeros((2, 5), int), {}, rs.PositionError, r"Hint: .*\[:, None, :\]"),
        ((5, 8), [0.0], {}, rs.DtypeError, r"got \[0\.0\]"),
    ],
    ids=["head_dim", "length", "float ids", "seq_axis", "(batch, seq) ids", "list of floats"],
)
def test_bad_calls(
    backend: Backend, shape: Any, positions: Any, keywords: Any, error: Any, said: str
) -> None:
    """The same checks as the reference's, in every framework."""
    x = features(backend, "float32", shape)
    with pytest.raises(error, match=said):
        backend.rotate(x, positions, SPECS["paper"], **keywords)


@pytest.mark.parametrize(
    ("shape", "error", "said"),
    [((5, 6), rs.ShapeError, "head_dim = 8"), ((4, 8), rs.PositionError, r"\(4,\); got .*\(5,\)")],
    ids=["head_dim", "length"],
)
def test_second_array_is_looked_at_too(backend: Backend, shape: Any, error: Any, said: str) -> None:
    good, bad = (features(backend, "float32", s) for s in ((5, 8), shape))
    with pytest.raises(error, match=said):
        backend.rotate((good, bad), np.arange(5), SPECS["paper"])


def test_pass_through_lanes_are_bits(backend: Backend, dtype: str) -> None:
    """NaN, -0.0, infinities and subnormals come out as they went in, beside rotated lanes."""
    spec = SPECS["partial-last"]
    odd = [-0.0, np.inf, np.nan, float(oracle.SMALLEST_NORMAL[dtype]) / 2]
    x = backend.framework.asarray(np.asarray([odd + [1.0] * 4] * 5), dtype)
    y = backend.rotate(x, ids(backend), spec)
    before, after = (backend.framework.to_numpy(v)[:, :4] for v in (x, y))
    assert np.array_equal(before, after, equal_nan=True)
    assert np.array_equal(np.signbit(before[:, :2]), np.signbit(after[:, :2]))


def test_seq_len_reaches_the_schedule(backend: Backend) -> None:
    class Stretching(rs.Schedule):
        def scale(self, theta: Any, seq_len: int | None) -> Any:
            return theta / (seq_len or 1)

    spec = rs.RotarySpec(8, schedule=Stretching())
    linear = rs.RotarySpec(8, schedule=rs.Linear(2))
    x = features(backend, "float32", (5, 8))
    y = backend.rotate(x, ids(backend), spec, seq_len=2)
    assert_rotated(backend, y, x, POSITIONS, linear)
    back = backend.rotate_back(x, ids(backend), spec, seq_len=2)
    assert_rotated(backend, back, x, POSITIONS, linear.transposed())


def test_cupy_without_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the CUDA kernel does not take is done by CuPy's array operations, which are NumPy's."""
    from rotary_spec_backends.kernels import cupy_rotation
    from tests.backends.cuda_on_host import CudaOnHost

    monkeypatch.setattr(cupy_rotation, "rotate_into", lambda *_: "not today")
    backend = CudaOnHost()
    x = features(backend, "float32", (2, 5, 8))
    for spec in SPECS.values():
        assert_rotated(backend, backend.rotate(x, POSITIONS, spec), x, POSITIONS, spec)
