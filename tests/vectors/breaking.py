"""What can be done to examples/vectors_python.py to break it, and where that shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

import rotary_spec as rs
from rotary_spec_conformance.vectors import Case

Bears = Callable[[Case], bool]


@dataclass(frozen=True)
class Fault:
    """Overrides of methods of ``Rope``, and where they bear.

    Attributes
    ----------
    methods : dict
        Functions ``(right, self, *arguments)``; ``right`` is the method that they replace.
    bears : callable
    tensors : tuple of str
        Prefixes of the tensors that may be wrong; "" for all.
    """

    methods: dict[str, Callable[..., Any]]
    bears: Bears
    tensors: tuple[str, ...] = ("",)

    def program(self, base: type) -> type:
        """The broken subclass."""

        def bound(name: str, broken: Callable[..., Any]) -> Callable[..., Any]:
            right = getattr(base, name)
            return lambda this, *arguments: broken(
                lambda *given: right(this, *given), this, *arguments
            )

        return type("Broken", (base,), {n: bound(n, f) for n, f in self.methods.items()})


def misread(change: Callable[[rs.RotarySpec], rs.RotarySpec]) -> dict[str, Callable[..., Any]]:
    """A program that computes the frequencies of another spec."""

    def spec_of(case: Any) -> tuple[rs.RotarySpec, rs.RotarySpec]:
        spec = rs.RotarySpec.from_dict(case["spec"])
        return spec, change(spec)

    def turns(right: Any, this: Any, case: Any) -> Any:
        spec, other = spec_of(case)
        if other == spec:
            return right(case)
        return np.asarray([f % 2**64 for f in rs.turns(other, case["seq_len"])], dtype=np.uint64)

    def inv_freq(right: Any, this: Any, case: Any) -> Any:
        spec, other = spec_of(case)
        return right(case) if other == spec else rs.frequencies(other, case["seq_len"])

    return {"turns": turns, "inv_freq": inv_freq}


def schedule(kind: type, change: Callable[[Any, rs.RotarySpec], Any]) -> dict[str, Any]:
    """A schedule of that kind is taken for another."""

    def changed(spec: rs.RotarySpec) -> rs.RotarySpec:
        if not isinstance(spec.schedule, kind):
            return spec
        return replace(spec, schedule=change(spec.schedule, spec))

    return misread(changed)


def at_positions(change: Callable[[Any], Any]) -> dict[str, Callable[..., Any]]:
    return {"positions": lambda right, this, case: change(right(case))}


def of_kind(*kinds: type) -> Bears:
    return lambda case: isinstance(case.spec.schedule, kinds)


def moved(change: Callable[[Any], Any]) -> Bears:
    """Whether a change of the positions changes them."""
    return lambda case: bool(np.any(change(case["positions"]) != case["positions"]))


def inverted_llama3(s: rs.Llama3, spec: rs.RotarySpec) -> rs.Schedule:
    """The ramp runs the wrong way."""
    plain = rs.frequencies(replace(spec, schedule=rs.Default()))
    t = s.original_max_position_embeddings * plain / (2 * np.pi)
    smooth = np.clip((t - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0, 1)
    return rs.Explicit(tuple(smooth * plain / s.factor + (1 - smooth) * plain))


def over_rotated_part(s: rs.Proportional, spec: rs.RotarySpec) -> rs.Schedule:
    """The exponent counts over the rotated lanes, as in partial rotary."""
    turning = int(s.partial_rotary_factor * spec.rotary_dim // 2)
    part = spec.base ** (-np.arange(turning) / turning) / s.factor
    return rs.Explicit((*part.tolist(), *[0.0] * (spec.pairs - turning)))


def over_head_dim(spec: rs.RotarySpec) -> rs.RotarySpec:
    """theta_i = base^(-2i/head_dim), that is another base."""
    return replace(spec, base=spec.base ** (spec.rotary_dim / spec.head_dim))


def axes_changed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., Any]:
    def axes(right: Any, this: Any, spec: Any) -> Any:
        sections = spec["sections"]
        return right({**spec, "sections": change(sections)} if sections else spec)

    return axes


def float32_angles(right: Any, this: Any, positions: Any, case: Any) -> Any:
    m, theta = positions.astype(np.float32), this.inv_freq(case).astype(np.float32)
    return (m * theta).astype(np.float64)


def truncated(right: Any, this: Any, y: Any, dtype: str) -> Any:
    if dtype != "bfloat16":
        return right(y, dtype)
    return (y.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def through_bfloat16(right: Any, this: Any, y: Any, dtype: str) -> Any:
    return right(
        y.astype(ml_dtypes.bfloat16).astype(np.float64) if dtype == "float16" else y, dtype
    )


def narrow_tables(right: Any, this: Any, case: Any) -> Any:
    phases, cos, sin = right(case)
    return phases, *(t.astype(ml_dtypes.bfloat16).astype(np.float64) for t in (cos, sin))


def scaled_tables(power: float) -> Callable[..., Any]:
    def table(right: Any, this: Any, case: Any) -> Any:
        phases, cos, sin = right(case)
        return phases, *(t * this.magnitude(case) ** power for t in (cos, sin))

    return table


def kept_lanes(change: Callable[..., Any]) -> Callable[..., Any]:
    """Something is done to the lanes that should be copied."""

    def outputs(right: Any, this: Any, case: Any) -> Any:
        found, spec = right(case), case["spec"]
        kept = np.ones(spec["head_dim"], dtype=bool)
        kept[spec["rotary_start"] : spec["rotary_start"] + spec["rotary_dim"]] = False
        for code, y in found.values():
            if code == "F32":
                y[..., kept] = change(y[..., kept], this.magnitude(case))
        return found

    return outputs


def other_end(right: Any, this: Any, spec: Any, layout: str) -> Any:
    end = spec["head_dim"] - spec["rotary_dim"] - spec["rotary_start"]
    return right({**spec, "rotary_start": end}, layout)


def every(case: Case) -> bool:
    return True


def turning(case: Case) -> bool:
    """Whether any position but 0 is there."""
    return bool(np.any(case["positions"] != 0))


def partial(case: Case) -> bool:
    return case.spec.rotary_dim < case.spec.head_dim


def with_sections(**fields: str) -> Bears:
    def bears(case: Case) -> bool:
        s = case.spec.sections
        return s is not None and all(getattr(s, name) == value for name, value in fields.items())

    return bears


def crossed(case: Case) -> bool:
    """Whether layouts of more than one pair differ between input and output."""
    return case.spec.output_layout is not None and case.spec.pairs > 1


def magnified(case: Case) -> bool:
    return case.attention_factor != 1


def narrowed(dtype: Any) -> Callable[[Any], Any]:
    return lambda p: p.astype(dtype).astype(p.dtype)
