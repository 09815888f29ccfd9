"""Two runs of the benchmark: what became slower against the copy of its own run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rotary_spec import RotarySpecError

Key = tuple[str, str]
"""Case and contestant."""


class RunFileError(RotarySpecError, ValueError):
    """A file that is no run of this benchmark."""


@dataclass(frozen=True)
class Change:
    """A contestant in a case that both runs have.

    Attributes
    ----------
    case, contestant : str
    before, after : float or None
        Times the copy of the same run; None where it was not timed.
    regressed : bool
        Slower by more than the threshold, or timed before and not any more.
    """

    case: str
    contestant: str
    before: float | None
    after: float | None
    regressed: bool


def read(path: str | Path) -> dict[str, Any]:
    """The run in a file.

    Raises
    ------
    RunFileError
        If it cannot be read, is not JSON, or is something else; the text names the file.
    """
    try:
        run = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFileError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunFileError(f"{path} is not JSON: {error}") from error
    try:
        _ratios(run)
    except (KeyError, TypeError, AttributeError):
        raise RunFileError(
            f"{path} is no run of this benchmark; 'rotary-spec bench --out' writes one"
        ) from None
    return run  # type: ignore[no-any-return]


def compare(before: dict[str, Any], after: dict[str, Any], threshold: float) -> list[Change]:
    """Everything that both runs have, worst first.

    Parameters
    ----------
    before, after : dict
        Runs, as `read` gives them.
    threshold : float
        How much the ratio to the copy may grow: 0.1 is a tenth.
    """
    old, new = _ratios(before), _ratios(after)
    changes = []
    for key in old.keys() & new.keys():
        was, now = old[key], new[key]
        if was is None and now is None:
            continue
        lost = was is not None and (now is None or now > was * (1 + threshold))
        changes.append(Change(*key, was, now, lost))
    return sorted(changes, key=lambda c: (not c.regressed, -_growth(c), c.case, c.contestant))


def _growth(change: Change) -> float:
    if change.before is None:
        return 0.0
    return float("inf") if change.after is None else change.after / change.before


def _ratios(run: dict[str, Any]) -> dict[Key, float | None]:
    return {
        (part["case"]["name"], row["contestant"]): row["ratio"]
        for part in run["cases"]
        for row in part["rows"]
        if row["kind"] != "copy"
    }
