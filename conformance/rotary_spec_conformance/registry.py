"""The clauses that are checked: each check function registers itself with its clause id."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["MUST", "SHOULD"]


class NotRun(Exception):
    """Raised by a check that cannot be run on this target; the text is the reason."""


@dataclass(frozen=True)
class Outcome:
    """What a check measured: it holds where ``deviation <= tolerance``, which NaN never is."""

    deviation: float
    tolerance: float
    unit: str = "abs"
    where: dict[str, Any] = field(default_factory=dict)
    message: str = ""

    @property
    def holds(self) -> bool:
        return bool(self.deviation <= self.tolerance)


Check = Callable[[Any, str], Outcome]
"""``check(context, dtype)``, with the context of the suite that the clause belongs to."""


@dataclass(frozen=True)
class Clause:
    """A clause of SPEC.md and the check that enforces it.

    Attributes
    ----------
    id, title : str
    level : {"MUST", "SHOULD"}
    check : callable
        ``check(context, dtype) -> Outcome``; may raise `NotRun`.
    needs : tuple of str
        Clauses without which this one would say nothing; where one fails, this one is not run.
    dtypes : {"first", "each", "wide", "narrow"}
        Whether it runs for the first dtype alone, for each, or for the 32- and 64-bit (wide) or
        the 16-bit (narrow) ones.
    """

    id: str
    title: str
    level: Level
    check: Check
    needs: tuple[str, ...] = ()
    dtypes: Literal["first", "each", "wide", "narrow"] = "first"


CLAUSES: dict[str, Clause] = {}
"""Every clause on rotations by its id, in the order in which they run."""

LINEAR_ATTENTION_CLAUSES: dict[str, Clause] = {}
"""The same on linear attention; importing `rotary_spec_conformance.linear_attention` fills it."""


def clause(
    id: str,  # noqa: A002
    title: str,
    *,
    level: Level = "MUST",
    needs: Iterable[str] = (),
    dtypes: Literal["first", "each", "wide", "narrow"] = "first",
    registry: dict[str, Clause] = CLAUSES,
) -> Callable[[Check], Check]:
    """Register the decorated function as the check of clause ``id``."""

    def register(check: Check) -> Check:
        if id in registry:
            raise ValueError(f"clause {id} is registered twice")
        registry[id] = Clause(id, title, level, check, tuple(needs), dtypes)
        return check

    return register
