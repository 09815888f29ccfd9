"""The clauses that are checked: each check function registers itself with its clause id."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rotary_spec_conformance.context import Context

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


Check = Callable[["Context", str], Outcome]


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
"""Every clause by its id, in the order in which they run."""


def clause(
    id: str,  # noqa: A002
    title: str,
    *,
    level: Level = "MUST",
    needs: Iterable[str] = (),
    dtypes: Literal["first", "each", "wide", "narrow"] = "first",
) -> Callable[[Check], Check]:
    """Register the decorated function as the check of clause ``id``."""

    def register(check: Check) -> Check:
        if id in CLAUSES:
            raise ValueError(f"clause {id} is registered twice")
        CLAUSES[id] = Clause(id, title, level, check, tuple(needs), dtypes)
        return check

    return register
