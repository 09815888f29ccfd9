"""The CPU kernel of linear attention: every layout, dtype and stride, and when it has a part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import select
from rotary_spec_backends.host import threads
from rotary_spec_backends.host.route import ENVIRONMENT
from tests import attention_oracle, oracle

torch = pytest.importorskip("torch")
pytest.importorskip("numba")
numba_linear_attention = pytest.importorskip("rotary_spec_backends.kernels.numba_linear_attention")

U = oracle.UNIT_ROUNDOFF
BACKEND: Any = select("torch")
SPECS = {
    "interleaved": rs.RotarySpec(8),
    "half": rs.RotarySpec(8, layout="half"),
    "to half": rs.RotarySpec(8, output_layout="half"),
    "partial": rs.RotarySpec(22, rotary_dim=12, rotary_start=6, layout="half"),
    "inverse": rs.RotarySpec(8, inverse=True),
}


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "1")
    monkeypatch.setattr(threads, "WORTHWHILE", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def normal(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    rng = np.random.default_rng([seed, *shape])
    return torch.asarray(rng.normal(size=shape)).to(getattr(torch, dtype))


def assert_attends(
    q: Any, k: Any, v: Any, positions: Any, spec: rs.RotarySpec, chunk: int, **keywords: Any
) -> None:
    """By the kernel, and within the bound."""
    arguments = {"causal": True, "chunk": chunk, **keywords}
    route = BACKEND.linear_attention_route(q, k, v, positions, spec, **arguments)
    assert route.startswith("cpu ")
    out = BACKEND.linear_attention(q, k, v, positions, spec, **arguments)
    axis = keywords.get("seq_axis", -2)
    hosts = [x.movedim(axis, -2).double().numpy() for x in (q, k, v)]
    seen = attention_oracle.visible(*hosts[:2], True)
    exact, terms = attention_oracle.linear_attention(*hosts, positions, spec, seen, "elu+1")
    allowed = attention_oracle.bound(
        terms, len(exact[-1]), chunk, "elu+1", *hosts[:2], U["float32"], spec.head_dim
    )
    dtype = str(q.dtype).rpartition(".")[2]
    assert out.dtype == q.dtype
    if dtype != "float32":
        allowed = allowed + U[dtype] * (np.abs(exact) + allowed) + oracle.SMALLEST_NORMAL[dtype]
    assert np.all(np.abs(out.movedim(axis, -2).double().numpy() - exact) <= allowed)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_specs(name: str, dtype: str) -> None:
    """Several chunks at a time, heads that share keys, and a last chunk that is shorter."""
    spec = SPECS[name]
    q, k = (normal(2, heads, 1100, spec.head_dim, dtype=dtype) for heads in (4, 2))
    v = normal(2, 2, 1100, 3, dtype=dtype)
    assert_attends(q, k, v, np.arange(1100) * 87 - 700, spec, 64)


@pytest.mark.parametrize(
    "shape", [(70,), (1,), (2, 1, 70), (1, 3, 70), (2, 3, 1)], ids=lambda s: "x".join(map(str, s))
)
def test_positions(shape: tuple[int, ...]) -> None:
    """Of all tokens, of each batch, of each head, and one for all."""
    positions = np.random.default_rng(0).integers(2**31, size=shape)
    q, k, v = (normal(2, 3, 70, 8, seed=n) for n in range(3))
    assert_attends(q, k, v, positions, SPECS["half"], 16)


def test_attention_factor() -> None:
    q, k, v = (normal(1, 2, 70, 8, seed=n) for n in range(3))
    spec = rs.RotarySpec(8, schedule=rs.Yarn(4.0, 64))
    given = np.arange(70), spec
    out = BACKEND.linear_attention(q, k, v, *given, causal=True)
    exact = rs.linear_attention(*(x.double().numpy() for x in (q, k, v)), *given, causal=True)
    assert np.allclose(out, exact, rtol=2**-16, atol=2**-16)


def test_strides() -> None:
    """Views of (batch, seq, heads, lanes) and of packed q, k and v, and rows without a batch."""
    packed = normal(2, 70, 3, 4, 8)
    q, k, v = packed.unbind(2)
    positions = np.arange(70)
    assert_attends(q, k, v, positions, SPECS["interleaved"], 16, seq_axis=-3)
    q, k, v = (x[1, :, 2].flip(-2) for x in (q, k, v))
    assert_attends(*(x[None] for x in (q, k, v)), positions, SPECS["half"], 16)


def test_features() -> None:
    """elu + 1 is within 1.02 ulp wherever float32 can say it, and right at the ends."""
    from numba import njit

    from rotary_spec_backends.kernels.numba_vectors import features

    @njit
    def fill(x: Any, out: Any, size: int) -> None:
        features("float32", x, out, size)

    ends = [-np.inf, -104.5, -0.0, 0.0, 1e30, np.inf, np.nan]
    x = np.concatenate([np.linspace(-104, 2, 400_001), ends]).astype(np.float32)
    out = np.empty_like(x)
    fill(x.ctypes.data, out.ctypes.data, x.size)
    assert np.array_equal(out[-len(ends) :], [0, 0, 1, 1, np.float32(1e30), np.inf, np.nan], True)
    x, out = (y[: -len(ends)].astype(np.float64) for y in (x, out))
    exact = np.where(x > 0, x + 1, np.exp(x))
    assert np.all(np.abs(out - exact) <= 1.02 * np.spacing(exact.astype(np.float32)))


def test_states_go_on() -> None:
    """Prefill by the kernel, then steps, is the whole; denominators with eps and rotated too."""
    q, k, v = (normal(1, 2, 150, 8, seed=n) for n in range(3))
    positions, spec = np.arange(150) + 2**24, SPECS["half"]
    for keywords in ({}, {"denominator": "rotated", "eps": 1e4}, {"denominator": "none"}):
        whole = BACKEND.linear_attention(q, k, v, positions, spec, causal=True, **keywords)
        state = BACKEND.linear_attention_state(
            k[..., :90, :], v[..., :90, :], positions[:90], spec, **keywords
        )
        _, rest = BACKEND.linear_attention_step(state, *(x[..., 90:, :] for x in (q, k, v)))
        # Both sums have at most 150 terms, each at most a few times a result.
        assert torch.allclose(rest, whole[..., 90:, :], rtol=2**-15, atol=2**-15)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("a key_mask", {"key_mask": np.ones((1, 1, 20), dtype=bool)}),
        ("feature map 'softmax'", {"feature_map": "softmax"}),
        ("float64", {"dtype": torch.float64}),
        ("sections", {"spec": rs.RotarySpec(8, sections=rs.Sections((2, 2)))}),
        ("lanes that do not lie side by side", {"transposed": True}),
        ("derivatives", {"learning": True}),
        (f"${ENVIRONMENT}=0", {"environment": "0"}),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_refusals(reason: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does not take says why, and is computed all the same."""
    changes = dict(changes)
    monkeypatch.setenv(ENVIRONMENT, changes.pop("environment", "1"))
    q, k, v = (normal(1, 2, 20, 8, seed=n).to(changes.get("dtype")) for n in range(3))
    changes.pop("dtype", None)
    if changes.pop("transposed", False):
        q = q.mT.contiguous().mT
    q.requires_grad_(changes.pop("learning", False))
    spec = changes.pop("spec", SPECS["half"])
    positions = np.arange(20) + np.zeros((2, 1), dtype=np.int64) if spec.sections else np.arange(20)
    route = BACKEND.linear_attention_route(q, k, v, positions, spec, causal=True, **changes)
    assert route.startswith("chunked")
    assert reason in route.partition("cpu: ")[2]
    out = BACKEND.linear_attention(q, k, v, positions, spec, causal=True, **changes)
    hosts = [x.detach().numpy() for x in (q, k, v)]
    exact = rs.linear_attention(*hosts, positions, spec, causal=True, **changes)
    assert np.allclose(out.detach().numpy(), exact, rtol=2**-14, atol=2**-14)
