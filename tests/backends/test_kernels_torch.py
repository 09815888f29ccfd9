"""What is particular to the Triton kernel: its route, memory, derivative, and host path.

Every other test of a backend runs on it too, as the backend ``torch-triton``: see conftest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import Backend, select
from tests import fresh, oracle
from tests.backends.interpreter import interpreted
from tests.backends.test_rotate import assert_rotated

torch = pytest.importorskip("torch")
torch_rotation = pytest.importorskip("rotary_spec_backends.kernels.torch_rotation")

HALF = rs.RotarySpec(16, layout="half", rotary_dim=8, rotary_start=4)


@pytest.fixture(scope="module")
def triton_backend() -> Iterator[Backend]:
    with interpreted():
        yield select("torch", device="cpu")


def features(*shape: int, dtype: Any = None, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype or torch.float32)


def test_cos_sin(triton_backend: Backend) -> None:
    """The kernel's own cos and sin, within 1 ulp at positions up to 2^31: x = 1, 0 shows them."""
    rng = np.random.default_rng(0)
    edges = [0, 1, -1, 2**31 - 1, -(2**31), 2**24 + 1, 131_071]
    positions = np.asarray([*edges, *rng.integers(-(2**31), 2**31, 249)])
    for base in (1e4, 5e5, 1e6):
        spec = rs.RotarySpec(128, base=base, layout="half")
        x = torch.zeros(len(positions), 128)
        x[:, :64] = 1.0
        assert triton_backend.route(x, torch.asarray(positions), spec) == "triton"
        y = triton_backend.rotate(x, torch.asarray(positions), spec).numpy().astype(np.float64)
        for found, exact in zip(np.split(y, 2, axis=-1), oracle.cos_sin(positions, spec)):
            assert np.max(np.abs(found - exact)) <= 2.0**-24


@pytest.mark.parametrize("given", [torch.int32, torch.int64, torch.uint8])
def test_position_dtypes(triton_backend: Backend, given: Any) -> None:
    x, positions = features(2, 3, 5, 16), torch.arange(5).to(given)
    assert triton_backend.route(x, positions, HALF) == "triton"
    y = triton_backend.rotate(x, positions, HALF)
    assert_rotated(triton_backend, y, x, positions.numpy(), HALF)


MEMORY = {
    "bhsd": lambda: features(2, 3, 20, 16),
    "bshd": lambda: features(2, 20, 3, 16).transpose(1, 2),
    "packed": lambda: features(2, 20, 3, 3, 16)[:, :, 1].transpose(1, 2),
    "odd strides": lambda: features(2, 3, 20, 17)[..., 1:],
    "every other": lambda: features(2, 6, 20, 16)[:, ::2],
    "expanded": lambda: features(1, 3, 20, 16).expand(2, 3, 20, 16),
}


@pytest.mark.parametrize("memory", MEMORY.values(), ids=MEMORY)
@pytest.mark.parametrize("rows", [False, True], ids=["shared", "per row"])
def test_memory(triton_backend: Backend, memory: Any, rows: bool) -> None:
    """Any strides of the leading axes, without a copy; positions for all or for each row."""
    x = memory()
    positions = torch.arange(20) if not rows else torch.arange(40).reshape(2, 1, 20)
    assert triton_backend.route(x, positions, HALF) == "triton"
    y = triton_backend.rotate(x, positions, HALF)
    assert_rotated(triton_backend, y, x, positions.numpy(), HALF)
    for spec in (HALF, HALF.transposed()):
        out = torch.full((2, 20, 3, 16), float("nan")).transpose(1, 2)
        assert triton_backend.rotate(x, positions, spec, out=out) is out
        assert_rotated(triton_backend, out, x, positions.numpy(), spec)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_in_place(triton_backend: Backend, layout: Any, dtype: Any) -> None:
    """``out=x``: lanes that pass through are not even touched; q and k in one launch."""
    spec = rs.RotarySpec(16, layout=layout, rotary_dim=8, rotary_start=4)
    q, k = features(2, 4, 5, 16, dtype=dtype), features(2, 1, 5, 16, dtype=dtype, seed=1)
    before = q.clone(), k.clone()
    triton_backend.rotate((q, k), torch.arange(5), spec, out=(q, k))
    for y, x in zip((q, k), before):
        assert_rotated(triton_backend, y, x, np.arange(5), spec)
        assert torch.equal(y[..., :4], x[..., :4])


def test_in_place_with_crossed_layouts(triton_backend: Backend) -> None:
    """By way of other memory: in the kernel threads would overwrite what others still read."""
    spec = rs.RotarySpec(16, layout="half", output_layout="interleaved")
    x = features(2, 3, 5, 16)
    before = x.clone()
    triton_backend.rotate(x, torch.arange(5), spec, out=x)
    assert_rotated(triton_backend, x, before, np.arange(5), spec)


def test_one_launch(triton_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """q and k of one dtype take one launch between them, another dtype takes its own."""
    from rotary_spec_backends.kernels import triton_rotation

    launches = []
    monkeypatch.setattr(triton_rotation, "run", lambda *a: launches.append(a))
    q, k = features(2, 8, 5, 16), features(2, 2, 5, 16)
    triton_backend.rotate((q, k), torch.arange(5), HALF)
    assert len(launches) == 1
    triton_backend.rotate((q, k.bfloat16(), k[:0]), torch.arange(5), HALF)
    assert len(launches) == 3


REFUSED = {
    "float64": lambda x, m: (x.double(), m, HALF),
    "multi-axis positions": lambda x, m: (
        x, torch.zeros(2, 5), rs.RotarySpec(16, sections=(4, 4))
    ),
    "grid of a batch and heads": lambda x, m: (
        x, torch.arange(30).reshape(3, 2, 5).transpose(0, 1), HALF
    ),
    "not in memory as they are": lambda x, m: (
        torch.view_as_complex(features(2, 3, 5, 16, 2)).conj().imag, m, HALF
    ),
    "neighbours in memory": lambda x, m: (features(2, 3, 16, 5).transpose(-1, -2), m, HALF),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_fallback(triton_backend: Backend, reason: str) -> None:
    """What the kernel does not take says why, and is rotated all the same."""
    x, positions, spec = REFUSED[reason](features(2, 3, 5, 16), torch.arange(5))
    assert triton_backend.route(x, positions, spec) != "triton"
    assert reason in str(torch_rotation.refusal((x,), positions, spec, (-2,), None))
    y = triton_backend.rotate(x, positions, spec)
    assert_rotated(triton_backend, y, x.resolve_neg(), positions.numpy(), spec)


def test_reasons_are_told(triton_backend: Backend) -> None:
    """Where no kernel takes a call, the route gives the reason of each."""
    x = torch.empty(2, 16, device="meta")
    route = triton_backend.route(x, torch.arange(2, device="meta"), HALF)
    assert route.startswith("traceable (triton: device meta; ")


def test_gradients(triton_backend: Backend) -> None:
    """Of q and k together, of one of them alone, and twice."""
    positions = torch.asarray([0, 1, -7, 131_071, 5])
    q, k = (features(2, 3, 5, 16, seed=s).requires_grad_() for s in (0, 1))
    seeds = features(2, 3, 5, 16, seed=2), features(2, 3, 5, 16, seed=3)
    assert triton_backend.route((q, k), positions, HALF) == "triton"
    rotated = triton_backend.rotate((q, k), positions, HALF)
    for gradient, seed in zip(torch.autograd.grad(rotated, (q, k), seeds), seeds):
        assert_rotated(triton_backend, gradient, seed, positions.numpy(), HALF.transposed())
    alone, _ = triton_backend.rotate((q, k.detach()), positions, HALF)
    (gradient,) = torch.autograd.grad(alone.sum(), q)  # its own gradient is expanded memory
    ones = torch.ones(2, 3, 5, 16)
    assert_rotated(triton_backend, gradient, ones, positions.numpy(), HALF.transposed())
    y = triton_backend.rotate(q, positions, HALF)
    (first,) = torch.autograd.grad((y * y).sum() / 2, q, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), q)
    assert torch.allclose(second, ones, atol=2**-20)  # an orthogonal operator, R^T R = 1


def test_out_records_no_derivative(triton_backend: Backend) -> None:
    x = features(5, 16).requires_grad_()
    with pytest.raises(rs.DtypeError, match=r"Hint: .*torch.no_grad"):
        triton_backend.rotate(x, torch.arange(5), HALF, out=torch.empty(5, 16))
    with torch.no_grad():
        triton_backend.rotate(x, torch.arange(5), HALF, out=torch.empty(5, 16))
    saved = features(5, 16)
    product = (saved * torch.ones(5, 16, requires_grad=True)).sum()
    triton_backend.rotate(saved, torch.arange(5), HALF, out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_transforms_take_plain_operations(triton_backend: Backend) -> None:
    x, positions = features(2, 5, 16), torch.arange(5)

    def f(x: Any) -> Any:
        return triton_backend.rotate(x, positions, HALF)

    expected = f(x)
    assert torch.allclose(torch.func.vmap(f)(x), expected, atol=2**-20)
    assert torch.allclose(torch.func.jvp(f, (x,), (x,))[1], expected, atol=2**-20)
    gradient = torch.func.grad(lambda x: f(x).sum())(x)
    assert gradient.shape == x.shape
    traced = torch.fx.experimental.proxy_tensor.make_fx(f)(x)
    assert "rotate_rows" not in traced.code


def test_compiling_warns_of_nothing() -> None:
    """Whoever compiles a model with our rotation in it sees no warning of a cache under it."""
    assert fresh.run(
        """
import json, torch, rotary_spec as rs

backend = rs.backends.select("torch")
x, positions, spec = torch.ones(2, 5, 16), torch.arange(5), rs.RotarySpec(16)
compiled = torch.compile(backend.rotate, backend="eager", fullgraph=True)
print(json.dumps(torch.allclose(compiled(x, positions, spec), backend.rotate(x, positions, spec))))
"""
    )


def test_compiled_calls_take_plain_operations(triton_backend: Backend) -> None:
    x, positions = features(2, 5, 16), torch.arange(5)
    compiled = torch.compile(triton_backend.rotate, backend="eager", fullgraph=True)
    expected = triton_backend.rotate(x, positions, HALF)
    assert torch.allclose(compiled(x, positions, HALF), expected, atol=2**-20)


def test_operator(triton_backend: Backend) -> None:
    """Registered with a schema that says what it writes, and a form without data."""
    operator = torch.ops.rotary_spec.rotate_rows.default
    written = [a.name for a in operator._schema.arguments if a.alias_info is not None]
    assert written == ["y", "y_other"]
    meta = [torch.empty(2, 16, device="meta") for _ in range(4)]
    ids = torch.empty(2, dtype=torch.int64, device="meta")
    assert operator(*meta, ids, ids, [1]) is None


def test_calls_alike_are_checked_once(
    triton_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call finds its plan by the arguments' shapes; a bad one is refused all the same."""
    x, positions = features(3, 5, 16), torch.arange(5)
    expected = triton_backend.rotate(x, positions, HALF)
    with monkeypatch.context() as patch:
        patch.setattr(type(triton_backend), "_checked", None)
        assert torch.equal(triton_backend.rotate(x, positions, HALF), expected)
        assert torch.equal(triton_backend.rotate((x,), positions, HALF)[0], expected)
    with pytest.raises(rs.PositionError):
        triton_backend.rotate(x, positions[:4], HALF)
    with pytest.raises(rs.PositionError):
        triton_backend.rotate(x, positions.float(), HALF)
    with pytest.raises(rs.DtypeError):
        triton_backend.rotate(x, positions, {"head_dim": 16})
    with pytest.raises(rs.DtypeError):
        triton_backend.rotate(x, positions, HALF, seq_axis=None)
