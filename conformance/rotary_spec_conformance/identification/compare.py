"""`compare`: do two implementations do the same, perhaps after a permutation of the lanes?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rotary_spec import TargetError
from rotary_spec.spec import LAYOUTS
from rotary_spec_conformance import tolerances
from rotary_spec_conformance.context import rungs
from rotary_spec_conformance.identification.identify import identify, target_of
from rotary_spec_conformance.identification.result import Identification
from rotary_spec_conformance.probe import (
    Floats,
    Ints,
    Places,
    Probe,
    TargetMisbehaved,
    on_every_axis,
)
from rotary_spec_conformance.runner import ARANGE_POSITIONS, POSITIONS
from rotary_spec_conformance.target import Target

_TOLD_ELSEWHERE = frozenset({"target", "spec", "closest spec", "or else", "finding"})

EQUAL, PERMUTED, DIFFERENT = "equal", "equal after a permutation", "different"


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes
    ----------
    verdict : {"equal", "equal after a permutation", "different"}
    a, b : Identification
    permutation : tuple of int or None
        Lane ``permutation[j]`` of ``a`` is lane j of ``b``: ``b(x[..., permutation])`` is
        ``a(x)[..., output_permutation]``, and q and k projections of ``a`` serve ``b`` after
        `rotary_spec.convert_projection` with it.
    output_permutation : tuple of int or None
        The same for the outputs. Scores do not see it.
    differences : list of (field, value in a, value in b)
    differ_from : int or None
        First probed position from which the results differ.
    compared_to : int
        Last position that was compared.
    """

    verdict: str
    a: Identification
    b: Identification
    permutation: tuple[int, ...] | None = None
    output_permutation: tuple[int, ...] | None = None
    differences: list[tuple[str, str, str]] = field(default_factory=list)
    differ_from: int | None = None
    compared_to: int = 0

    @property
    def same(self) -> bool:
        """Whether they are equal, or equal after a permutation."""
        return self.verdict != DIFFERENT

    def conversion(self) -> str | None:
        """How to convert q and k weights from ``a`` to ``b``; None where there is nothing to do."""
        if self.permutation is None or self.verdict != PERMUTED:
            return None
        known = self.a.closest
        assert known is not None
        simple = (
            self.a.layout in LAYOUTS
            and self.b.layout in LAYOUTS
            and self.a.layout != self.b.layout
            and self.a.inverse == self.b.inverse
        )
        if simple:
            partial = ""
            if known.rotary_dim != known.head_dim:
                partial = f", rotary_dim={known.rotary_dim}, rotary_start={known.rotary_start}"
            return (
                f"rs.convert_projection(weight, from_layout={self.a.layout!r}, "
                f"to_layout={self.b.layout!r}, head_dim={known.head_dim}{partial})"
            )
        lanes = str(self.permutation)
        if len(lanes) > 60:
            lanes = "comparison.permutation"
        return f"rs.convert_projection(weight, head_dim={known.head_dim}, permutation={lanes})"

    def to_dict(self) -> dict[str, Any]:
        """The comparison in JSON types."""
        return {
            "verdict": self.verdict,
            "permutation": self.permutation and list(self.permutation),
            "output_permutation": self.output_permutation and list(self.output_permutation),
            "conversion": self.conversion(),
            "differences": [list(row) for row in self.differences],
            "differ_from": self.differ_from,
            "compared_to": self.compared_to,
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
        }

    def summary(self) -> str:
        """The verdict in one or two sentences."""
        names = f"{self.a.target} and {self.b.target}"
        if self.verdict == EQUAL:
            return f"{names} are equal, compared up to position {self.compared_to:,}"
        if self.verdict == PERMUTED:
            change = (
                f"{self.a.layout} -> {self.b.layout}"
                if self.a.layout != self.b.layout and self.a.inverse == self.b.inverse
                else "a permutation of the lanes"
            )
            return f"{names} are the same up to {change}, compared up to {self.compared_to:,}"
        since = "" if self.differ_from is None else f" from position {self.differ_from:,} on"
        return f"{names} differ{since}"

    def side_by_side(self) -> list[tuple[str, str, str]]:
        """Both identifications, field by field, those that differ marked by an asterisk."""
        different = {name for name, *_ in self.differences}
        rows = _both(self.a, self.b)
        return [(f"{name} *" if name in different else name, a, b) for name, a, b in rows]

    def advice(self) -> list[str]:
        """What to do about a permutation: how to convert weights, and what outputs do."""
        conversion = self.conversion()
        if conversion is None:
            return []
        lines = [f"q and k weights of the first serve the second after {conversion}"]
        if self.output_permutation == tuple(range(len(self.output_permutation or ()))):
            lines.append("both give the same output lanes")
        elif self.output_permutation != self.permutation:
            lines.append("outputs are related by another permutation than inputs; scores are equal")
        return lines

    def __str__(self) -> str:
        lines = [self.summary()]
        lines += [f"  {name}: {a} | {b}" for name, a, b in self.differences]
        return "\n".join([*lines, *(f"  {line}" for line in self.advice())])


def compare(
    a: Target | Any, b: Target | Any, head_dim: int | None = None, **options: Any
) -> Comparison:
    """Are two implementations the same operator, perhaps after a permutation of the head dimension?

    Parameters
    ----------
    a, b : Target, function, module or factory
        Anything but a `Target` goes through `adapt`, with ``options``; then head_dim is needed.
    head_dim : int or None

    Returns
    -------
    Comparison

    Raises
    ------
    TargetError
        If one cannot be adapted, or their head_dims or axes differ.

    Examples
    --------
    >>> import rotary_spec as rs
    >>> from rotary_spec_conformance import compare
    >>> half, pairs = rs.RotarySpec(head_dim=8, layout="half"), rs.RotarySpec(head_dim=8)
    >>> found = compare(lambda x, positions: rs.rotate(x, positions, pairs),
    ...                 lambda x, positions: rs.rotate(x, positions, half), 8, framework="numpy")
    >>> found.verdict
    'equal after a permutation'
    >>> found.conversion()
    "rs.convert_projection(weight, from_layout='interleaved', to_layout='half', head_dim=8)"
    """
    targets = [target_of(one, head_dim, options) for one in (a, b)]
    if targets[0].axes != targets[1].axes:
        raise TargetError(
            f"axes differ: {targets[0].name} has {targets[0].axes}, {targets[1].name} has "
            f"{targets[1].axes}"
        )
    first, second = (identify(target) for target in targets)
    if targets[0].head_dim != targets[1].head_dim:
        raise TargetError(
            f"head_dim differs: {targets[0].name} has {targets[0].head_dim}, {targets[1].name} has "
            f"{targets[1].head_dim}"
        )
    identity = tuple(range(targets[0].head_dim))
    differ_from, compared_to = _first_difference(targets, first, identity, identity)
    if differ_from is None:
        return Comparison(EQUAL, first, second, compared_to=compared_to)
    lanes = _permutations(first, second, identity)
    if lanes is not None and lanes != (identity, identity):
        permuted_from, compared_to = _first_difference(targets, first, *lanes)
        if permuted_from is None:
            rows = _differences(first, second)
            return Comparison(PERMUTED, first, second, *lanes, rows, compared_to=compared_to)
        differ_from = max(differ_from, permuted_from)
    return Comparison(
        DIFFERENT,
        first,
        second,
        differences=_differences(first, second),
        differ_from=differ_from,
        compared_to=compared_to,
    )


def _permutations(
    a: Identification, b: Identification, identity: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Lanes of ``a`` in the places of ``b``'s, for inputs and outputs, pair by frequency.

    Pairs of one axis are matched with pairs of that axis.
    """
    if not (a.is_rotary and b.is_rotary) or len(a.pairs) != len(b.pairs):
        return None
    order_a, order_b = (
        np.lexsort((-x.frequencies, np.asarray(x.axis_of_pair or (0,) * len(x.pairs))))
        for x in (a, b)
    )
    turned = a.inverse != b.inverse  # the same turn, seen from the other member

    def matched(of_a: tuple[tuple[int, int], ...], of_b: tuple[tuple[int, int], ...]) -> Any:
        place = dict.fromkeys(identity)
        for i, j in zip(order_a, order_b, strict=True):
            pair = of_a[i][::-1] if turned else of_a[i]
            place[of_b[j][0]], place[of_b[j][1]] = pair
        taken = {lane for lane in place.values() if lane is not None}
        left = iter(lane for lane in identity if lane not in taken)
        return tuple(lane if lane is not None else next(left) for lane in place.values())

    return matched(a.pairs, b.pairs), matched(a.outputs, b.outputs)


def _first_difference(
    targets: list[Target],
    identification: Identification,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
) -> tuple[int | None, int]:
    """First probed position at which results differ beyond both roundings, and the last probed."""
    dtypes = [target.supported_dtypes() for target in targets]
    dtype = next((d for d in dtypes[0] if d in dtypes[1]), None)
    if dtype is None:
        raise TargetError(f"no dtype is common to {targets[0].name} and {targets[1].name}")
    limits = [
        t.max_position or (ARANGE_POSITIONS if t.positions == "arange" else POSITIONS)
        for t in targets
    ]
    probes = [Probe(target, dtype) for target in targets]
    reached = 0
    for positions in _probed(min(limits), targets[0].axes):
        x = np.random.default_rng(0).standard_normal((1, 1, positions.shape[-1], len(inputs)))
        x = targets[0].framework.to_numpy(targets[0].framework.asarray(x, dtype))
        try:
            turned = [
                probe(features, positions, axial=targets[0].axes is not None)
                for probe, features in zip(probes, (x, x[..., inputs]), strict=True)
            ]
        except TargetMisbehaved:
            return int(positions.min()), reached
        difference = turned[1] - turned[0][..., outputs]
        furthest = positions.reshape(-1, positions.shape[-1]).max(axis=0)
        bound = _bound(x, furthest, dtype, identification)
        beyond = ~(np.abs(difference) <= 2 * bound[..., outputs]).all(axis=(0, 1, 3))
        if beyond.any():
            return int(furthest[beyond].min()), reached
        reached = int(furthest.max())
    return None, reached


def _probed(limit: int, axes: int | None) -> Iterator[Places]:
    """Positions of every size; with axes, each rung in another order on each axis."""
    for rung in rungs(limit, limit, quick=True):
        if axes is None:
            yield rung
        else:
            yield np.stack([np.roll(rung, axis * (len(rung) // axes)) for axis in range(axes)])


def _bound(x: Floats, positions: Ints, dtype: str, identification: Identification) -> Floats:
    """Rounding of one rotation, of float32 angles where frequencies are known to turn."""
    u = tolerances.unit_roundoff(dtype)
    size = np.broadcast_to(5 * u * np.abs(x).max(axis=-1, keepdims=True) * 2, x.shape).copy()
    if identification.closest is not None:
        spec = identification.closest
        places = on_every_axis(positions, spec.sections.axes if spec.sections else None)
        angle = tolerances.float32_angle(spec, places).max(axis=1)
        size += 2 * np.abs(x).max() * angle[:, None]
    return size * max(identification.attention_factor, 1.0)


def _both(a: Identification, b: Identification) -> list[tuple[str, str, str]]:
    """Two identifications side by side, but for what is told elsewhere."""
    rows_a, rows_b = dict(a.rows()), dict(b.rows())
    names = [name for name in {**rows_a, **rows_b} if name not in _TOLD_ELSEWHERE]
    return [(name, rows_a.get(name, "-"), rows_b.get(name, "-")) for name in names]


def _differences(a: Identification, b: Identification) -> list[tuple[str, str, str]]:
    return [row for row in _both(a, b) if row[1] != row[2]]
