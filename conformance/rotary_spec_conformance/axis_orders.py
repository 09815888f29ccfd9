"""Which `Sections` share the pairs out among the axes in a given way, and in which words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import get_args

from rotary_spec import Sections, SpecError
from rotary_spec.sections import Order

ORDERS: tuple[Order, ...] = get_args(Order)
_MOST = 4
"""Axes up to which every order of the axes is tried."""


@dataclass(frozen=True)
class AxisOrder:
    """Sections, and which axis plays the part of each of theirs."""

    sections: Sections
    roles: tuple[int, ...]

    @property
    def in_order(self) -> bool:
        """Whether every axis plays its own part."""
        return self.roles == tuple(range(len(self.roles)))

    def __str__(self) -> str:
        if self.in_order:
            return repr(self.sections)
        return f"{self.sections!r} with the axes taken in the order {_numbers(self.roles)}"

    def differences(self, spec: Sections) -> list[str]:
        """In words, how this differs from the sections of a spec."""
        words = []
        if self.sections.order != spec.order:
            words.append(f"this is the {self.sections.order} order")
        moved = [axis for axis, role in enumerate(self.roles) if axis != role]
        if len(moved) == 2:
            words.append(f"axes {moved[0]} and {moved[1]} are exchanged")
        elif moved:
            words.append(f"the axes are taken in the order {_numbers(self.roles)}")
        if self.sections.sizes != spec.sizes:
            words.append(f"the sections are {self.sections.sizes}, the spec's {spec.sizes}")
        return words


def axis_orders(axis_of_pair: Sequence[int], axes: int) -> Iterator[AxisOrder]:
    """Every order that has a name and gives each pair to the given axis, the plainest first."""
    own = tuple(range(axes))
    for roles in permutations(own) if axes <= _MOST else [own]:
        relabelled = tuple(roles.index(axis) for axis in axis_of_pair)
        sizes = tuple(relabelled.count(axis) for axis in own)
        for order in ORDERS:
            try:
                sections = Sections(sizes, order)
            except SpecError:
                continue
            if sections.axis_of_pair() == relabelled:
                yield AxisOrder(sections, roles)


def listed(axis_of_pair: Sequence[int], axes: int) -> str:
    """Which pairs each axis turns, in words."""
    parts = []
    for axis in range(axes):
        pairs = [i for i, a in enumerate(axis_of_pair) if a == axis]
        parts.append(f"axis {axis} turns {_runs(pairs)}")
    return ", ".join(parts)


def in_words(axes: Sequence[int]) -> str:
    """The axes that turn a pair, in words."""
    if not axes:
        return "no axis alone"
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {' and '.join(map(str, axes))}"


def _numbers(axes: Sequence[int]) -> str:
    return ", ".join(map(str, axes))


def _runs(pairs: Sequence[int]) -> str:
    if not pairs:
        return "no pair"
    shown = _numbers(pairs[:6])
    if list(pairs) == list(range(pairs[0], pairs[-1] + 1)) and len(pairs) > 2:
        shown = f"{pairs[0]} .. {pairs[-1]}"
    elif len(pairs) > 6:
        shown += ", ..."
    return f"pair {shown}" if len(pairs) == 1 else f"pairs {shown}"
