"""What the checks on linear attention share: inputs, measured weights, the oracle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rotary_spec.layouts import input_lanes
from rotary_spec_conformance import tolerances
from rotary_spec_conformance.context import Context
from rotary_spec_conformance.linear_attention.definition import Definition, Terms
from rotary_spec_conformance.linear_attention.probe import LinearAttentionProbe
from rotary_spec_conformance.linear_attention.target import LinearAttentionTarget
from rotary_spec_conformance.probe import Floats, Ints, TargetMisbehaved
from rotary_spec_conformance.registry import NotRun

COUNT = 16
"""Tokens whose weights are recovered."""

FAINT = -8.0
"""Inputs around here have features, and so denominators, so small that an eps shows."""


@dataclass(frozen=True)
class Measured:
    """Recovered weights beside what they should be.

    Attributes
    ----------
    q, k : array, shape (seq, head_dim)
    positions : array of integers
    weights : array, shape (seq, seq)
    terms : Terms
    """

    q: Floats
    k: Floats
    positions: Ints
    weights: Floats
    terms: Terms

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Which keys a query may see."""
        return self.terms.magnitudes > 0

    @property
    def denominators(self) -> Floats:
        """What divides the spec's numerators so that they come closest to the weights."""
        return denominators_of(self.weights, self.terms.numerators)

    @property
    def room(self) -> Floats:
        """Bound on the error of each weight, by the denominators that the target uses."""
        return self.terms.weight_room(self.denominators)

    def known_to(self, denominators: Floats) -> Floats:
        """How well the weights tell the denominators, relative to these."""
        room = self.terms.weight_room(denominators)
        return np.asarray((room * np.abs(self.weights)).sum(-1) / (self.weights**2).sum(-1))


def denominators_of(weights: Floats, numerators: Floats) -> Floats:
    """By least squares, row by row."""
    with np.errstate(all="ignore"):
        return np.asarray((numerators * weights).sum(-1) / (weights * weights).sum(-1))


class LinearAttentionContext(Context):
    """One run of the checks on one target.

    Parameters
    ----------
    target : LinearAttentionTarget
    definition : Definition
    max_position : int
    quick : bool
    """

    target: LinearAttentionTarget

    def __init__(
        self,
        target: LinearAttentionTarget,
        definition: Definition,
        max_position: int,
        quick: bool,
    ) -> None:
        super().__init__(target, definition.spec, max_position, quick)
        self.definition = definition

    def fresh(self, dtype: str) -> LinearAttentionProbe:
        return LinearAttentionProbe(self.target, dtype)

    def inputs(
        self, dtype: str, *shape: int, seed: int = 0, around: float | Floats | None = None
    ) -> tuple[Floats, Floats, Floats]:
        """q, k and v for (batch, heads, seq), as they arrive at the target.

        ``around``: what q and k are close to, in place of 0.
        """
        widths = (self.target.head_dim, self.target.head_dim, self.target.values)
        q, k, v = (
            self.rounded(self.random(*shape, width, seed=3 * seed + i), dtype)
            for i, width in enumerate(widths)
        )
        if around is not None:
            q, k = (self.rounded(around + 0.25 * x, dtype) for x in (q, k))
        return q, k, v

    def measure(self, positions: Ints, *, around: float | Floats | None = None) -> Measured:
        """Weights of as many tokens as there are positions, in the first dtype."""
        if int(positions.max()) >= self.max_position:
            raise NotRun(f"only {self.max_position} positions are served")
        dtype = self.dtypes[0]
        q, k, _ = self.inputs(dtype, len(positions), around=around)
        terms = self.definition.terms(q, k, positions, u=tolerances.unit_roundoff(dtype))
        weights = self.fresh(dtype).weights(q, k, positions)
        return Measured(q, k, positions, weights, terms)

    @cached_property
    def plain(self) -> Measured:
        """At positions 0, 1, ..., all of them different."""
        return self.measure(np.arange(COUNT))

    @cached_property
    def together(self) -> Measured:
        """With every token at position 0, where no two are turned against each other."""
        return self.measure(np.zeros(COUNT, dtype=np.int64))

    @cached_property
    def repeats(self) -> bool:
        """Whether the target takes several tokens at one position."""
        try:
            return self.together.weights.size > 0
        except (NotRun, TargetMisbehaved):
            return False

    @cached_property
    def faint(self) -> Measured:
        """At positions 0, 1, ..., with faint features."""
        return self.measure(np.arange(COUNT), around=FAINT)

    @cached_property
    def swinging(self) -> Measured:
        """At positions 0, 1, ..., with features that are large in the first pair only.

        That pair turns fastest: sums of rotated weights change their sign from query to query.
        """
        around = np.zeros(self.target.head_dim)
        if self.target.head_dim == self.spec.head_dim:
            around -= 3.0
            around[[lanes[0] for lanes in input_lanes(self.spec)]] = 3.0
        return self.measure(np.arange(COUNT), around=around)

    def loose_room(
        self, q: Floats, k: Floats, v: Floats, ids: Ints, dtype: str, out: Floats
    ) -> Floats:
        """Bound for comparing two results of a target that may be right in nothing else.

        As if every query saw every key, and scaled up where ``out`` is larger than it should be:
        the target may divide by something smaller.
        """
        u = tolerances.unit_roundoff(dtype)
        own = self.definition.terms(q, k, ids, u=u)
        all_keys = replace(self.definition, causal=False).terms(q, k, ids, u=u)
        expected = np.abs(own.weights @ v).max()
        scale = max(1.0, float(np.abs(out).max() / expected))
        return np.asarray(2 * scale * all_keys.room(v, own.denominators))
