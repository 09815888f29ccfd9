"""PyTorch: kernels where one fits, and traceable tensor operations everywhere else.

A kernel is a module with four functions. Three take what `Backend._rotate` takes: ``refusal``
gives the reason why it does not take a call, or None where it does; ``rotate`` gives the rotated
arrays and ``rotate_into`` None, or the reason likewise. ``again`` takes a call before it is
checked, and its signature, and gives the rotated arrays if it took a call of that signature before.
`_KERNELS` names them in the order in which they are asked. The traceable form is differentiable,
and serves torch.compile and torch.func.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

from rotary_spec._array import move_axis
from rotary_spec.errors import DtypeError
from rotary_spec.layouts import put_pairs, rotated_lanes, take_pairs
from rotary_spec.linear_attention_terms import LinearAttentionOptions
from rotary_spec.spec import RotarySpec
from rotary_spec_backends import chunked, torch_attention
from rotary_spec_backends.base import Backend, tables
from rotary_spec_backends.blocked_attention import SoftmaxOptions
from rotary_spec_backends.chunked import Tools
from rotary_spec_backends.frameworks import Array, TorchFramework

_KERNELS = {
    "triton": "rotary_spec_backends.kernels.torch_rotation",
    "cpu": "rotary_spec_backends.torch_host",
}
_CALLS = "rotary_spec_backends.torch_calls"
_LINEAR_ATTENTION = "rotary_spec_backends.kernels.torch_linear_attention"


class TorchBackend(Backend):
    """The spec in PyTorch, on any device with int64; Apple's MPS, without float64, included.

    On CUDA devices a Triton kernel rotates one array or two in one launch, wherever `route` says
    so; its derivative is the same kernel. On the CPU the engines of the NumPy backend work on the
    tensors' memory, with as many threads as PyTorch has.

    A spec is a constant of what `torch.compile` compiles: make it outside and keep it. Another spec
    object, an equal one too, has it compiled once more.
    """

    name = "torch"
    extra = "torch"
    framework_type = TorchFramework

    @classmethod
    def _devices(cls) -> tuple[str, ...] | str:
        import torch

        devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        if torch.backends.mps.is_available():
            devices.append("mps")
        return tuple(devices)

    def _ids(self, positions: Any, like: Array) -> Array:
        import torch

        if positions.dtype.kind != "f":
            positions = positions.astype("int64")
        return torch.asarray(positions, device=like.device)

    def _again(
        self, x: Any, positions: Any, spec: Any, seq_axis: Any, seq_len: Any, out: Any
    ) -> tuple[Array, ...] | None:
        calls: Any = sys.modules.get(_CALLS)  # loaded by the kernels, on their first call
        if calls is None or calls.torch.compiler.is_compiling():
            return None
        call = calls.plain(x, positions, spec, seq_axis, seq_len)
        if call is None:
            return None
        outs = None if out is None else calls.plain_outputs(out, call, type(x) is tuple)
        if out is not None and outs is None:
            return None
        signature = calls.signature(*call, outs or ())
        for module in _kernels().values():
            rotated = module.again(call, outs, signature)
            if rotated is not None:
                return rotated  # type: ignore[no-any-return]
        return None

    def route(
        self,
        x: Array | Sequence[Array],
        positions: Array,
        spec: RotarySpec,
        *,
        seq_axis: int = -2,
        seq_len: int | None = None,
    ) -> str:
        """How `rotate` would go about this call: the name of a kernel, or why there is none.

        Takes what `rotate` does, and raises what it does.

        Returns
        -------
        str
            "triton", say, or "traceable (triton: float64)".
        """
        arrays, positions, axes = self._checked(x, positions, spec, seq_axis)
        reasons = []
        for name, module in _kernels().items():
            reason = module.refusal(arrays, positions, spec, axes, seq_len)
            if reason is None:
                return name
            reasons.append(f"{name}: {reason}")
        return f"traceable ({'; '.join(reasons)})"

    def _rotate(
        self,
        arrays: tuple[Array, ...],
        positions: Array,
        spec: RotarySpec,
        axes: tuple[int, ...],
        seq_len: int | None,
    ) -> tuple[Array, ...]:
        return rotate_tensors(arrays, positions, spec, axes, seq_len)

    def _rotate_into(
        self,
        outs: tuple[Array, ...],
        arrays: tuple[Array, ...],
        positions: Array,
        spec: RotarySpec,
        axes: tuple[int, ...],
        seq_len: int | None,
    ) -> None:
        import torch

        if torch.is_grad_enabled() and any(t.requires_grad for t in (*arrays, *outs)):
            raise DtypeError(
                "out= records no derivative, but x or out requires one. Hint: leave out away, or "
                "call under torch.no_grad()."
            )
        if not torch.compiler.is_compiling():
            for module in _kernels().values():
                if module.rotate_into(outs, arrays, positions, spec, axes, seq_len) is None:
                    return
        super()._rotate_into(outs, arrays, positions, spec, axes, seq_len)

    def linear_attention_route(self, *arguments: Any, **keywords: Any) -> str:
        """How `linear_attention` would go about this call: by a kernel, or why by none.

        Takes what `linear_attention` does, and raises what it does for bad arguments.

        Returns
        -------
        str
            "triton", "cpu (triton: device cpu)" where a CPU kernel has part in the chunked form,
            or "chunked (triton: a key_mask; cpu: a key_mask)", say.
        """
        try:
            _Asked(self).linear_attention(*arguments, **keywords)
        except _Route as route:
            return str(route)
        return "chunked (no tokens)"

    def _namespace(self, *arrays: Array) -> Any:
        import array_api_compat.torch as xp  # torch.compile warns of the caches of a search for it

        return xp

    def _tools(self, xp: Any) -> Tools:
        return torch_attention.tools(xp, self._turn)

    def _run(
        self, form: Any, options: LinearAttentionOptions, chunk: int, xp: Any, *arrays: Any
    ) -> Any:
        def plain(features: tuple[Array, ...]) -> Array:
            tokens, *rest = arrays
            tokens = tokens._replace(features=features)
            return form(self._tools(xp), options, chunk, tokens, *rest)[1][0]

        if form is chunked.causal and not xp.compiler.is_compiling():
            kernel = import_module(_LINEAR_ATTENTION)
            result = kernel.run(options, *arrays, plain)
            if not isinstance(result, str):
                return result
        return torch_attention.run(self._tools(xp), form, options, chunk, *arrays)

    def _softmax_attention(
        self,
        q: Array,
        k: Array,
        v: Array,
        positions: Array,
        key_positions: Array | None,
        mask: Array | None,
        options: SoftmaxOptions,
    ) -> Array:
        def turn(x: Array, ids: Array) -> Array:
            return self._rotate((x,), ids, options.spec, (-2,), options.seq_len)[0]

        turned_q = turn(q, positions)
        turned_k = turn(k, positions if key_positions is None else key_positions)
        return torch_attention.fused_attention(
            turned_q, turned_k, v, positions, key_positions, mask, options
        )


class _Route(Exception):
    """The answer of `TorchBackend.linear_attention_route`."""


class _Asked(TorchBackend):
    """Checks a call, and answers instead of computing."""

    def __init__(self, backend: TorchBackend) -> None:
        self.framework = backend.framework

    def _run(
        self, form: Any, options: LinearAttentionOptions, chunk: int, xp: Any, *arrays: Any
    ) -> Any:
        if form is not chunked.causal:
            raise _Route("chunked (triton: not causal by index)")
        reason = import_module(_LINEAR_ATTENTION).refusal(options, *arrays)
        if reason is None:
            raise _Route("triton")
        other = torch_attention.kernel_refusal(options, *arrays[:2])
        if other is None:
            raise _Route(f"cpu (triton: {reason})")
        raise _Route(f"chunked (triton: {reason}; cpu: {other})")


def rotate_tensors(
    arrays: tuple[Array, ...],
    positions: Array,
    spec: RotarySpec,
    axes: tuple[int, ...],
    seq_len: int | None,
) -> tuple[Array, ...]:
    """`Backend._rotate` by the first kernel that takes the call, or by traceable operations."""
    import array_api_compat.torch as xp

    if not xp.compiler.is_compiling():
        for module in _kernels().values():
            rotated = module.rotate(arrays, positions, spec, axes, seq_len)
            if not isinstance(rotated, str):
                return rotated  # type: ignore[no-any-return]
    cos, sin = tables(positions, spec, seq_len, xp)
    narrow = cos.float(), sin.float()
    return tuple(
        _apply(x, *((cos, sin) if x.dtype == xp.float64 else narrow), spec, axis)
        for x, axis in zip(arrays, axes)
    )


@cache
def _kernels() -> dict[str, Any]:
    return {name: import_module(module) for name, module in _KERNELS.items()}


def _apply(x: Array, cos: Array, sin: Array, spec: RotarySpec, axis: int) -> Array:
    import array_api_compat.torch as xp

    lanes = move_axis(x, axis, -2, xp)
    rotated = rotated_lanes(spec)
    first, second = (part.to(cos.dtype) for part in take_pairs(lanes, spec, xp))
    turned = first * cos - second * sin, second * cos + first * sin
    # Rounded before they are joined: compiled for a CPU, the other way takes twice as long.
    first, second = (member.to(x.dtype) for member in turned)
    joined = put_pairs(first, second, spec, xp)
    if spec.rotary_dim < spec.head_dim:
        parts = [lanes[..., : rotated.start], joined, lanes[..., rotated.stop :]]
        joined = xp.concat(parts, axis=-1)
    return move_axis(joined, -2, axis, xp)
