"""The Triton kernels of causal linear attention, through the interpreter and on a GPU.

The allowed error is that of ``attention_oracle.bound``, and of the products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import Backend, select
from tests import attention_oracle, oracle
from tests.backends.cuda import CUDA
from tests.backends.interpreter import interpreted
from tests.spec.test_tracing import traces_through_compat

torch = pytest.importorskip("torch")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SPECS = {
    "interleaved": rs.RotarySpec(32),
    "half": rs.RotarySpec(32, layout="half"),
    "inverse": rs.RotarySpec(32, layout="half", attention_factor=1.25).transposed(),
    "partial": rs.RotarySpec(32, rotary_dim=16, rotary_start=4),
    "scattered": rs.RotarySpec(
        32, layout="half", output_layout="interleaved", rotary_dim=16, rotary_start=3
    ),
}


DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if CUDA else [])]


@pytest.fixture(scope="module", params=DEVICES)
def triton_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "cuda":
        yield select("torch", device="cuda")
        return
    with interpreted():
        yield select("torch", device="cpu")


def inputs(
    backend: Any, length: int, dtype: str = "float32", heads: tuple[int, int] = (2, 2),
    width: int = 32, values: int = 16, batch: int = 1,
) -> Any:  # fmt: skip
    """q, k, v, a gradient of the output, and positions."""
    generator = torch.Generator().manual_seed(length)
    shapes = [(heads[0], width), (heads[1], width), (heads[1], values), (heads[0], values)]
    arrays = [
        torch.randn(batch, n, length, size, generator=generator).to(DTYPES[dtype])
        for n, size in shapes
    ]
    device = backend.framework.device or "cpu"
    return *(x.to(device) for x in arrays), torch.arange(length, device=device) + 5


def host(x: Any) -> Any:
    return x.detach().double().cpu().numpy()


def products(dtype: str) -> float:
    """How much the products lose, relative to the terms: see `triton_linear_attention.dot`.

    q k^T with their values, or those of the keys with q: 3 2^-20 each for float32; in 16 bits
    3 2^-16 and 2^-16, for values are exact. The denominator's one product loses no more than one.
    """
    return 9 * 2.0**-20 if dtype == "float32" else 5 * 2.0**-16


def assert_attends(
    backend: Any, out: Any, q: Any, k: Any, v: Any, positions: Any, spec: Any
) -> None:
    dtype = backend.framework.dtype_of(out)
    q, k, v = map(host, (q, k, v))
    seen = attention_oracle.visible(q, k, True)
    exact, terms = attention_oracle.linear_attention(
        q, k, v, positions.cpu().numpy(), spec, seen, "elu+1"
    )
    u = oracle.UNIT_ROUNDOFF
    allowed = attention_oracle.bound(
        terms, q.shape[-2], 64, "elu+1", q, k, u["float32"], spec.head_dim
    )
    allowed = allowed + products(dtype) * terms
    if dtype != "float32":
        allowed = allowed + u[dtype] * (np.abs(exact) + allowed) + oracle.SMALLEST_NORMAL[dtype]
    assert out.shape == exact.shape
    assert np.all(np.abs(host(out) - exact) <= allowed)


def attend(backend: Any, q: Any, k: Any, v: Any, positions: Any, spec: Any) -> Any:
    route = backend.linear_attention_route(q, k, v, positions, spec, causal=True)
    assert route == "triton"
    return backend.linear_attention(q, k, v, positions, spec, causal=True)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 130])
def test_lengths(triton_backend: Backend, length: int) -> None:
    """Whole chunks, and what is left of one; heads that share keys."""
    spec = SPECS["interleaved"]
    q, k, v, _, positions = inputs(triton_backend, length, heads=(4, 2))
    out = attend(triton_backend, q, k, v, positions, spec)
    assert_attends(triton_backend, out, q, k, v, positions, spec)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECS)
def test_specs(triton_backend: Backend, name: str, dtype: str) -> None:
    """Layouts, lanes that pass through, and dtypes, whose sums are float32 all the same."""
    q, k, v, _, positions = inputs(triton_backend, 70, dtype)
    out = attend(triton_backend, q, k, v, positions, SPECS[name])
    assert_attends(triton_backend, out, q, k, v, positions, SPECS[name])


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("values", [3, 200])
def test_widths(triton_backend: Backend, width: int, values: int) -> None:
    """Values of any width: less than one block, or several that do not come out even."""
    spec = rs.RotarySpec(width, layout="half")
    q, k, v, _, positions = inputs(triton_backend, 66, width=width, values=values)
    out = attend(triton_backend, q, k, v, positions, spec)
    assert_attends(triton_backend, out, q, k, v, positions, spec)


def test_memory_and_positions(triton_backend: Backend) -> None:
    """(batch, seq, heads, dim), packed qkv, no batch, several; positions far away, and by row."""
    spec = SPECS["half"]
    q, k, v, _, _ = inputs(triton_backend, 20, batch=2, values=32)
    rows = torch.arange(40, device=q.device).reshape(2, 1, 20) * 3 + 2**31
    out = attend(triton_backend, q, k, v, rows, spec)
    assert_attends(triton_backend, out, q, k, v, rows, spec)
    packed = torch.stack([x.transpose(1, 2) for x in (q, k, v)], dim=2)
    views = [packed[:, :, i].transpose(1, 2) for i in range(3)]
    again = attend(triton_backend, *views, rows, spec)
    assert torch.equal(again, out)
    swapped = [x.transpose(1, 2) for x in views]
    by_tokens = triton_backend.linear_attention(*swapped, rows, spec, causal=True, seq_axis=1)
    assert torch.equal(by_tokens.transpose(1, 2), out)
    ids = torch.arange(20, dtype=torch.int32, device=q.device)
    alone = [x[0, 0] for x in (q, k, v)]
    found = attend(triton_backend, *alone, ids, spec)
    assert_attends(triton_backend, found[None], *(x[None] for x in alone), ids, spec)
    nested = attend(triton_backend, q[:, None], k[:, None], v[:, None], rows[:, None], spec)
    assert torch.equal(nested[:, 0], out)
    one = torch.full((1,), 7, device=q.device)
    assert_attends(
        triton_backend, attend(triton_backend, q, k, v, one, spec), q, k, v, one.expand(20), spec
    )


@pytest.mark.parametrize("name", ["interleaved", "scattered"])
def test_steps_are_the_whole(triton_backend: Backend, name: str) -> None:
    """From a state that the backend made, and from those of the kernel itself."""
    spec = SPECS[name]
    q, k, v, _, positions = inputs(triton_backend, 75, heads=(4, 2), values=40)
    state = triton_backend.linear_attention_state(k[..., :3, :], v[..., :3, :], positions[:3], spec)
    outs = []
    for start, stop in ((3, 4), (4, 70), (70, 75)):
        part = [x[..., start:stop, :] for x in (q, k, v)]
        state, out = triton_backend.linear_attention_step(state, *part)
        outs.append(out)
    whole = attend(triton_backend, q, k, v, positions, spec)
    assert_attends(triton_backend, whole, q, k, v, positions, spec)
    patched = torch.cat([whole[..., :3, :], *outs], dim=-2)
    assert_attends(triton_backend, patched, q, k, v, positions, spec)


@pytest.mark.parametrize(
    ("name", "dtype", "heads", "length", "values"),
    [
        ("interleaved", "float32", (2, 1), 90, 16),
        ("inverse", "bfloat16", (1, 1), 65, 32),
        ("scattered", "float16", (2, 1), 65, 16),
        ("partial", "float32", (1, 1), 64, 150),
    ],
)
def test_gradients(
    triton_backend: Backend, name: str, dtype: str, heads: Any, length: int, values: int
) -> None:
    """Against float64, which no kernel takes, with the bound that `gradient_bounds` derives."""
    spec = SPECS[name]
    *arrays, dout, positions = inputs(triton_backend, length, dtype, heads, values=values)
    given = [x.requires_grad_() for x in arrays]
    out = attend(triton_backend, *given, positions, spec)
    assert "Attention" in out.grad_fn.next_functions[0][0].name() + out.grad_fn.name()
    found = torch.autograd.grad(out, given, dout)
    wide = [x.detach().double().requires_grad_() for x in arrays]
    expected = torch.autograd.grad(
        triton_backend.linear_attention(*wide, positions, spec, causal=True), wide, dout.double()
    )
    bounds = gradient_bounds(*map(host, (*arrays, dout)), positions, spec, dtype)
    for gradient, exact, bound, x in zip(found, expected, bounds, arrays):
        assert gradient.dtype == x.dtype
        assert gradient.stride() == x.stride()
        assert np.all(np.abs(host(gradient) - host(exact)) <= bound)


def gradient_bounds(
    q: Any, k: Any, v: Any, dout: Any, positions: Any, spec: Any, dtype: str
) -> Any:
    """How far the gradients may be off: every sum with its terms' absolute values, times its error.

    Numerator terms |R phi(q)| |R phi(k)| |v| |dout| / t, and for the denominator the same with
    its own weight |dt|, at most the sum of those over the values. A term passes through as many
    roundings as in the forward pass and its own sum once more, and one product more.
    """
    times = q.shape[-3] // k.shape[-3]
    k, v = attention_oracle.grouped(k, v, q)
    seen = attention_oracle.visible(q, k, True)
    phi_q, phi_k = attention_oracle.features("elu+1", q, k)
    large_q, large_k = (np.maximum(oracle.weights(x, spec), x) for x in (phi_q, phi_k))
    t = np.where(seen, phi_q @ np.swapaxes(phi_k, -1, -2), 0.0).sum(-1, keepdims=True)
    # What each weight is multiplied by in the loss: by the numerators, and by the denominators.
    by_value = np.where(seen, (np.abs(dout) / t) @ np.swapaxes(np.abs(v), -1, -2), 0.0)
    weights = np.where(seen, large_q @ np.swapaxes(large_k, -1, -2), 0.0)
    dt = (weights * by_value).sum(-1, keepdims=True) / t
    each = by_value + np.where(seen, dt, 0.0)
    turned = oracle.magnitude(spec) * 2  # a row of R^T has two entries of at most A
    dq, dk = turned * each @ large_k, turned * np.swapaxes(each, -1, -2) @ large_q
    dv = np.swapaxes(weights, -1, -2) @ (np.abs(dout) / t)
    u, length = oracle.UNIT_ROUNDOFF, q.shape[-2]
    depth = 2 * (spec.head_dim + v.shape[-1] + 64 + length // 32 + 64)
    relative = 2 * depth * u["float32"] + 2 * products(dtype)
    for terms, grouped in ((dq, False), (dk, True), (dv, True)):
        if grouped:
            terms = terms.reshape(*terms.shape[:-3], -1, times, *terms.shape[-2:]).sum(-3)
        bound = relative * terms
        yield bound if dtype == "float32" else bound + u[dtype] * terms + 2.0**-24


def test_second_derivative(triton_backend: Backend) -> None:
    """By plain operations, which the kernels' backward pass hands over to."""
    *arrays, dout, positions = inputs(triton_backend, 9)
    spec, hessians = SPECS["half"], []
    for dtype in (torch.float32, torch.float64):
        given = [x.to(dtype).requires_grad_() for x in arrays]
        out = triton_backend.linear_attention(*given, positions, spec, causal=True)
        first = torch.autograd.grad(out, given, dout.to(dtype), create_graph=True)
        hessians.append(torch.autograd.grad(sum((x * x).sum() for x in first), given))
    for found, exact in zip(*hessians):
        assert torch.allclose(found.double(), exact, rtol=2**-10, atol=2**-12 * exact.abs().max())


def test_gradient_of_one_input(triton_backend: Backend) -> None:
    """Of v alone, from a gradient that is one number, expanded."""
    q, k, v, _, positions = inputs(triton_backend, 10)
    spec = SPECS["half"]
    attend(triton_backend, q, k, v.requires_grad_(), positions, spec).sum().backward()
    assert q.grad is None
    wide = v.detach().double().requires_grad_()
    triton_backend.linear_attention(
        q.double(), k.double(), wide, positions, spec, causal=True
    ).sum().backward()
    ones = np.ones(v.shape)
    *_, bound = gradient_bounds(*map(host, (q, k, v)), ones, positions, spec, "float32")
    assert np.all(np.abs(host(v.grad) - host(wide.grad)) <= bound)


REFUSED = {
    "feature map 'softmax'": {"feature_map": "softmax"},
    "denominator 'none'": {"denominator": "none"},
    "a key_mask": {"key_mask": np.ones((1, 1, 10), dtype=bool)},
    "not causal by index": {"causal": False},
    "positions of each head": {"positions": np.zeros((2, 10), dtype=np.int64)},
    "head_dim 16 is none of (32, 64, 128)": {"width": 16},
    "float64": {"dtype": torch.float64},
    "features that are not neighbours": {"transposed": True},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_fallback(triton_backend: Backend, reason: str) -> None:
    """What the kernels do not take says why, and is computed all the same."""
    keywords = {"causal": True} | REFUSED[reason]
    width = keywords.pop("width", 32)
    q, k, v, _, positions = inputs(triton_backend, 10, width=width)
    positions = keywords.pop("positions", positions)
    if "dtype" in keywords:
        q, k, v = (x.to(keywords["dtype"]) for x in (q, k, v))
        del keywords["dtype"]
    if keywords.pop("transposed", False):
        v = v.mT.contiguous().mT
    spec = rs.RotarySpec(width)
    arguments = (q, k, v, positions, spec)
    assert reason in triton_backend.linear_attention_route(*arguments, **keywords)
    out = triton_backend.linear_attention(*arguments, **keywords)
    ids = positions if isinstance(positions, np.ndarray) else positions.cpu().numpy()
    exact = rs.linear_attention(*map(host, (q, k, v)), ids, spec, **keywords)
    assert np.allclose(host(out), exact, rtol=2**-14, atol=2**-12)


def test_route_of_a_derivative_by_a_state(triton_backend: Backend) -> None:
    q, k, v, _, positions = inputs(triton_backend, 10)
    spec = SPECS["half"]
    state = triton_backend.linear_attention_state(k[..., :5, :], v[..., :5, :], positions[:5], spec)
    rest = [x[..., 5:, :].requires_grad_() for x in (q, k, v)]
    after, out = triton_backend.linear_attention_step(state, *rest)
    assert after.numerator.requires_grad
    assert_attends(
        triton_backend,
        torch.cat([attend(triton_backend, q, k, v, positions, spec)[..., :5, :], out], dim=-2),
        q, k, v, positions, spec,
    )  # fmt: skip
    empty = triton_backend.linear_attention_route(
        q[..., :0, :], k[..., :0, :], v[..., :0, :], [], spec
    )
    assert empty == "chunked (no tokens)"


def test_denominators_are_checked(triton_backend: Backend) -> None:
    """What is not finite anywhere is found, at the first token as at the last, and eps counts."""
    spec = SPECS["half"]
    q, k, v, _, positions = inputs(triton_backend, 66, heads=(1, 1))
    for token in (0, 65):
        bad = q.clone()
        bad[0, 0, token, 3] = float("nan")
        with (
            np.errstate(all="ignore"),
            pytest.raises(rs.DenominatorError, match="smallest is nan"),
        ):
            triton_backend.linear_attention(bad, k, v, positions, spec, causal=True)
    low = torch.full_like(q, -200.0)  # all features underflow to 0
    with np.errstate(all="ignore"), pytest.raises(rs.DenominatorError, match="smallest is 0 "):
        triton_backend.linear_attention(low, k, v, positions, spec, causal=True)
    out = triton_backend.linear_attention(low, k, v, positions, spec, causal=True, eps=1.0)
    assert not out.any()


@traces_through_compat
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_compiled_calls_take_plain_operations(triton_backend: Backend) -> None:
    q, k, v, _, positions = inputs(triton_backend, 10)

    def f(q: Any) -> Any:
        return triton_backend.linear_attention(q, k, v, positions, SPECS["half"], causal=True)

    compiled = torch.compile(f, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(q), f(q), atol=2**-16)
    assert torch.allclose(torch.func.jvp(f, (q,), (q * 0,))[0], f(q), atol=2**-16)


def test_conformance(triton_backend: Backend) -> None:
    """Every clause of Eq. 19, on shapes that the kernels take."""
    from rotary_spec_conformance.linear_attention import check_linear_attention

    spec = SPECS["interleaved"]
    taken = []

    def target(q: Any, k: Any, v: Any, positions: Any) -> Any:
        taken.append(triton_backend.linear_attention_route(q, k, v, positions, spec, causal=True))
        return triton_backend.linear_attention(q, k, v, positions, spec, causal=True)

    report = check_linear_attention(target, spec, framework="torch", quick=True)
    assert report.ok, str(report)
    assert taken.count("triton") > len(taken) / 2, taken
