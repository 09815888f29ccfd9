"""PyTorch on the CPU: the host engines on the memory of plain tensors."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import torch

from rotary_spec._array import dtype_name
from rotary_spec.spec import RotarySpec
from rotary_spec_backends.host import small
from rotary_spec_backends.host.pages import prefer_large_pages
from rotary_spec_backends.host.route import no_numba, rotate_host
from rotary_spec_backends.torch_calls import Call, signature
from rotary_spec_backends.torch_derivative import PLAIN, Tensors, traced, with_derivative


def refusal(
    arrays: Tensors,
    positions: torch.Tensor,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> str | None:
    """Why a call needs operations that PyTorch can follow; None where memory is enough."""
    return _refusal((*arrays, positions))


def _refusal(tensors: Tensors) -> str | None:
    for x in tensors:
        if type(x) not in PLAIN:
            return f"a {type(x).__name__} is no plain tensor"
        if x.device.type != "cpu":
            return f"device {x.device.type}"
    if traced() or torch._C._len_torch_dispatch_stack():
        return "compiled or transformed calls take plain operations"
    if any(x.layout != torch.strided or x.is_neg() for x in tensors):
        return "elements that are not in memory as they are"
    return None


def rotate(
    arrays: Tensors,
    positions: torch.Tensor,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> Tensors | str:
    """The rotated arrays, or why this is not for the host engines."""
    reason = _refusal((*arrays, positions))
    if reason is not None:
        return reason
    rotation = partial(_rotated, spec=spec, axes=axes, seq_len=seq_len)
    return with_derivative(rotation, arrays, positions, spec, axes, seq_len)


def again(call: Call, outs: Tensors | None, signature: Hashable) -> Tensors | None:
    """The result of a small call that is like an earlier one in all that was checked; or None."""
    key = signature if outs is None else (signature, _in_place(call.arrays, outs))
    plan = small.find(key) if no_numba() is None else None
    if plan is None or any(x.data_ptr() % x.element_size() for x in (*call.arrays, *(outs or ()))):
        return None
    if outs is None:
        return with_derivative(partial(_rotated_again, plan), *call)
    addresses = [(x.data_ptr(), out.data_ptr()) for x, out in zip(call.arrays, outs)]
    if not small.apart(plan, addresses):
        return None
    small.run(plan, addresses, call.positions.data_ptr())
    torch.autograd.graph.increment_version(outs)
    return outs


def _rotated_again(plan: small.Plan, arrays: Tensors, positions: torch.Tensor) -> Tensors:
    outs = tuple(map(torch.empty_like, arrays))
    addresses = [(x.data_ptr(), out.data_ptr()) for x, out in zip(arrays, outs)]
    small.run(plan, addresses, positions.data_ptr())
    return outs


def rotate_into(
    outs: Tensors,
    arrays: Tensors,
    positions: torch.Tensor,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> str | None:
    """Rotate into checked memory, or say why this is not for the host engines."""
    reason = _refusal((*outs, *arrays, positions))
    if reason is None:
        plan = _rotate(outs, arrays, positions, spec, axes, seq_len)
        if plan is not None:
            key = signature(arrays, positions, spec, axes, seq_len, outs)
            small.remember((key, _in_place(arrays, outs)), plan)
        torch.autograd.graph.increment_version(outs)  # a graph that saved one sees its change
    return reason


def _in_place(arrays: Tensors, outs: Tensors) -> tuple[bool, ...]:
    return tuple(x.data_ptr() == out.data_ptr() for x, out in zip(arrays, outs))


def _rotated(
    arrays: Tensors, positions: torch.Tensor, *, spec: RotarySpec, axes: Any, seq_len: Any
) -> Tensors:
    # Dense strides are kept, as PyTorch's own elementwise operations keep them.
    outs = tuple(torch.empty_like(x) for x in arrays)
    for out in outs:
        prefer_large_pages(out.data_ptr(), out.nbytes)
    plan = _rotate(outs, arrays, positions, spec, axes, seq_len, fresh=True)
    if plan is not None:
        small.remember(signature(arrays, positions, spec, axes, seq_len), plan)
    return outs


def _rotate(
    outs: Tensors,
    arrays: Tensors,
    positions: torch.Tensor,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
    fresh: bool = False,
) -> small.Plan | None:
    items = [
        (words(out), words(x), dtype_name(x), axis) for out, x, axis in zip(outs, arrays, axes)
    ]
    ids = positions.detach().numpy()
    return rotate_host(items, ids, spec, seq_len, torch.get_num_threads, fresh=fresh)


def words(x: torch.Tensor) -> Any:
    """The tensor's memory as a NumPy array, bfloat16 as uint16."""
    x = x.detach()
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()
