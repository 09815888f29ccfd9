"""`RotarySpec`: one frozen value that pins down one rotary position embedding."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from rotary_spec.errors import SpecError
from rotary_spec.schedules import Default, Schedule, positive, schedule_from_dict

if TYPE_CHECKING:
    from rotary_spec.sections import Sections

Layout = Literal["interleaved", "half"]
LAYOUTS: tuple[Layout, ...] = ("interleaved", "half")


@dataclass(frozen=True, repr=False)
class RotarySpec:
    """One rotary position embedding, exactly. The defaults are the paper's.

    Parameters
    ----------
    head_dim : int
        Features per head, even and positive. The embedding acts on the last axis.
    base : float
        Base of the frequencies theta_i = base^(-2i/rotary_dim); finite and positive.
    layout : {"interleaved", "half"}
        Which lanes form pair i. ``interleaved``: (2i, 2i+1), as in the paper, GPT-J and Meta's
        Llama. ``half``: (i, i + rotary_dim/2), as in GPT-NeoX and Hugging Face's Llama.
    output_layout : {"interleaved", "half"} or None
        Where the rotated pairs are put; None means where they came from.
        DeepSeek-V3's port takes interleaved and gives half.
    rotary_dim : int or None
        How many lanes are rotated, even; None means all. The others pass through untouched.
    rotary_start : int
        First rotated lane: 0 rotates the first lanes, ``head_dim - rotary_dim`` the last.
    schedule : Schedule
        How the frequencies follow from the base: `Default`, `Linear`, `Llama3`, ...
    attention_factor : float or None
        Magnitude A on cos and sin (scores grow by A squared); None means what the schedule says.
    inverse : bool
        Rotate by -m theta instead of +m theta.
    sections : Sections, sequence of int, or None
        How the pairs are shared out among the axes of multi-axis positions; a plain sequence
        means ``Sections(sizes)``. None: a position is one integer.

    Raises
    ------
    SpecError
        If a field has a wrong type or value, or two fields contradict each other.

    Examples
    --------
    >>> from rotary_spec import Linear, RotarySpec
    >>> RotarySpec(head_dim=128)
    RotarySpec(head_dim=128)
    >>> spec = RotarySpec(head_dim=128, layout="half", schedule=Linear(factor=4))
    >>> RotarySpec.from_json(spec.to_json()) == spec
    True
    """

    head_dim: int
    base: float = 10_000.0
    layout: Layout = "interleaved"
    output_layout: Layout | None = None
    rotary_dim: int = cast(int, None)  # becomes head_dim
    rotary_start: int = 0
    schedule: Schedule = field(default_factory=Default)
    attention_factor: float | None = None
    inverse: bool = False
    sections: Sections | None = None

    def __post_init__(self) -> None:
        self._set("head_dim", _even("head_dim", self.head_dim))
        self._set("base", positive("base", self.base))
        _check_layout("layout", self.layout)
        if self.output_layout is not None:
            _check_layout("output_layout", self.output_layout)
        if self.output_layout == self.layout:
            self._set("output_layout", None)  # two spellings of one embedding compare equal
        if cast("int | None", self.rotary_dim) is None:
            self._set("rotary_dim", self.head_dim)
        self._set("rotary_dim", _even("rotary_dim", self.rotary_dim))
        if self.rotary_dim > self.head_dim:
            raise SpecError(
                f"rotary_dim must not exceed head_dim, got {self.rotary_dim} > {self.head_dim}"
            )
        self._set("rotary_start", integer("rotary_start", self.rotary_start))
        if not 0 <= self.rotary_start <= self.head_dim - self.rotary_dim:
            raise SpecError(
                f"rotary_start must lie in 0 .. head_dim - rotary_dim = "
                f"{self.head_dim - self.rotary_dim}, got {self.rotary_start}"
            )
        if not isinstance(self.schedule, Schedule) or type(self.schedule) is Schedule:
            raise SpecError(
                f"schedule must be a Schedule such as Default() or Linear(factor=4), "
                f"got {self.schedule!r}"
            )
        self._check_sections()
        if self.attention_factor is not None:
            self._set("attention_factor", positive("attention_factor", self.attention_factor))
        if not isinstance(self.inverse, bool):
            raise SpecError(f"inverse must be True or False, got {self.inverse!r}")

    def _check_sections(self) -> None:
        sections = cast("Sections | list[int] | None", self.sections)
        if sections is None:
            self.schedule.check_rotary_dim(self.rotary_dim)
            return
        from rotary_spec.sections import Sections  # few specs have any: no import time for them

        if not isinstance(sections, Sections):
            sections = Sections(cast("tuple[int, ...]", sections))
        if sum(sections.sizes) != self.pairs:
            raise SpecError(
                f"sections must sum to rotary_dim // 2 = {self.pairs}, one for each pair; got "
                f"{' + '.join(map(str, sections.sizes))} = {sum(sections.sizes)}"
            )
        if sections.pairing == "within" and {self.layout, self.output_layout} <= {
            "interleaved",
            None,
        }:
            sections = replace(sections, pairing="across")  # two spellings of one embedding
        restarts = sections.frequencies == "restart"
        for width in {2 * size for size in sections.sizes} if restarts else {self.rotary_dim}:
            self.schedule.check_rotary_dim(width)
        self._set("sections", sections)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def pairs(self) -> int:
        """Number of rotated pairs, ``rotary_dim // 2``."""
        return self.rotary_dim // 2

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """First pair and number of pairs of each run of lanes that the layout pairs by itself."""
        return ((0, self.pairs),) if self.sections is None else self.sections.blocks()

    @property
    def axis_of_pair(self) -> tuple[int, ...] | None:
        """The position axis that turns pair i, for every pair; None without sections."""
        return None if self.sections is None else self.sections.axis_of_pair()

    def at(self, seq_len: int) -> RotarySpec:
        """The spec that rotates at every length as this one does at ``seq_len`` positions.

        Only schedules that depend on the length differ from theirs.

        >>> from rotary_spec import DynamicNtk, RotarySpec
        >>> spec = RotarySpec(128, schedule=DynamicNtk(factor=2, max_position_embeddings=2048))
        >>> spec.at(4096)
        RotarySpec(head_dim=128, schedule=Ntk(factor=3.0))
        """
        return replace(self, schedule=self.schedule.at(seq_len))

    def transposed(self) -> RotarySpec:
        """The spec of the transposed operator A·Rᵀ: opposite direction, layouts exchanged.

        Rotating a gradient by it is the backward pass of rotating by this spec.

        >>> RotarySpec(head_dim=4).transposed()
        RotarySpec(head_dim=4, inverse=True)
        """
        return replace(
            self,
            layout=self.output_layout or self.layout,
            output_layout=self.layout,
            inverse=not self.inverse,
        )

    def __repr__(self) -> str:
        shown = [f"{name}={value!r}" for name, value in self._items() if not self._default(name)]
        return f"RotarySpec({', '.join(shown)})"

    def _items(self) -> list[tuple[str, Any]]:
        return [(f.name, getattr(self, f.name)) for f in fields(self)]

    def _default(self, name: str) -> bool:
        if name == "head_dim":
            return False
        if name == "rotary_dim":
            return self.rotary_dim == self.head_dim
        return bool(getattr(self, name) == getattr(_PAPER, name))

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON types; the schedule as ``{"rope_type": ..., **parameters}``."""
        return {
            **dict(self._items()),
            "schedule": self.schedule.to_dict(),
            "sections": None if self.sections is None else self.sections.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RotarySpec:
        """The inverse of `to_dict`. Missing fields take their defaults, unknown ones raise."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise SpecError(
                f"unknown field {', '.join(map(repr, unknown))}; known: {', '.join(sorted(known))}"
            )
        if "head_dim" not in values:
            raise SpecError("head_dim is missing: it has no default")
        values = dict(values)
        if isinstance(values.get("schedule"), dict):
            values["schedule"] = schedule_from_dict(values["schedule"])
        if isinstance(values.get("sections"), dict):
            from rotary_spec.sections import Sections

            values["sections"] = Sections.from_dict(values["sections"])
        return cls(**values)

    def to_json(self, *, indent: int | None = None) -> str:
        """The spec as JSON text; `from_json` gives an equal spec back."""
        import json  # here and below: the spec itself costs no import time

        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_json(cls, text: str) -> RotarySpec:
        """The spec that `to_json` wrote.

        Raises
        ------
        SpecError
            If the text is not JSON, or does not describe a rotary embedding.
        """
        import json

        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise SpecError(f"not JSON: {error}") from error
        if not isinstance(values, dict):
            raise SpecError(f"expected a JSON object, got {type(values).__name__}")
        return cls.from_dict(values)


def integer(name: str, value: object) -> int:
    """``value`` as an int; `SpecError` names it where it is none."""
    if isinstance(value, bool):
        raise SpecError(f"{name} must be an integer, got {value!r}")
    try:
        return operator.index(cast(Any, value))
    except TypeError:
        raise SpecError(
            f"{name} must be an integer, got {value!r} ({type(value).__name__})"
        ) from None


def _even(name: str, value: object) -> int:
    number = integer(name, value)
    if number <= 0 or number % 2:
        raise SpecError(
            f"{name} must be even and positive, because features rotate in pairs; got {number}"
        )
    return number


def _check_layout(name: str, value: object) -> None:
    if value not in LAYOUTS:
        raise SpecError(
            f"{name} must be 'interleaved' (pairs 2i, 2i+1) or 'half' (pairs i, i + d/2), "
            f"got {value!r}"
        )


_PAPER = RotarySpec(head_dim=2)
