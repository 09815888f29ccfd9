"""`Identification`: what `identify` found, for programs and for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import rotary_spec as rs
from rotary_spec_conformance.axis_orders import listed
from rotary_spec_conformance.probe import Floats


@dataclass(frozen=True)
class Identification:
    """What `identify` found.

    Attributes
    ----------
    target : str
    is_rotary : bool
        Whether it rotates pairs of lanes by angles proportional to the position.
    spec : RotarySpec or None
        What it does, where a spec says it all: it passed `check` against this target. Where
        ``permutation`` is given, the spec holds between the permuted lanes.
    closest : RotarySpec or None
        The best description where no spec says it all; equal to ``spec`` where one does.
    alternatives : list of RotarySpec
        Other specs with the same frequencies.
    layout : {"interleaved", "half", "permuted"} or None
    output_layout : {"interleaved", "half", "permuted"} or None
    pairs : tuple of (lane, lane)
        First and second lane of each pair, in order of the frequencies of the layout.
    outputs : tuple of (lane, lane)
        Where the members of each pair go.
    permutation : tuple of int or None
        For "permuted": lane ``permutation[j]`` of the target is lane j of the half layout.
    inverse : bool
    axis_of_pair : tuple of int or None
        For targets with axes: the axis that turns each of ``pairs``, where one does by itself.
    rotated : tuple of int
        Lanes that turn.
    frequencies : array (pairs,)
        Radians per position, in the order of ``pairs``.
    uncertainty : array (pairs,)
    attention_factor : float
    precision : {"exact", "float32", "low"} or None
        None where it could not be graded.
    trusted_to : int or None
        Last position whose angles are right to 2^-8 rad.
    findings : list of str
        Everything else that is worth knowing, in sentences; empty for a clean implementation.
    reason : str
        Why it is not rotary: the property it breaks, and by how much.
    """

    target: str
    is_rotary: bool
    spec: rs.RotarySpec | None = None
    closest: rs.RotarySpec | None = None
    alternatives: list[rs.RotarySpec] = field(default_factory=list)
    layout: str | None = None
    output_layout: str | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    outputs: tuple[tuple[int, int], ...] = ()
    permutation: tuple[int, ...] | None = None
    inverse: bool = False
    axis_of_pair: tuple[int, ...] | None = None
    rotated: tuple[int, ...] = ()
    frequencies: Floats = field(default_factory=lambda: np.zeros(0))
    uncertainty: Floats = field(default_factory=lambda: np.zeros(0))
    attention_factor: float = 1.0
    precision: str | None = None
    trusted_to: int | None = None
    findings: list[str] = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0

    @property
    def base(self) -> float | None:
        """Base of the closest spec; None where its frequencies have none."""
        if self.closest is None or isinstance(self.closest.schedule, rs.Explicit):
            return None
        return self.closest.base

    @property
    def schedule(self) -> rs.Schedule | None:
        """Schedule of the closest spec."""
        return None if self.closest is None else self.closest.schedule

    def to_dict(self) -> dict[str, Any]:
        """The identification in JSON types."""
        return {
            "target": self.target,
            "is_rotary": self.is_rotary,
            "spec": self.spec and self.spec.to_dict(),
            "closest": self.closest and self.closest.to_dict(),
            "alternatives": [spec.to_dict() for spec in self.alternatives],
            "layout": self.layout,
            "output_layout": self.output_layout,
            "pairs": [list(pair) for pair in self.pairs],
            "outputs": [list(pair) for pair in self.outputs],
            "permutation": self.permutation and list(self.permutation),
            "inverse": self.inverse,
            "axis_of_pair": self.axis_of_pair and list(self.axis_of_pair),
            "rotated": list(self.rotated),
            "frequencies": self.frequencies.tolist(),
            "uncertainty": self.uncertainty.tolist(),
            "attention_factor": self.attention_factor,
            "precision": self.precision,
            "trusted_to": self.trusted_to,
            "findings": self.findings,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        return "\n".join(f"{name:<17} {text}" for name, text in self.rows())

    def rows(self) -> list[tuple[str, str]]:
        """What was found, name by name, for people."""
        if not self.is_rotary:
            return [
                ("target", self.target),
                ("not rotary", self.reason),
                *(("finding", finding) for finding in self.findings),
            ]
        assert self.closest is not None
        rows = [
            ("target", self.target),
            ("spec" if self.spec else "closest spec", repr(self.closest)),
            *(("or else", repr(spec)) for spec in self.alternatives),
            ("layout", _layouts(self.layout, self.output_layout)),
            ("direction", "-m theta (inverse)" if self.inverse else "+m theta"),
            ("rotated lanes", _span(self.rotated, self.closest.head_dim)),
            ("base", "none" if self.base is None else f"{self.base:.10g}"),
            ("schedule", _schedule(self.closest.schedule)),
            ("attention factor", f"{self.attention_factor:.7g}"),
            ("frequencies", _frequencies(self.frequencies, self.uncertainty)),
        ]
        if self.axis_of_pair is not None:
            rows.insert(-1, ("axes", listed(self.axis_of_pair, max(self.axis_of_pair) + 1)))
        if self.precision is not None:
            rows.append(("precision", f"{self.precision}, trusted to {self.trusted_to:,}"))
        return [*rows, *(("finding", finding) for finding in self.findings)]


def _layouts(layout: str | None, output: str | None) -> str:
    return f"{layout}" if layout == output else f"{layout} in, {output} out"


def _span(lanes: tuple[int, ...], head_dim: int) -> str:
    if lanes == tuple(range(lanes[0], lanes[-1] + 1)):
        return f"{lanes[0]} .. {lanes[-1]}, {len(lanes)} of {head_dim}"
    return f"{len(lanes)} of {head_dim}, scattered between {lanes[0]} and {lanes[-1]}"


def _schedule(schedule: rs.Schedule) -> str:
    return "explicit frequencies" if isinstance(schedule, rs.Explicit) else repr(schedule)


def _frequencies(theta: Floats, uncertainty: Floats) -> str:
    relative = np.max(uncertainty / np.maximum(theta, 1e-300))
    return (
        f"{len(theta)} from {theta.max():.7g} to {theta.min():.7g} radians per position, known to "
        f"{relative:.1g} relative"
    )
