"""Gradients of linear attention in all forms, compiled functions, and what is kept for backward."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import Backend, select
from tests.spec.test_tracing import traces_through_compat

HOST_BACKENDS = ("torch", "jax-x64")
SPEC = rs.RotarySpec(4, layout="half")
KEYWORDS: dict[str, dict[str, Any]] = {
    "causal": {"causal": True},
    "bidirectional": {},
    "padded": {"causal": True, "key_mask": np.asarray([True] * 3 + [False] + [True] * 5)},
    "own keys": {"causal": True, "key_positions": np.arange(9)[::-1].copy()},
}
# Sums of at most 9 * 4 terms of size 10 or less, differentiated once more, in float64; each term is
# off by some 30 u. The forms order the additions differently.
ALLOWED = 36 * 10 * 100 * 2.0**-53


def inputs() -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(4, 9, 4)), rng.normal(size=(2, 9, 4)), rng.normal(size=(2, 9, 3))]


def gradients(backend: Backend, function: Any, seed: Any) -> Any:
    """Of sum(function(q, k, v) * seed) with respect to all of q, k and v, in a row."""
    sizes = np.cumsum([x.size for x in inputs()])[:-1].tolist()
    flat = np.concatenate([x.ravel() for x in inputs()])

    def of_one(x: Any) -> Any:
        ends = [0, *sizes, flat.size]
        parts = (x[start:stop] for start, stop in pairwise(ends))
        return function(*(x.reshape(y.shape) for x, y in zip(parts, inputs(), strict=True)))

    if backend.name == "jax":  # one program instead of one for each operation
        of_one = backend.framework.xp.jit(of_one)
    given, seed = (backend.framework.asarray(x, "float64") for x in (flat, seed))
    return backend.framework.to_numpy(backend.framework.gradient(of_one, given, seed))


def recurrent(backend: Backend) -> Any:
    """A prefix, a step of one token, and a step of the rest."""

    def function(q: Any, k: Any, v: Any) -> Any:
        state = backend.linear_attention_state(k[:, :4], v[:, :4], np.arange(4), SPEC, chunk=3)
        outs = [
            backend.linear_attention(
                q[:, :4], k[:, :4], v[:, :4], np.arange(4), SPEC, causal=True, chunk=3
            )
        ]
        for rows in (slice(4, 5), slice(5, 9)):
            state, out = backend.linear_attention_step(
                state, q[:, rows], k[:, rows], v[:, rows], chunk=3
            )
            outs.append(out)
        join = backend.framework.xp.concatenate if backend.name == "torch" else _jax_concatenate
        return join(outs, axis=-2)

    return function


def _jax_concatenate(arrays: Any, axis: int) -> Any:
    import jax.numpy as jnp

    return jnp.concatenate(arrays, axis=axis)


@pytest.mark.parametrize("case", [*KEYWORDS, "recurrent"])
def test_against_autograd_of_the_definition(backend: Backend, case: str) -> None:
    """The definition is PyTorch's to differentiate."""
    torch = pytest.importorskip("torch")
    keywords = KEYWORDS.get(case, {"causal": True})
    seed = np.random.default_rng(1).normal(size=(4, 9, 3))

    def native(q: Any, k: Any, v: Any) -> Any:
        if case == "recurrent":
            return recurrent(backend)(q, k, v)
        return backend.linear_attention(q, k, v, np.arange(9), SPEC, chunk=4, **keywords)

    own = {n: torch.asarray(x) if isinstance(x, np.ndarray) else x for n, x in keywords.items()}

    def definition(q: Any, k: Any, v: Any) -> Any:
        return rs.linear_attention(q, k, v, range(9), SPEC, **own)

    exact = gradients(select("torch", device="cpu"), definition, seed)
    assert np.all(np.abs(gradients(backend, native, seed) - exact) <= ALLOWED)


@pytest.mark.parametrize(
    "feature_map", ["elu+1", "softmax", rs.favor(4, 4)], ids=["elu+1", "softmax", "favor"]
)
def test_definition_against_finite_differences(feature_map: Any) -> None:
    """By PyTorch's autograd; a central difference of step h is off by h^2 and by u / h."""
    backend, h = select("torch", device="cpu"), 2.0**-17
    seed = np.random.default_rng(1).normal(size=(4, 9, 3))

    def native(q: Any, k: Any, v: Any) -> Any:
        return backend.linear_attention(
            q, k, v, np.arange(9), SPEC, causal=True, chunk=4, feature_map=feature_map
        )

    ours = gradients(backend, native, seed)
    given = inputs()
    ends = np.cumsum([0, *(x.size for x in given)])
    for index in np.random.default_rng(2).integers(ends[-1], size=12):
        which = int(np.searchsorted(ends, index, side="right")) - 1
        values = []
        for sign in (1, -1):
            moved = [x.copy() for x in given]
            moved[which].reshape(-1)[index - ends[which]] += sign * h
            out = rs.linear_attention(
                *moved, np.arange(9), SPEC, causal=True, feature_map=feature_map
            )
            values.append(np.sum(out * seed))
        difference = (values[0] - values[1]) / (2 * h)
        assert abs(ours[index] - difference) <= 100 * h**2 + 1000 * 2.0**-53 / h


class TestTorch:
    @pytest.fixture(autouse=True)
    def _torch(self) -> None:
        self.torch = pytest.importorskip("torch")
        self.backend = select("torch", device="cpu")

    def kept(self, length: int) -> int:
        """Bytes that backward keeps for a length: of autograd and of checkpoints."""
        torch = self.torch
        q, k, v = (torch.ones(1, 2, length, 8, requires_grad=True) for _ in range(3))
        gc.collect()
        before = {id(x) for x in gc.get_objects() if type(x) is torch.Tensor}
        memory: dict[int, int] = {}

        def see(x: Any) -> Any:
            memory[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(see, lambda x: x):
            out = self.backend.linear_attention(
                q, k, v, range(length), rs.RotarySpec(8), causal=True, chunk=8
            )
        for x in gc.get_objects():
            if type(x) is torch.Tensor and id(x) not in before:
                see(x)
        out.sum().backward()
        return sum(memory.values())

    @pytest.mark.parametrize(
        ("spec", "positions"),
        [
            (rs.RotarySpec(8), np.arange(21)),
            (rs.RotarySpec(8, layout="half", inverse=True), np.arange(21)),
            (rs.RotarySpec(8, rotary_dim=4, attention_factor=1.5), np.arange(42).reshape(2, 1, 21)),
            (rs.RotarySpec(8, attention_factor=1.5), np.arange(42).reshape(2, 1, 21)),
            (rs.RotarySpec(8), np.asarray(7)),
            (rs.RotarySpec(8, sections=rs.Sections((2, 2))), np.arange(42).reshape(2, 21)),
        ],
        ids=["whole", "half", "partial", "rows", "one position", "sections"],
    )
    def test_without_a_gradient(self, spec: rs.RotarySpec, positions: Any) -> None:
        """In place, and as it is differentiated: float64 sums in two orders."""
        rng = np.random.default_rng(0)
        q, k, v = (self.torch.asarray(rng.normal(size=(2, h, 21, 8))) for h in (4, 2, 2))
        positions = self.torch.asarray(positions)
        outs = [
            self.backend.linear_attention(
                q.requires_grad_(learning), k, v, positions, spec, causal=True, chunk=8
            )
            for learning in (False, True)
        ]
        # Terms below 10 of values below 4, over a denominator that is not below one of its terms.
        assert self.torch.all((outs[0] - outs[1]).abs() <= ALLOWED)

    def test_without_heads(self) -> None:
        """And in any strides; nothing is written into the arguments."""
        q, k, v = (self.torch.asarray(x)[:2] for x in inputs())
        before = [x.clone() for x in (q, k, v)]

        def function(*arrays: Any) -> Any:
            return self.backend.linear_attention(*arrays, range(9), SPEC, causal=True, chunk=4)

        whole = function(q, k, v)
        assert self.torch.all((function(q[1], k[1], v[1]) - whole[1]).abs() <= ALLOWED)
        turned = function(*(x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k, v)))
        assert self.torch.all((turned - whole).abs() <= ALLOWED)
        assert all(map(self.torch.equal, (q, k, v), before))

    def test_kept_memory_is_linear(self) -> None:
        """Output and inputs, 4 * 64 bytes for a token's heads; positions; for each chunk of 8 a
        state of 2 * 8 * 9 numbers. Plain autograd would keep some 40 arrays of the input's size.
        """
        kept = self.kept(512)
        assert kept <= 2 * self.kept(256) + 64  # scalars
        assert 512 * 256 <= kept <= 512 * (256 + 8 + 2 * 8 * 9 * 4 / 8) + 4096

    @traces_through_compat
    @pytest.mark.parametrize("feature_map", ["elu+1", rs.favor(4, 4)], ids=["elu+1", "favor"])
    def test_compile(self, feature_map: Any) -> None:
        """One graph with its gradient; 9 tokens are two chunks and a rest."""
        torch = self.torch
        q, k, v = (torch.asarray(x) for x in inputs())
        q.requires_grad_()
        ids = torch.arange(9)

        def function(q: Any, k: Any, v: Any, ids: Any) -> Any:
            return self.backend.linear_attention(
                q, k, v, ids, SPEC, causal=True, chunk=4, feature_map=feature_map
            )

        torch.compiler.reset()
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        outs = []
        for each in (compiled, function):
            out = each(q, k, v, ids)
            (gradient,) = torch.autograd.grad(out.square().sum(), q)
            outs.append((out, gradient))
        for ours, eager in zip(*outs, strict=True):
            assert torch.all((ours - eager).abs() <= ALLOWED)

    @traces_through_compat
    def test_compiled_step(self) -> None:
        torch = self.torch
        q, k, v = (torch.asarray(x) for x in inputs())
        state = self.backend.linear_attention_state(k[:, :8], v[:, :8], range(8), SPEC)
        torch.compiler.reset()
        step = torch.compile(
            self.backend.linear_attention_step, fullgraph=True, backend="aot_eager"
        )
        after, out = step(state, q[:, 8:], k[:, 8:], v[:, 8:])
        whole = self.backend.linear_attention(q, k, v, range(9), SPEC, causal=True)
        assert int(after.position) == 8
        assert torch.all((out - whole[:, 8:]).abs() <= ALLOWED)

    def test_transformations(self) -> None:
        """torch.func: vmap over heads, and its gradient."""
        torch = self.torch
        q, k, v = (torch.asarray(x)[:2] for x in inputs())

        def function(q: Any, k: Any, v: Any) -> Any:
            return self.backend.linear_attention(q, k, v, range(9), SPEC, causal=True, chunk=4)

        whole = function(q, k, v)
        assert torch.all((torch.func.vmap(function)(q, k, v) - whole).abs() <= ALLOWED)
        gradient = torch.func.grad(lambda q: function(q, k, v).sum())(q)
        q = q.clone().requires_grad_()
        (exact,) = torch.autograd.grad(function(q, k, v).sum(), q)
        assert torch.all((gradient - exact).abs() <= ALLOWED)


class TestJax:
    def test_state_goes_through_scan(self) -> None:
        """Decoding is one compiled loop, its carry the state."""
        jax = pytest.importorskip("jax")
        backend = select("jax", device="cpu")
        q, k, v = (jax.numpy.asarray(x, "float32") for x in inputs())
        whole = backend.linear_attention(q, k, v, range(9), SPEC, causal=True)
        state = backend.linear_attention_state(k[:, :0], v[:, :0], range(0), SPEC)

        def step(state: Any, token: Any) -> Any:
            return backend.linear_attention_step(state, *(x[:, None] for x in token))

        tokens = tuple(jax.numpy.moveaxis(x, 1, 0) for x in (q, k, v))
        state, outs = jax.lax.scan(step, state, tokens)
        assert int(state.position) == 8
        outs = np.moveaxis(np.asarray(outs)[:, :, 0], 0, 1)
        assert np.all(np.abs(outs - np.asarray(whole)) <= 200 * 2.0**-24 * 10)
