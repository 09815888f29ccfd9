"""The derivative of a rotation that autograd cannot look into: the rotation of the transposed spec.

Also when not to hide one from autograd: a compiler or a transform wants operations that it knows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from rotary_spec.spec import RotarySpec

Tensors = tuple[torch.Tensor, ...]
Rotation = Callable[[Tensors, torch.Tensor], Tensors]
"""Arrays and positions to new, rotated arrays, outside autograd."""

PLAIN = (torch.Tensor, torch.nn.Parameter)
"""The types whose tensors are no more than memory."""


def traced() -> bool:
    """Whether a tracer or a transform looks at every operation now, and wants traceable ones."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
    )


def with_derivative(
    rotation: Rotation,
    arrays: Tensors,
    positions: torch.Tensor,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> Tensors:
    """``rotation(arrays, positions)``, recorded for the backward pass where one is wanted.

    Parameters
    ----------
    rotation : callable
        Rotates by ``spec``, ``axes`` and ``seq_len``; the backward pass goes through the backend
        again, whatever it picks for the gradients.
    arrays, positions, spec, axes, seq_len
        As for `Backend._rotate`.
    """
    if torch.is_grad_enabled() and any(array.requires_grad for array in arrays):
        rotated: Tensors = _Rotation.apply(rotation, positions, spec, axes, seq_len, *arrays)
        return rotated
    return rotation(arrays, positions)


class _Rotation(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        rotation: Rotation,
        positions: torch.Tensor,
        spec: RotarySpec,
        axes: tuple[int, ...],
        seq_len: int | None,
        *arrays: torch.Tensor,
    ) -> Tensors:
        ctx.save_for_backward(positions)
        ctx.rest = spec, axes, seq_len
        ctx.set_materialize_grads(False)
        return rotation(arrays, positions)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        from rotary_spec_backends.torch_backend import rotate_tensors

        (positions,), (spec, axes, seq_len) = ctx.saved_tensors, ctx.rest
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[5:]) if needed]
        given = {i: g for i in wanted if (g := gradients[i]) is not None}
        if not given:
            return (None,) * (5 + len(gradients))
        back = rotate_tensors(
            tuple(given.values()),
            positions,
            _transposed(spec),
            tuple(axes[i] for i in given),
            seq_len,
        )
        found = dict(zip(given, back))
        return (*(None,) * 5, *(found.get(i) for i in range(len(gradients))))


_transposed = lru_cache(maxsize=256)(RotarySpec.transposed)
