"""Causal linear attention by the Triton kernels: as PyTorch operators, with a derivative.

Like the rotation's, the operators ``rotary_spec::linear_attention_*`` are bare launches into memory
that they are given. What is kept for the backward pass is the inputs and one denominator for each
token and head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib import import_module
from typing import Any, NamedTuple

import torch

from rotary_spec.feature_maps import FEATURE_MAPS
from rotary_spec.linear_attention_terms import LinearAttentionOptions
from rotary_spec.spec import RotarySpec
from rotary_spec_backends.chunked import Tokens
from rotary_spec_backends.kernels import linear_attention_launch as launch
from rotary_spec_backends.kernels.torch_rotation import unfit

Tensors = tuple[torch.Tensor, ...]
Carry = tuple[torch.Tensor, torch.Tensor]

_SIGNATURES = {
    "attend": (
        "triton_linear_attention",
        "q k v out! totals! lowest! positions pairs state normaliser new_state! new_normaliser!",
    ),
    "query_gradients": (
        "triton_linear_attention_gradients",
        "q k v dout totals dq! d_totals! positions pairs",
    ),
    "key_gradients": (
        "triton_linear_attention_gradients",
        "q k v dout totals d_totals dk! dv! positions pairs",
    ),
}
"""The module of each kernel, and its pointers, with a mark at what it writes."""

_library = torch.library.Library("rotary_spec", "FRAGMENT")


def _launch(name: str, *tensors_and_arguments: Any) -> None:
    *tensors, (programs, warps, stages, *arguments) = tensors_and_arguments
    kernel = getattr(import_module(f"rotary_spec_backends.kernels.{_SIGNATURES[name][0]}"), name)
    with torch.cuda.device_of(tensors[0]):
        kernel[(programs,)](
            *tensors, *arguments, num_warps=warps, num_stages=stages, enable_fp_fusion=True
        )


def _operator(name: str) -> Any:
    pointers = [
        f"Tensor({chr(ord('a') + i)}!) {pointer[:-1]}"
        if pointer[-1] == "!"
        else f"Tensor {pointer}"
        for i, pointer in enumerate(_SIGNATURES[name][1].split())
    ]
    operator = f"linear_attention_{name}"
    _library.define(f"{operator}({', '.join(pointers)}, Scalar[] arguments) -> ()")
    for key in ("CUDA", "CPU"):  # the CPU through Triton's interpreter
        _library.impl(operator, partial(_launch, name), key)
    _library.impl(operator, lambda *_: None, "Meta")
    return getattr(torch.ops.rotary_spec, operator).default


_attend, _query_gradients, _key_gradients = map(_operator, _SIGNATURES)


class Call(NamedTuple):
    """A call that the kernels take: (batch, heads, seq, features), and positions (batch, seq)."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    positions: torch.Tensor
    spec: RotarySpec
    seq_len: int | None
    eps: float

    def arguments(
        self,
        kernel: launch.Kernel,
        others: Sequence[torch.Tensor],
        *extra: float,
        state: bool = False,
    ) -> list[int | float]:
        """A launch's; ``others`` are the arrays with strides that follow q, k and v."""
        every = (self.q, self.k, self.v, *others)
        strides = [*(x.stride()[:-1] for x in every), self.positions.stride()]
        batch, heads, length, _ = self.q.shape
        sizes = launch.Sizes(batch, heads, self.k.shape[1], length, self.v.shape[3])
        itemsize = self.q.element_size()
        return launch.arguments(
            kernel, sizes, self.spec, self.seq_len, itemsize, strides, extra, state
        )

    @property
    def pairs(self) -> torch.Tensor:
        return _pairs(self.spec, self.seq_len, self.q.device)


@lru_cache(maxsize=256)
def _pairs(spec: RotarySpec, seq_len: int | None, device: torch.device) -> torch.Tensor:
    return torch.tensor(launch.pair_table(spec, seq_len), dtype=torch.int64, device=device)


def refusal(
    options: LinearAttentionOptions, tokens: Tokens, carry: Carry, seen: torch.Tensor | None
) -> str | None:
    """Why `run` does not take a call of `chunked.causal`, or None where it does."""
    call = _call(options, tokens, carry, seen)
    return call if isinstance(call, str) else None


def run(
    options: LinearAttentionOptions,
    tokens: Tokens,
    carry: Carry,
    seen: torch.Tensor | None,
    plain: Callable[[Tensors], torch.Tensor],
) -> Any:
    """What `chunked.causal` gives, or why the kernels do not take the call.

    ``plain`` is its output of q, k and v by operations that have a second derivative. A call
    before which nothing was ``seen`` starts a whole sequence: nobody asks for its state, which is
    None here.
    """
    call = _call(options, tokens, carry, seen)
    if isinstance(call, str):
        return call
    shape = (*tokens.features[0].shape[:-1], call.v.shape[-1])
    if _learning(call.q, call.k, call.v):
        out, low = _Attention.apply(call, plain, *tokens.features)
        return (None, None), (out, low)
    if seen is None:
        out, _, lowest = _forward(call, None)
        return (None, None), (out.view(shape), lowest.min())
    old: Any = tuple(x.contiguous() for x in carry)
    new: Any = tuple(map(torch.empty_like, old))
    out, _, lowest = _forward(call, (*old, *new))
    return new, (out.view(shape), lowest.min())


def _call(
    options: LinearAttentionOptions, tokens: Tokens, carry: Carry, seen: torch.Tensor | None
) -> Call | str:
    (q, k, v), (positions, key_mask) = tokens.features, tokens.rows
    assert positions is not None
    reason = unfit((q, k, v), positions, options.spec)
    if reason is not None:
        return reason
    if options.feature_map is not FEATURE_MAPS["elu+1"]:
        return f"feature map {options.feature_map.name!r}"
    if options.denominator != "unrotated":
        return f"denominator {options.denominator!r}"
    if options.spec.head_dim not in launch.WIDTHS:
        return f"head_dim {options.spec.head_dim} is none of {launch.WIDTHS}"
    if key_mask is not None:
        return "a key_mask"
    if not q.numel() or not v.numel():
        return "no elements"
    if any(x.stride(-1) != 1 for x in (q, k, v)):
        return "features that are not neighbours in memory"
    if positions.ndim > 1 and positions.shape[-2] != 1:
        return "positions of each head"
    if seen is not None and _learning(q, k, v, *carry):
        return "the derivative of a state"
    rows = positions.squeeze(-2) if positions.ndim > 1 else positions
    rows = rows.to(torch.int64) if rows.dtype not in (torch.int32, torch.int64) else rows
    rows = rows.expand(*q.shape[:-3], q.shape[-2]).reshape(-1, q.shape[-2])
    try:
        q, k, v = map(_with_batch, (q, k, v))
    except RuntimeError:
        return "leading axes that are not one in memory"
    return Call(q, k, v, rows, options.spec, options.seq_len, options.eps)


def _with_batch(x: torch.Tensor) -> torch.Tensor:
    """As (batch, heads, seq, features), without a copy: a RuntimeError where that takes one."""
    heads = x if x.ndim > 2 else x[None]
    return heads.view(-1, *heads.shape[-3:])


def _learning(*tensors: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def _forward(call: Call, states: Tensors | None) -> Tensors:
    """The output, the denominators of each token, and the least of each head.

    ``states`` are S and z, and memory for new ones.
    """
    q, k, v, positions, *_ = call
    shape = (*q.shape[:-1], v.shape[-1])
    out = torch.empty_like(q) if q.shape == shape else q.new_empty(shape)
    totals = torch.empty(shape[:-1], dtype=torch.float32, device=q.device)
    lowest = torch.empty(shape[:-2], dtype=torch.float32, device=q.device)
    arguments = call.arguments("attend", (out,), call.eps, state=states is not None)
    pointers = states or (lowest,) * 4  # which nobody follows
    _attend(q, k, v, out, totals, lowest, positions, call.pairs, *pointers, arguments)
    return out, totals, lowest


def _backward(call: Call, totals: torch.Tensor, dout: torch.Tensor) -> Tensors:
    """The gradients of q, k and v."""
    q, k, v, positions, *_ = call
    dout = dout if dout.stride(-1) == 1 else dout.contiguous()
    block = launch.blocks_of("query_gradients", q.shape[-1], v.shape[-1], q.element_size()).values
    count = -(-v.shape[-1] // block)
    terms, d_totals = _terms(q, count), totals.new_empty(count, *totals.shape)
    arguments = call.arguments("query_gradients", (dout, terms))
    _query_gradients(q, k, v, dout, totals, terms, d_totals, positions, call.pairs, arguments)
    dq = _sum(terms, q)
    terms, dv = _terms(k, count), torch.empty_like(v)
    arguments = call.arguments("key_gradients", (dout, terms, dv))
    _key_gradients(q, k, v, dout, totals, d_totals, terms, dv, positions, call.pairs, arguments)
    return dq, _sum(terms, k), dv


def _terms(x: torch.Tensor, count: int) -> torch.Tensor:
    """Memory for the terms of a gradient; the gradient itself where it has but one."""
    if count == 1:
        return torch.empty_like(x)[None]
    return torch.empty(count, *x.shape, dtype=torch.float32, device=x.device)


def _sum(terms: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return terms[0] if len(terms) == 1 else terms.sum(dim=0).to(x.dtype)


class _Attention(torch.autograd.Function):  # type: ignore[misc]
    """The output and the least denominator, of q, k and v as they were given."""

    @staticmethod
    def forward(
        ctx: Any, call: Call, plain: Callable[[Tensors], torch.Tensor], *features: torch.Tensor
    ) -> Tensors:
        out, totals, lowest = _forward(call, None)
        low = lowest.min()
        ctx.mark_non_differentiable(low)
        ctx.save_for_backward(*features, call.positions, totals)
        ctx.rest = call[4:], plain
        return out.view(*features[0].shape[:-1], out.shape[-1]), low

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (*features, positions, totals), (rest, plain) = ctx.saved_tensors, ctx.rest
        wanted = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():  # the gradient is to have one too
            out = plain(tuple(features))
            chosen = [x for x, needed in zip(features, wanted) if needed]
            found = iter(torch.autograd.grad(out, chosen, gradients[0], create_graph=True))
            return (None, None, *(next(found) if needed else None for needed in wanted))
        q, k, v = map(_with_batch, features)
        call = Call(q, k, v, positions, *rest)
        dout = gradients[0].reshape(*q.shape[:-1], v.shape[-1])
        every = _backward(call, totals, dout)
        return (
            None,
            None,
            *(
                dx.view(x.shape) if needed else None
                for dx, x, needed in zip(every, features, wanted)
            ),
        )
