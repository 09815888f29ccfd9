"""Small calls on the CPU: a call like an earlier one goes by its plan, and no other does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import Backend, select
from rotary_spec_backends.host import small, threads
from rotary_spec_backends.host.route import ENVIRONMENT
from tests.backends.test_rotate import assert_rotated, features

pytest.importorskip("numba")

SPEC = rs.RotarySpec(16, layout="half", rotary_dim=12)
SPECS = {
    "half": SPEC,
    "interleaved": replace(SPEC, layout="interleaved"),
    "crossed": replace(SPEC, output_layout="interleaved"),
    "inverse-scaled": replace(SPEC, inverse=True, attention_factor=1.25),
    "other-base": replace(SPEC, base=500_000.0),
}


@pytest.fixture(params=["numpy", "torch"])
def planning(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    pytest.importorskip(request.param)
    monkeypatch.setenv(ENVIRONMENT, "1")
    return select(request.param, device="cpu")


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """How many calls found a plan since it was asked last; there is none at first."""
    plans: list[Any] = []
    find = small.find
    monkeypatch.setattr(small, "_plans", {})
    monkeypatch.setattr(small, "find", lambda signature: plans.append(find(signature)) or plans[-1])

    def count() -> int:
        found = sum(plan is not None for plan in plans)
        plans.clear()
        return found

    return count


def ids(planning: Backend, values: Any, dtype: str = "int64") -> Any:
    return planning.framework.asarray(np.asarray(values), dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_other_values(
    planning: Backend, planned: Callable[[], int], dtype: str, spec: rs.RotarySpec
) -> None:
    """Features and positions are this call's, far away and below zero too; each result its own."""
    results = []
    for seed, start in enumerate((0, 77, 2**31 + 5, -9)):
        q = features(planning, dtype, (2, 4, 3, 16), seed=seed)
        k = features(planning, dtype, (2, 1, 3, 16), seed=seed + 10)
        positions = np.arange(3) + start
        rotated = planning.rotate((q, k), ids(planning, positions), spec)
        assert isinstance(rotated, tuple)
        for x, y in zip((q, k), rotated):
            assert_rotated(planning, y, x, positions, spec)
        results.append((planning.framework.to_numpy(rotated[0]).copy(), rotated[0]))
    assert planned() == 3
    for before, now in results:
        assert np.array_equal(before, planning.framework.to_numpy(now))


def test_the_same_bits(planning: Backend, planned: Callable[[], int]) -> None:
    x = features(planning, "float32", (2, 4, 3, 16))
    first, second = (planning.rotate(x, ids(planning, [5, 1, 9]), SPEC) for _ in range(2))
    assert planned() == 1
    host = planning.framework.to_numpy
    assert host(first).tobytes() == host(second).tobytes()
    assert not np.shares_memory(host(first), host(second))


def test_every_difference_is_seen(planning: Backend, planned: Callable[[], int]) -> None:
    """A call that differs in one thing that a plan depends on is no call like it."""
    host = planning.framework.to_numpy
    whole = features(planning, "float32", (4, 4, 4, 32))
    x, places = whole[..., :16], ids(planning, np.arange(4))
    calls = {
        "first": (x, places, SPEC, -2),
        "spec": (x, places, SPECS["other-base"], -2),
        "axis": (x, places, SPEC, -3),
        "strides": (features(planning, "float32", (4, 4, 4, 16)), places, SPEC, -2),
        "dtype": (features(planning, "bfloat16", (4, 4, 4, 16)), places, SPEC, -2),
        "position shape": (x, ids(planning, np.arange(16).reshape(4, 1, 4)), SPEC, -2),
        "position dtype": (x, ids(planning, np.arange(4), "int32"), SPEC, -2),
        "position strides": (x, ids(planning, np.arange(8))[::2], SPEC, -2),
        "shape": (x[:3], places, SPEC, -2),
        "several": ((x, x[:, :2]), places, SPEC, -2),
        "axis from the front": (x, places, SPEC, 2),
    }
    first = {name: planning.rotate(*call[:3], seq_axis=call[3]) for name, call in calls.items()}
    assert planned() == 1  # axis 2 is axis -2
    for name, (x, positions, spec, axis) in calls.items():
        again = planning.rotate(x, positions, spec, seq_axis=axis)
        for got, wanted in zip(
            *(y if isinstance(y, tuple) else (y,) for y in (again, first[name]))
        ):
            assert np.array_equal(host(got), host(wanted)), name
    assert planned() == len(calls) - 2  # int32 and strided positions are converted, call by call


def test_seq_len_is_part_of_a_call(planning: Backend, planned: Callable[[], int]) -> None:
    spec = rs.RotarySpec(16, schedule=rs.DynamicNtk(2.0, 8))
    x, positions = features(planning, "float32", (1, 1, 4, 16)), np.arange(4)
    for seq_len in (4, 64, 4, 64):
        rotated = planning.rotate(x, ids(planning, positions), spec, seq_len=seq_len)
        plain = planning.rotate(
            x, ids(planning, positions.astype("i4"), "int32"), spec, seq_len=seq_len
        )
        host = planning.framework.to_numpy
        assert np.array_equal(host(rotated), host(plain))
    assert planned() == 2


def test_given_memory(planning: Backend, planned: Callable[[], int]) -> None:
    """In place and elsewhere, again and again, at whatever addresses."""
    host, positions = planning.framework.to_numpy, ids(planning, [7, 0, 3])
    q, k = (features(planning, "float32", (2, n, 3, 16), seed=n) for n in (4, 1))
    wanted = [host(y).copy() for y in planning.rotate((q, k), positions, SPEC)]
    memory = features(planning, "float32", (9, 3, 16))
    for first in (0, 1):
        outs = (
            memory[first : first + 8].reshape(2, 4, 3, 16),
            features(planning, "float32", k.shape),
        )
        assert planning.rotate((q, k), positions, SPEC, out=outs)[0] is outs[0]
        for y, value in zip(outs, wanted):
            assert np.array_equal(host(y), value)
    assert planned() == 1
    for seed in (1, 2, 3):
        x = features(planning, "float32", (2, 4, 3, 16), seed=seed)
        before = host(x).copy()
        assert planning.rotate(x, positions, SPEC, out=x) is x
        assert_rotated(planning, x, planning.framework.asarray(before, "float32"), [7, 0, 3], SPEC)
    assert planned() == 2


def test_memory_that_must_not_be_given(planning: Backend, planned: Callable[[], int]) -> None:
    """What only addresses tell is looked at in every call."""
    positions = ids(planning, [7, 0, 3])
    memory = features(planning, "float32", (6, 3, 16))
    for _ in range(2):
        planning.rotate(memory[:2], positions, SPEC, out=memory[2:4])
        with pytest.raises(rs.ShapeError, match="shares memory with x"):
            planning.rotate(memory[:2], positions, SPEC, out=memory[1:3])
        pair = memory[:1], memory[1:2]
        planning.rotate(pair, positions, SPEC, out=(memory[2:3], memory[3:4]))
        with pytest.raises(rs.ShapeError, match="with each other"):
            planning.rotate(pair, positions, SPEC, out=(memory[2:3], memory[2:3]))
        with pytest.raises(rs.ShapeError, match="shares memory with x"):
            planning.rotate(pair, positions, SPEC, out=(memory[1:2], memory[4:5]))
        planning.rotate(pair, positions, SPEC, out=pair)
    assert planned() == 3 + 6  # all but the first of each kind, and then looked at
    frozen = np.zeros((2, 3, 16), np.float32)
    frozen.flags.writeable = False
    if planning.name == "numpy":
        with pytest.raises(rs.DtypeError, match="read-only"):
            planning.rotate(memory[:2], positions, SPEC, out=frozen)


def test_bad_calls_after_good_ones(planning: Backend, planned: Callable[[], int]) -> None:
    """What is refused at first is refused later on."""
    x, positions = features(planning, "float32", (2, 4, 3, 16)), ids(planning, [0, 1, 2])
    for _ in range(2):
        planning.rotate(x, positions, SPEC)
        with pytest.raises(rs.PositionError, match="broadcast"):
            planning.rotate(x, ids(planning, [0, 1]), SPEC)
        with pytest.raises(rs.PositionError, match="integers"):
            planning.rotate(x, ids(planning, [0, 1, 2], "float32"), SPEC)
        with pytest.raises(rs.ShapeError, match="head_dim"):
            planning.rotate(x[..., :8], positions, SPEC)
        with pytest.raises(rs.ShapeError, match="seq_axis"):
            planning.rotate(x, positions, SPEC, seq_axis=-1)
        with pytest.raises(rs.DtypeError, match="RotarySpec"):
            planning.rotate(x, positions, {})  # type: ignore[arg-type]
        with pytest.raises(rs.DtypeError, match="array"):
            planning.rotate([[1.0] * 16], positions, SPEC)
    assert planned() == 1


def test_only_small_calls(
    planning: Backend, planned: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not large ones nor float64, and none while Numba is switched off."""
    positions = ids(planning, np.arange(8))
    x = features(planning, "float32", (1, 1, 8, 16))
    for _ in range(2):
        planning.rotate(features(planning, "float64", (1, 1, 8, 16)), positions, SPEC)
        planning.rotate(features(planning, "float32", (64, 64, 8, 16)), positions, SPEC)
    assert planned() == 0
    for _ in range(2):
        planning.rotate(x, positions, SPEC)
    assert planned() == 1
    monkeypatch.setenv(ENVIRONMENT, "0")
    planning.rotate(x, positions, SPEC)
    monkeypatch.setenv(ENVIRONMENT, "1")
    monkeypatch.setattr(threads, "WORTHWHILE", 0)
    planning.rotate(x, positions, SPEC)
    assert planned() == 0


def test_the_oldest_plans_go(
    planning: Backend, planned: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "_MANY", 3)
    positions = ids(planning, [0])
    for length in (1, 2, 3, 4):
        planning.rotate(features(planning, "float32", (length, 1, 16)), positions, SPEC)
    assert len(small._plans) == 3
    planning.rotate(features(planning, "float32", (4, 1, 16)), positions, SPEC)
    planning.rotate(features(planning, "float32", (1, 1, 16)), positions, SPEC)
    assert planned() == 1


class TestTorch:
    """What autograd and transforms see is the same by a plan."""

    def test_gradients(self, planned: Callable[[], int]) -> None:
        torch = pytest.importorskip("torch")
        backend = select("torch", device="cpu")
        positions = torch.arange(3) + 40
        for _ in range(2):
            x = torch.randn(2, 3, 16, requires_grad=True)
            y = backend.rotate(x, positions, SPEC)
            gradient = torch.randn_like(y)
            y.backward(gradient)
            wanted = backend.rotate_back(gradient, positions, SPEC)
            assert torch.equal(x.grad, wanted)
        assert planned() >= 2

    def test_given_memory(self, planned: Callable[[], int]) -> None:
        """No derivative goes through it unseen, and a graph that saved it sees that it changed."""
        torch = pytest.importorskip("torch")
        backend, positions = select("torch", device="cpu"), torch.arange(3)
        x, out = torch.randn(2, 3, 16), torch.empty(2, 3, 16)
        for calls in (1, 2):
            backend.rotate(x, positions, SPEC, out=out)
            assert out._version == calls
            with pytest.raises(rs.DtypeError, match="derivative"):
                backend.rotate(x.clone().requires_grad_(), positions, SPEC, out=out)
        assert planned() == 1

    def test_transforms_and_other_devices(self, planned: Callable[[], int]) -> None:
        torch = pytest.importorskip("torch")
        backend = select("torch", device="cpu")
        x, positions = torch.randn(2, 3, 16), torch.arange(3)
        wanted = backend.rotate(x, positions, SPEC)
        backend.rotate(x, positions, SPEC)
        assert planned() == 1
        mapped = torch.vmap(lambda row: backend.rotate(row, positions, SPEC))(x)
        _, pullback = torch.func.vjp(lambda a: backend.rotate(a, positions, SPEC.transposed()), x)
        (pulled,) = pullback(x)
        assert planned() == 0
        for got in (mapped, pulled):
            assert torch.allclose(got, wanted, rtol=0, atol=1e-6)
        shape_only = backend.rotate(x.to("meta"), positions.to("meta"), SPEC)
        assert shape_only.device.type == "meta"
        assert planned() == 0


def test_elements_at_odd_addresses(planned: Callable[[], int]) -> None:
    """They have the signature of others in PyTorch, not in NumPy, and no kernel reaches them."""
    backend = select("numpy")
    x = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    odd = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    wanted = backend.rotate(x, np.arange(3), SPEC)
    for _ in range(2):
        assert np.allclose(backend.rotate(odd, np.arange(3), SPEC), wanted, rtol=0, atol=1e-6)
    assert planned() == 0
    backend.rotate(x, np.arange(3), SPEC)
    assert planned() == 1
