"""What PyTorch has of its own for attention: the fused kernel, and differentiable loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from rotary_spec import RotarySpec
from rotary_spec._array import has_dtype
from rotary_spec.attention_arguments import causal_mask, group_size, has_axes, order
from rotary_spec.linear_attention_terms import LinearAttentionOptions
from rotary_spec_backends.base import constants, tables
from rotary_spec_backends.blocked_attention import SoftmaxOptions
from rotary_spec_backends.chunked import (
    ALL,
    Step,
    Tokens,
    Tools,
    causal,
    is_long,
    least,
    python_scan,
)
from rotary_spec_backends.frameworks import Array

CHUNKS = 1
RADIANS = 2 * math.pi / 2**64


def scan(
    step: Step, carry: Any, tokens: Tokens, sizes: list[int], xp: Any
) -> tuple[Any, Array | None, Array | None]:
    """`chunked.Tools.scan`. Backward recomputes each part: what is kept is inputs and carries.

    A compiler decides by itself what to recompute, and `torch.func` knows no checkpoints.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    transformed = _transformed()
    if not _learning(*tokens.features, *carry) and not transformed:
        return python_scan(step, carry, tokens, sizes, xp)
    if not torch.compiler.is_compiling() and not transformed:
        step = partial(checkpoint, step, use_reentrant=False, preserve_rng_state=False)
    outs, lows = [], []
    for part in parts(tokens, sizes):
        carry, out, low = step(carry, part)
        outs.append(out)
        lows.append(low)
    joined = None if outs[0] is None else torch.cat(outs, dim=-2)
    return carry, joined, least(lows, xp)


def tools(xp: Any, turn: Callable[..., tuple[Array, ...]]) -> Tools:
    """PyTorch's loop and products; a compiler gets all chunks at once, for it unrolls loops."""
    import torch

    if torch.compiler.is_compiling():
        return Tools(xp, turn, scan, ALL, torch.tril)
    if _transformed():
        return Tools(xp, turn, scan, 1, _masked)
    return Tools(xp, _turn_whole(turn), scan, CHUNKS, _tril, _add_product)


def run(tools: Tools, form: Any, options: LinearAttentionOptions, chunk: int, *arrays: Any) -> Any:
    """A form of `chunked`; the causal one in place where neither gradients nor tracers see it."""
    import torch

    if form is causal and _is_plain(*arrays[:2]):
        from rotary_spec_backends import torch_host_attention, torch_linear_attention

        with torch.no_grad():
            if torch_host_attention.refusal(arrays[0], options) is None:
                return torch_host_attention.causal(options, chunk, *arrays[:2])
            table = _complex_table if _is_whole(options.spec) else None
            return torch_linear_attention.causal(tools.turn, table, options, chunk, *arrays)
    return form(tools, options, chunk, *arrays)


def kernel_refusal(options: LinearAttentionOptions, tokens: Tokens, carry: Any) -> str | None:
    """Why the CPU kernel has no part in a causal call; None where it has."""
    if not _is_plain(tokens, carry):
        return "derivatives and tracers take plain operations"
    from rotary_spec_backends import torch_host_attention

    return torch_host_attention.refusal(tokens, options)


def _is_plain(tokens: Tokens, carry: Any) -> bool:
    """Whether neither gradients nor tracers are to see a call."""
    import torch

    if torch.compiler.is_compiling() or _transformed():
        return False
    return not _learning(*tokens.features, *carry)


def _learning(*arrays: Array) -> bool:
    import torch

    return torch.is_grad_enabled() and any(x.requires_grad for x in arrays)


def _is_whole(spec: RotarySpec) -> bool:
    """Whether every lane is rotated and pairs are neighbours: complex numbers as they lie."""
    return (
        spec.layout == "interleaved" and not spec.output_layout and spec.rotary_dim == spec.head_dim
    )


def _turn_whole(turn: Callable[..., tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """``turn``, by one complex product where the spec allows it."""

    def turned(
        arrays: tuple[Array, ...], positions: Array, options: LinearAttentionOptions
    ) -> tuple[Array, ...]:
        if not _is_whole(options.spec):
            return turn(arrays, positions, options)
        import torch

        table = _complex_table(arrays[0], positions, options)
        return tuple(
            torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * table).flatten(-2)
            for x in arrays
        )

    return turned


def _complex_table(like: Array, positions: Array, options: LinearAttentionOptions) -> Array:
    """A e^{i m theta} of each pair, of the width of ``like``.

    For float32 the phase goes through one float64, which is off by 2^-53 turn: a quarter of the
    work of `tables`, and not to be seen after rounding.
    """
    import array_api_compat.torch as xp
    import torch

    spec = options.spec
    if like.dtype == torch.float64 or has_axes(spec) or not has_dtype(xp, "float64", like):
        cos, sin = tables(positions, spec, options.seq_len, xp)
        return torch.complex(*(x.to(like.dtype) for x in (cos, sin)))
    turns, magnitude = constants(spec, options.seq_len)
    signed = [(turn + 2**63) % 2**64 - 2**63 for turn in turns]
    step = torch.tensor(signed, dtype=torch.int64, device=like.device)
    angle = (positions.to(torch.int64)[..., None] * step).double()  # wraps: one turn is 2^64
    angle *= -RADIANS if spec.inverse else RADIANS
    cos, sin = angle.cos(), angle.sin()
    if magnitude != 1:
        cos, sin = magnitude * cos, magnitude * sin
    return torch.complex(cos.float(), sin.float())


def _transformed() -> bool:
    """Whether a transformation of `torch.func` is at work."""
    import torch

    return torch._C._functorch.peek_interpreter_stack() is not None


def _masked(x: Array) -> Array:
    """The lower triangles: vmap has no rule for tril of a batch."""
    import torch

    return x * torch.tril(torch.ones(x.shape[-2:], dtype=x.dtype, device=x.device))


def _tril(x: Array) -> Array:
    return x.tril() if x.requires_grad else x.tril_()


def _add_product(c: Array, a: Array, b: Array) -> Array:
    import torch

    flat = torch.baddbmm(*(x.flatten(0, -3) for x in (c, a, b)))
    return flat.unflatten(0, a.shape[:-2])


def parts(tokens: Tokens, sizes: list[int]) -> list[Tokens]:
    """The parts by `torch.split`, whose gradient is one concatenation.

    The gradient of a slice is as long as the sequence: one for each part would be quadratic.
    """
    import torch

    features = [torch.split(x, sizes, dim=-2) for x in tokens.features]
    rows = [
        torch.split(row, sizes, dim=-1) if is_long(row) else [row] * len(sizes)
        for row in tokens.rows
    ]
    return [
        Tokens(tuple(x[i] for x in features), tuple(row[i] for row in rows))
        for i in range(len(sizes))
    ]


def fused_attention(
    q: Array,
    k: Array,
    v: Array,
    positions: Array,
    key_positions: Array | None,
    mask: Array | None,
    options: SoftmaxOptions,
) -> Array:
    """`torch.nn.functional.scaled_dot_product_attention` of rotated q and k."""
    import array_api_compat.torch as xp
    import torch

    square = key_positions is None  # the same tokens: the kernel's own causal mask
    visible = mask
    if options.causal and not (square and mask is None):
        later = order(q, k, positions, key_positions, options.spec, xp)
        visible = causal_mask(*later)
        visible = visible if mask is None else visible & mask
    out = torch.nn.functional.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=visible,
        is_causal=options.causal and visible is None,
        scale=options.scale,
        enable_gqa=group_size(q, k) > 1,
    )
    if visible is not None:  # kernels differ in what a row without keys gives
        out = torch.where(visible.any(dim=-1, keepdim=True), out, 0.0)
    return out
