"""The Triton kernel as a PyTorch operator, and with a derivative.

``rotary_spec::rotate_rows`` is the bare launch: it writes into memory that it is given and knows
nothing of specs. The backend plans a launch once for every combination of spec, shapes and
strides, and finds the plan again by them, because a call should cost no more than the launch.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch

from rotary_spec._array import dtype_name
from rotary_spec.spec import RotarySpec
from rotary_spec_backends.base import constants
from rotary_spec_backends.kernels import triton_rotation
from rotary_spec_backends.kernels.geometry import (
    MOST,
    UNEVEN,
    Rows,
    in_twos,
    rows_of,
    signed_turns,
)
from rotary_spec_backends.torch_calls import Call, signature
from rotary_spec_backends.torch_derivative import PLAIN, Tensors, traced, with_derivative

_library = torch.library.Library("rotary_spec", "FRAGMENT")
_library.define(
    "rotate_rows(Tensor x, Tensor(a!) y, Tensor x_other, Tensor(b!) y_other, Tensor positions, "
    "Tensor turns, Scalar[] arguments) -> ()"
)


def _launch(*tensors_and_arguments: Any) -> None:
    *tensors, arguments = tensors_and_arguments
    device = tensors[0].get_device()
    if device < 0 or device == torch.cuda.current_device():
        triton_rotation.run(tuple(tensors), tuple(arguments), device)
        return
    with torch.cuda.device(device):
        triton_rotation.run(tuple(tensors), tuple(arguments), device)


_library.impl("rotate_rows", _launch, "CUDA")
_library.impl("rotate_rows", _launch, "CPU")  # through Triton's interpreter
_library.impl("rotate_rows", lambda *_: None, "Meta")
_rotate_rows = torch.ops.rotary_spec.rotate_rows.default

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def refusal(
    arrays: Tensors,
    positions: torch.Tensor,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> str | None:
    """Why `rotate` does not take a call, or None where it does."""
    plan = _plan(arrays, None, positions, spec, axes, seq_len)
    return plan if isinstance(plan, str) else None


def unfit(arrays: Tensors, positions: torch.Tensor, spec: RotarySpec) -> str | None:
    """Why the kernel does not take a call, whatever the strides; None where it may."""
    x = arrays[0]
    for array in (*arrays, positions):
        if type(array) not in PLAIN:
            return f"a {type(array).__name__} is no plain tensor"
        if array.device != x.device:
            return "the arrays are on different devices"
        if array.layout != torch.strided or array.is_neg():
            return "elements that are not in memory as they are"
    if traced():
        return "compiled or transformed calls take plain operations"
    if not x.is_cuda and not (x.is_cpu and triton_rotation.interpreted()):
        return f"device {x.device.type}"
    if (reason := triton_rotation.unavailable()) is not None:
        return reason
    if x.is_cuda and (capability := _capability(x.get_device())) < (8, 0):
        return f"compute capability {capability[0]}.{capability[1]} is below 8.0"
    if spec.sections is not None:
        return "multi-axis positions"
    for array in arrays:
        if array.dtype not in DTYPES:
            return dtype_name(array)
    return None


@lru_cache
def _capability(device: int) -> tuple[int, int]:
    major, minor = torch.cuda.get_device_capability(device)
    return major, minor


class Plan(NamedTuple):
    """The launches of one call: which arrays, and the kernel's arguments; and the frequencies."""

    launches: tuple[tuple[int, int, list[int | float]], ...]
    turns: torch.Tensor


_plans: dict[Any, Plan | str] = {}
_MANY = 4096  # as many combinations of shapes: then the first of them are planned again


def again(call: Call, outs: Tensors | None, signature: Hashable) -> Tensors | None:
    """The result of a call that is like an earlier one in all that was checked; or else None."""
    if outs is not None:
        return None  # how they lie to one another is checked every time
    plan = _plans.get((signature, (False,) * len(call.arrays))) if _plans else None
    return _by_plan(plan, *call) if type(plan) is Plan else None


def rotate(
    arrays: Tensors,
    positions: torch.Tensor,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> Tensors | str:
    """The rotated arrays, or why the kernel does not take the call."""
    plan = _plan(arrays, None, positions, spec, axes, seq_len)
    if isinstance(plan, str):
        return plan
    return _by_plan(plan, arrays, positions, spec, axes, seq_len)


def rotate_into(
    outs: Tensors,
    arrays: Tensors,
    positions: torch.Tensor,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> str | None:
    """Rotate into checked memory, or say why the kernel does not."""
    plan = _plan(arrays, outs, positions, spec, axes, seq_len)
    if isinstance(plan, str):
        return plan
    with torch.no_grad():
        _execute(plan, arrays, outs, positions)
    torch.autograd.graph.increment_version(outs)
    return None


def _by_plan(
    plan: Plan,
    arrays: Tensors,
    positions: torch.Tensor,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> Tensors:
    return with_derivative(partial(_rotated, plan), arrays, positions, spec, axes, seq_len)


def _rotated(plan: Plan, arrays: Tensors, positions: torch.Tensor) -> Tensors:
    outs = tuple(map(torch.empty_like, arrays))
    _execute(plan, arrays, outs, positions)
    return outs


def _execute(plan: Plan, arrays: Tensors, outs: Tensors, positions: torch.Tensor) -> None:
    if positions.dtype not in (torch.int64, torch.int32):
        positions = positions.to(torch.int64)
    for i, j, arguments in plan.launches:
        _rotate_rows(arrays[i], outs[i], arrays[j], outs[j], positions, plan.turns, arguments)


def _plan(
    arrays: Tensors,
    outs: Tensors | None,
    positions: torch.Tensor,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> Plan | str:
    """The plan of a call, or why there is none; ``outs`` of None are new memory."""
    reason = unfit(arrays if outs is None else (*arrays, *outs), positions, spec)
    if reason is not None:
        return reason
    if outs is None:
        in_place = (False,) * len(arrays)
    else:
        in_place = tuple(x.data_ptr() == y.data_ptr() for x, y in zip(arrays, outs))
    if spec.output_layout is not None and any(in_place):
        return "layouts that differ, in place"  # threads would overwrite what others still read
    key = signature(arrays, positions, spec, axes, seq_len, outs or ()), in_place
    if key not in _plans:
        if len(_plans) >= _MANY:
            del _plans[next(iter(_plans))]
        targets = tuple(map(torch.empty_like, arrays)) if outs is None else outs
        _plans[key] = _make_plan(arrays, targets, in_place, positions, spec, axes, seq_len)
    return _plans[key]


def _make_plan(
    arrays: Tensors,
    outs: Tensors,
    in_place: tuple[bool, ...],
    positions: torch.Tensor,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> Plan | str:
    every: list[Rows] = []
    for x, y, axis in zip(arrays, outs, axes):
        if x.stride(-1) != 1 or y.stride(-1) != 1:
            return "lanes that are not neighbours in memory"
        rows = rows_of(x.shape, x.stride(), y.stride(), axis, positions.shape, positions.stride())
        if rows is None or rows.tokens.count >= MOST or rows.count >= MOST:
            return UNEVEN
        every.append(rows)
    _, magnitude = constants(spec, seq_len)
    keys = [(rows.tokens, x.dtype, same) for rows, x, same in zip(every, arrays, in_place)]
    launches = []
    for i, j in in_twos(keys):
        rows_of_launch = (every[i],) if i == j else (every[i], every[j])
        itemsize = arrays[i].element_size()
        arguments = triton_rotation.launch(rows_of_launch, spec, magnitude, itemsize, in_place[i])
        if arguments[0]:  # programs
            launches.append((i, j, list(arguments)))
    return Plan(tuple(launches), _turns(spec, seq_len, arrays[0].device))


@lru_cache(maxsize=256)
def _turns(spec: RotarySpec, seq_len: int | None, device: torch.device) -> torch.Tensor:
    return torch.tensor(signed_turns(spec, seq_len), dtype=torch.int64, device=device)
