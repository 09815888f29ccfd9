"""The usual call shapes: each is one small function that turns an object into a `Rotary`.

A `Rotary` is ``f(x, positions) -> y`` with x of shape (batch, heads, seq, head_dim).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

import rotary_spec as rs
from rotary_spec.layouts import put_pairs
from rotary_spec_backends import Framework
from rotary_spec_conformance.target import PositionKind, Rotary

Order = Literal["bhsd", "bshd"]

SHAPES: dict[str, str] = {
    "x-positions": "f(x, positions) -> y",
    "x-offset": "f(x, offset=m) -> y",
    "x": "f(x) -> y, positions 0, 1, 2, ...",
    "x-cos-sin": "f(x, cos, sin) -> y",
    "qk-cos-sin": "f(q, k, cos, sin) -> (q, k)",
    "qk-freqs-cis": "f(xq, xk, freqs_cis) -> (xq, xk), complex table",
    "tables": "module(x, position_ids) -> (cos, sin), applied by apply=f(q, k, cos, sin)",
}
"""Call shapes that `adapt` knows, with what each looks like."""

GIVEN_TABLES = ("x-cos-sin", "qk-cos-sin", "qk-freqs-cis")
"""Those whose caller supplies cos and sin."""

OFFSET_NAMES = ("offset", "seq_offset", "start", "start_pos", "seqlen_offset", "start_index")


def parameters(obj: Any) -> list[inspect.Parameter]:
    """Parameters that a caller passes, of the function or of a module's forward."""
    forward = getattr(obj, "forward", None)
    try:
        signature = inspect.signature(forward if callable(forward) else obj)
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in signature.parameters.values() if p.kind not in kinds]


@dataclass(frozen=True)
class Call:
    """What every call shape needs to know."""

    framework: Framework
    spec: rs.RotarySpec
    order: Order
    apply: Callable[..., Any] | None
    axes: int | None = None
    axes_last: bool = False

    def enter(self, x: Any) -> Any:
        """(batch, heads, seq, head_dim) into the order that the code takes."""
        return x if self.order == "bhsd" else _swap(x)

    leave = enter

    def ids(self, positions: Any) -> Any:
        """Explicit positions with their axes where the code has them."""
        for axis in range(positions.ndim - 1 if self.axes_last else 0):
            positions = positions.swapaxes(axis, axis + 1)
        return positions

    def tables(self, x: Any, positions: Any, width: str) -> tuple[Any, Any]:
        """The spec's own cos and sin in the dtype of ``x``, shape (seq, width) or so."""
        ids = self.framework.to_numpy(positions)
        dtype = self.framework.dtype_of(x)

        def widened(table: Any) -> Any:
            if width == "full":
                table = put_pairs(table, table, replace(self.spec, output_layout=None), np)
            return self.framework.asarray(table, dtype)

        cos, sin = rs.cos_sin(ids, self.spec, dtype=np.float64)
        return widened(cos), widened(sin)


def _swap(x: Any) -> Any:
    return x.swapaxes(1, 2)


def _x_positions(call: Call, f: Any) -> Rotary:
    return lambda x, positions: call.leave(f(call.enter(x), call.ids(positions)))


def _x_offset(call: Call, f: Any) -> Rotary:
    name = next((p.name for p in parameters(f)[1:] if p.name in OFFSET_NAMES), "offset")
    return lambda x, positions: call.leave(f(call.enter(x), **{name: positions}))


def _x(call: Call, f: Any) -> Rotary:
    return lambda x, positions: call.leave(f(call.enter(x)))


def _with_tables(call: Call, f: Any) -> Callable[..., Any]:
    """``f(*tensors, cos, sin)`` with tables of whichever width it takes."""
    batched = any(p.name == "unsqueeze_dim" for p in parameters(f))
    extra = {"unsqueeze_dim": 2} if batched and call.order == "bshd" else {}

    def shaped(table: Any) -> Any:
        if batched:
            return table[None]  # (1, seq, width): the function puts the heads axis in
        return table[:, None] if call.order == "bshd" else table

    def rotate(*tensors: Any, positions: Any) -> Any:
        problem: Exception | None = None
        for width in ("full", "half"):
            tables = [shaped(t) for t in call.tables(tensors[0], positions, width)]
            try:
                out = f(*(call.enter(t) for t in tensors), *tables, **extra)
            except Exception as error:  # the wrong width raises in as many ways as there are codes
                problem = problem or error
                continue
            return tuple(map(call.leave, out)) if isinstance(out, tuple | list) else call.leave(out)
        assert problem is not None
        raise problem

    return rotate


def _x_cos_sin(call: Call, f: Any) -> Rotary:
    rotate = _with_tables(call, f)
    return lambda x, positions: rotate(x, positions=positions)


def _qk_cos_sin(call: Call, f: Any) -> Rotary:
    rotate = _with_tables(call, f)
    return lambda x, positions: rotate(x, x, positions=positions)[0]


def _qk_freqs_cis(call: Call, f: Any) -> Rotary:
    rotate = _complex_pair(call, f)
    return lambda x, positions: rotate(x, x, positions)[0]


def _complex_pair(call: Call, f: Any) -> Callable[[Any, Any, Any], Any]:
    def rotate(q: Any, k: Any, positions: Any) -> Any:
        ids = call.framework.to_numpy(positions)
        cos, sin = rs.cos_sin(ids, call.spec, dtype=np.float64)
        wide = call.framework.dtype_of(q) == "float64"
        table = call.framework.asarray(cos + 1j * sin, "complex128" if wide else "complex64")
        return tuple(map(call.leave, f(call.enter(q), call.enter(k), table)))

    return rotate


def _tables(call: Call, module: Any) -> Rotary:
    rotate = _module_pair(call, module)
    return lambda x, positions: rotate(x, x, positions)[0]


def _module_pair(call: Call, module: Any) -> Callable[[Any, Any, Any], Any]:
    assert call.apply is not None
    apply = call.apply
    # Transformers' own functions put the heads axis of the tables where this says.
    extra = {}
    if call.order == "bshd" and any(p.name == "unsqueeze_dim" for p in parameters(apply)):
        extra = {"unsqueeze_dim": 2}

    def rotate(q: Any, k: Any, positions: Any) -> Any:
        if positions.ndim == 1 + (call.axes is not None):
            positions = positions[..., None, :]  # the same for every batch row
        cos, sin = module(q, call.ids(positions))
        return tuple(map(call.leave, apply(call.enter(q), call.enter(k), cos, sin, **extra)))

    return rotate


def pair_maker(
    shape: str, call: Call, make: Callable[[], Any]
) -> Callable[[], Callable[[Any, Any, Any], Any]] | None:
    """What makes ``f(q, k, positions) -> (q, k)``, where the shape rotates both at once."""
    if shape == "tables":
        return lambda: _module_pair(call, make())
    if shape == "qk-freqs-cis":
        return lambda: _complex_pair(call, make())
    if shape == "qk-cos-sin":
        return lambda: lambda q, k, ids: _with_tables(call, make())(q, k, positions=ids)
    return None


BINDERS: dict[str, Callable[[Call, Any], Rotary]] = {
    "x-positions": _x_positions,
    "x-offset": _x_offset,
    "x": _x,
    "x-cos-sin": _x_cos_sin,
    "qk-cos-sin": _qk_cos_sin,
    "qk-freqs-cis": _qk_freqs_cis,
    "tables": _tables,
}
KINDS: dict[str, PositionKind] = {"x-offset": "offset", "x": "arange"}
