"""`Sections`: which coordinate of a multi-axis position turns which pair.

A token of an image or a film stands at several coordinates: time, row, column. A multi-axis rotary
embedding gives every pair to one of them. Libraries differ in which pairs an axis gets, which
frequencies these have, and where their lanes lie; each difference is a field here.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from typing import Any, Literal

from rotary_spec.errors import SpecError

Order = Literal["chunked", "interleaved", "spatial_first"]
SectionFrequencies = Literal["shared", "restart", "strided"]
Pairing = Literal["across", "within"]

_CHOICES = {
    "order": ("chunked", "interleaved", "spatial_first"),
    "frequencies": ("shared", "restart", "strided"),
    "pairing": ("across", "within"),
}


@dataclass(frozen=True, repr=False)
class Sections:
    """How the pairs of a rotary embedding are shared out among the axes of the positions.

    Below, n is the number of axes, s_a the size of axis a, and j the rank of pair i among the
    pairs of its axis.

    Parameters
    ----------
    sizes : sequence of int
        Pairs per axis, at least 1 each, in the order in which positions hold the axes (such as
        time, row, column). Their sum is ``rotary_dim // 2``.
    order : {"chunked", "interleaved", "spatial_first"}
        Which pairs belong to an axis. ``chunked``: the first s_0 to axis 0, the next s_1 to axis
        1, ... (Qwen2-VL's ``mrope_section``, axial vision models). ``interleaved``: pair i belongs
        to axis a = i mod n where a > 0 and i < n s_a; all others to axis 0 (Qwen3-VL's
        ``mrope_interleaved``). ``spatial_first``: axes 1, 2, ... take turns, and axis 0 has the
        last pairs (Ernie 4.5 VL).
    frequencies : {"shared", "restart", "strided"}
        ``shared``: pair i turns at theta_i of the schedule over rotary_dim (M-RoPE). ``restart``:
        at theta_j of the schedule over 2 s_a lanes, anew for every axis (Qwen2-VL's vision tower,
        FLUX). ``strided``: at theta_{n j + a} of the schedule over rotary_dim (Pixtral).
    pairing : {"across", "within"}
        ``across``: the layout pairs lanes over the whole rotary_dim. ``within``: each axis owns a
        block of 2 s_a neighbouring lanes, and the layout pairs lanes inside it (Gemma 4's vision
        tower). The interleaved layout does not tell them apart.

    Raises
    ------
    SpecError
        If a field is none of these, or the sizes do not fit the order.

    Examples
    --------
    >>> from rotary_spec import RotarySpec, Sections
    >>> RotarySpec(head_dim=128, layout="half", sections=(16, 24, 24)).sections.order
    'chunked'
    >>> Sections((2, 1, 1), order="interleaved").axis_of_pair()
    (0, 1, 2, 0)
    """

    sizes: tuple[int, ...]
    order: Order = "chunked"
    frequencies: SectionFrequencies = "shared"
    pairing: Pairing = "across"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", _sizes(self.sizes))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise SpecError(
                    f"sections: {name} must be one of {', '.join(map(repr, choices))}, "
                    f"got {getattr(self, name)!r}"
                )
        spatial = self.sizes[1:]
        if self.order == "spatial_first" and len(set(spatial)) > 1:
            raise SpecError(
                f"sections: order 'spatial_first' needs equal sizes for all axes but the first, "
                f"got {self.sizes}"
            )
        if self.order == "interleaved" and _counts(self._interleaved()) != self.sizes:
            raise SpecError(
                f"sections: order 'interleaved' gives axis a the pairs a, a + n, a + 2n, ...; "
                f"{sum(self.sizes)} pairs do not hold sizes {self.sizes}"
            )
        if self.frequencies == "strided" and len(set(self.sizes)) > 1:
            raise SpecError(f"sections: frequencies 'strided' need equal sizes, got {self.sizes}")
        if self.pairing == "within" and self.order != "chunked":
            raise SpecError(
                f"sections: pairing 'within' keeps the lanes of an axis together, so order must "
                f"be 'chunked', got {self.order!r}"
            )

    def __repr__(self) -> str:
        changed = [f for f in fields(self)[1:] if getattr(self, f.name) != f.default]
        shown = [repr(self.sizes), *(f"{f.name}={getattr(self, f.name)!r}" for f in changed)]
        return f"Sections({', '.join(shown)})"

    @property
    def axes(self) -> int:
        """Number of axes, n."""
        return len(self.sizes)

    def axis_of_pair(self) -> tuple[int, ...]:
        """The axis that turns pair i, for every pair.

        >>> from rotary_spec import Sections
        >>> Sections((2, 2, 2), order="spatial_first").axis_of_pair()
        (1, 2, 1, 2, 0, 0)
        """
        if self.order == "interleaved":
            return self._interleaved()
        if self.order == "spatial_first":
            taking_turns = tuple(range(1, self.axes)) * max(self.sizes[1:], default=0)
            return taking_turns + (0,) * self.sizes[0]
        return tuple(axis for axis, size in enumerate(self.sizes) for _ in range(size))

    def ranks(self) -> tuple[int, ...]:
        """The rank j of pair i among the pairs of its axis, for every pair.

        >>> from rotary_spec import Sections
        >>> Sections((2, 3)).ranks()
        (0, 1, 0, 1, 2)
        """
        seen = [0] * self.axes
        out = []
        for axis in self.axis_of_pair():
            out.append(seen[axis])
            seen[axis] += 1
        return tuple(out)

    def blocks(self) -> tuple[tuple[int, int], ...]:
        """First pair and number of pairs of each run of lanes that the layout pairs by itself."""
        if self.pairing == "across":
            return ((0, sum(self.sizes)),)
        starts = accumulate((0, *self.sizes[:-1]))
        return tuple(zip(starts, self.sizes, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON types."""
        return {**asdict(self), "sizes": list(self.sizes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sections:
        """The inverse of `to_dict`. Missing fields take their defaults, unknown ones raise."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise SpecError(
                f"sections: unknown field {', '.join(map(repr, unknown))}; "
                f"known: {', '.join(sorted(known))}"
            )
        if "sizes" not in values:
            raise SpecError("sections: sizes is missing: it has no default")
        return cls(**values)

    def _interleaved(self) -> tuple[int, ...]:
        n = self.axes
        return tuple(i % n if i < n * self.sizes[i % n] else 0 for i in range(sum(self.sizes)))


def _sizes(sizes: object) -> tuple[int, ...]:
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        raise SpecError(f"sections must be a sequence of pairs per axis, got {sizes!r}")
    try:
        counts = tuple(operator.index(size) for size in sizes)
    except TypeError:
        raise SpecError(f"sections must hold integers, got {sizes!r}") from None
    if not counts or min(counts) < 1 or any(isinstance(size, bool) for size in sizes):
        raise SpecError(f"sections must give every axis at least one pair, got {sizes!r}")
    return counts


def _counts(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axes.count(axis) for axis in range(max(axes) + 1))
