"""PyTorch: traceable tensor operations, differentiable, under torch.compile and torch.func too."""

from __future__ import annotations

from typing import Any

from rotary_spec._array import move_axis
from rotary_spec.layouts import put_pairs, rotated_lanes, take_pairs
from rotary_spec.spec import RotarySpec
from rotary_spec_backends import torch_attention
from rotary_spec_backends.base import Backend, tables
from rotary_spec_backends.blocked_attention import SoftmaxOptions
from rotary_spec_backends.chunked import Tools
from rotary_spec_backends.frameworks import Array, TorchFramework


class TorchBackend(Backend):
    """The spec in PyTorch, on any device with int64; Apple's MPS, without float64, included."""

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

    def _rotate(
        self,
        arrays: tuple[Array, ...],
        positions: Array,
        spec: RotarySpec,
        axes: tuple[int, ...],
        seq_len: int | None,
    ) -> tuple[Array, ...]:
        import array_api_compat.torch as xp

        cos, sin = tables(positions, spec, seq_len, xp)
        narrow = cos.float(), sin.float()
        return tuple(
            self._apply(x, *((cos, sin) if x.dtype == xp.float64 else narrow), spec, axis)
            for x, axis in zip(arrays, axes)
        )

    def _tools(self, xp: Any) -> Tools:
        return torch_attention.tools(xp, self._turn)

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

    def _apply(self, x: Array, cos: Array, sin: Array, spec: RotarySpec, axis: int) -> Array:
        import array_api_compat.torch as xp

        lanes = move_axis(x, axis, -2, xp)
        rotated = rotated_lanes(spec)
        first, second = (part.to(cos.dtype) for part in take_pairs(lanes, spec, xp))
        turned = put_pairs(first * cos - second * sin, second * cos + first * sin, spec, xp)
        turned = turned.to(x.dtype)
        if spec.rotary_dim < spec.head_dim:
            parts = [lanes[..., : rotated.start], turned, lanes[..., rotated.stop :]]
            turned = xp.concat(parts, axis=-1)
        return move_axis(turned, -2, axis, xp)
