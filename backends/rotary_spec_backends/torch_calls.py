"""What the checks of a call look at, before they are made: a like call may have passed them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch

from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import plain_axes
from rotary_spec_backends.torch_derivative import PLAIN, Tensors, traced


class Call(NamedTuple):
    """A call of `Backend.rotate` as `Backend._rotate` takes it, unchecked."""

    arrays: Tensors
    positions: torch.Tensor
    spec: RotarySpec
    axes: tuple[int, ...]
    seq_len: int | None


def plain(x: Any, positions: Any, spec: Any, seq_axis: Any, seq_len: Any) -> Call | None:
    """The call, where tensors are no more than memory and nothing wants to see operations."""
    if type(positions) is not torch.Tensor or traced():
        return None
    arrays = x if type(x) is tuple else (x,)
    if not all(map(_memory, arrays)):
        return None
    axes = plain_axes(arrays, spec, seq_axis, seq_len)
    return None if axes is None else Call(arrays, positions, spec, axes, seq_len)


def plain_outputs(out: Any, call: Call, several: bool) -> Tensors | None:
    """``out`` as a tuple, where it is like x and no derivative is asked for."""
    outs = out if several else (out,)
    if type(outs) is not tuple or len(outs) != len(call.arrays) or not all(map(_memory, outs)):
        return None
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in (*call.arrays, *outs))
    return None if recorded else outs


def _memory(array: Any) -> bool:
    return type(array) in PLAIN and array.layout == torch.strided and not array.is_neg()


def signature(
    arrays: Sequence[torch.Tensor],
    positions: torch.Tensor,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
    outs: Sequence[torch.Tensor] = (),
) -> Hashable:
    """All that a plan depends on; without ``outs`` the results are new memory, like the arrays."""
    every = [(a.dtype, a.device, a.shape, a.stride()) for a in (positions, *arrays, *outs)]
    return spec, axes, seq_len, *every
