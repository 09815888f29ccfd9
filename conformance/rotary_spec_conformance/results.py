"""What a run of the checks found: `Result`, `Grade` and `Report`."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rotary_spec import RotarySpec

Status = Literal["pass", "fail", "note", "skip", "xfail"]

MARKS: dict[Status, str] = {"pass": "✓", "fail": "✗", "note": "!", "skip": "-", "xfail": "x"}


@dataclass(frozen=True)
class Result:
    """What one check found.

    Attributes
    ----------
    clause : str
        Id of the clause of SPEC.md, such as "ROT-2".
    title : str
    status : {"pass", "fail", "note", "skip", "xfail"}
        ``note``: a SHOULD that does not hold; the target still conforms. ``skip``: not run, for
        the reason in ``message``. ``xfail``: fails, as was declared beforehand.
    deviation, tolerance : float or None
        Of the worst case, in ``unit``. The check holds where deviation <= tolerance.
    unit : str
        "rad", "abs" (an absolute difference of components) or "rel".
    where : dict
        ``position``, ``pair``, ``lane``, ``dtype``, ``call``: what is known of the worst case.
    message : str
        What it means, in words, with a hint where there is one.
    """

    clause: str
    title: str
    status: Status
    deviation: float | None = None
    tolerance: float | None = None
    unit: str = "abs"
    where: dict[str, Any] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class Grade:
    """How precise the angles are for inputs of one dtype.

    Attributes
    ----------
    dtype : str
    precision : {"exact", "float32", "low"}
        ``exact``: within the bound that does not grow with the position, wherever it was probed.
        ``float32``: within the bound of float32 angles. ``low``: neither.
    trusted_to : int
        Last position up to which every probed angle was within 2^-8 rad.
    probed_to : int
        Last position that was probed.
    """

    dtype: str
    precision: Literal["exact", "float32", "low"]
    trusted_to: int
    probed_to: int

    def __str__(self) -> str:
        angles = "exact phases" if self.precision == "exact" else f"{self.precision} angles"
        if self.precision == "low":
            angles = "low-precision angles"
        whole = " (as far as probed)" if self.trusted_to >= self.probed_to else ""
        return f"{self.dtype}: {angles}, trusted to position {self.trusted_to:,}{whole}"


@dataclass(frozen=True)
class Report:
    """Everything that `check` found; ``print(report)`` shows it on one screen.

    Attributes
    ----------
    target : str
    about : str
    spec : RotarySpec
    framework : str
    versions : dict
    results : list of Result
    grades : list of Grade
        One per dtype whose angles could be judged.
    findings : list of str
        What the spec leaves open, in sentences; among them declared failures that did not occur.
    seconds : float
    """

    target: str
    about: str
    spec: RotarySpec
    framework: str
    versions: dict[str, str]
    results: list[Result]
    grades: list[Grade]
    findings: list[str]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the target conforms: something was checked, and no MUST failed."""
        statuses = {result.status for result in self.results}
        return "fail" not in statuses and "pass" in statuses

    @property
    def ran(self) -> bool:
        """Whether anything was measured: False where every call raised or nothing could run."""
        return any(result.deviation is not None for result in self.results)

    @property
    def failures(self) -> list[Result]:
        """The results that failed."""
        return [result for result in self.results if result.status == "fail"]

    def counts(self) -> dict[str, int]:
        """Number of results by status."""
        return dict(Counter(result.status for result in self.results))

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON types; a number that is not finite becomes a string."""
        return {
            "target": self.target,
            "about": self.about,
            "ok": self.ok,
            "spec": self.spec.to_dict(),
            "framework": self.framework,
            "versions": self.versions,
            "counts": self.counts(),
            "grades": [asdict(grade) for grade in self.grades],
            "findings": self.findings,
            "results": [
                {key: _jsonable(value) for key, value in asdict(result).items()}
                for result in self.results
            ],
            "seconds": round(self.seconds, 3),
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def verdict(self) -> str:
        """One line: does it conform, and how many checks went which way."""
        counts = self.counts()
        words = {
            "pass": "passed", "fail": "failed", "note": "noted", "skip": "not run",
            "xfail": "failed as declared",
        }  # fmt: skip
        tally = ", ".join(f"{counts[s]} {words[s]}" for s in words if s in counts)
        head = "conforms" if self.ok else "does not conform" if self.ran else "could not be run"
        return f"{head}: {tally}"

    def __str__(self) -> str:
        return "\n".join(summary_lines(self))


def summary_lines(report: Report) -> list[str]:
    """The report on one screen: a line per clause, the reason below where it does not hold."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [f"{report.target}  ({', '.join(filter(None, (report.about, versions)))})"]
    lines += [f"held against {report.spec}", ""]
    for clause in dict.fromkeys(result.clause for result in report.results):
        lines += _clause_lines([r for r in report.results if r.clause == clause])
    lines += _skipped_lines(report.results)
    lines += [""] if report.grades else []
    lines += [f"precision {grade}" for grade in report.grades]
    lines += [f"finding   {finding}" for finding in report.findings]
    return [*lines, "", f"{report.verdict()} ({report.seconds:.2f} s)"]


def _clause_lines(results: list[Result]) -> list[str]:
    """Results of one clause: those that pass share a line, which shows the tightest of them."""
    lines = []
    if passed := [r for r in results if r.status == "pass"]:
        tightest = max(passed, key=lambda r: (r.deviation or 0.0) / (r.tolerance or 1.0))
        dtypes = ", ".join(r.where["dtype"] for r in passed if "dtype" in r.where)
        lines.append(_head(passed[0], dtypes, measured(tightest)))
    for result in results:
        if result.status not in ("pass", "skip"):
            lines.append(_head(result, result.where.get("dtype", ""), measured(result)))
            lines += [f"          {line}" for line in result.message.splitlines()]
    return lines


def _skipped_lines(results: list[Result]) -> list[str]:
    """One line per reason for which clauses were not run."""
    by_reason: dict[str, dict[str, None]] = {}
    for result in results:
        if result.status == "skip":
            by_reason.setdefault(result.message, {})[result.clause] = None
    return [
        f"{MARKS['skip']} not run: {', '.join(clauses)}: {reason}"
        for reason, clauses in by_reason.items()
    ]


def _head(result: Result, dtypes: str, figures: str) -> str:
    shown = f" [{dtypes}]" if dtypes else ""
    return f"{MARKS[result.status]} {result.clause:<7} {result.title}{shown}  {figures}".rstrip()


def measured(result: Result) -> str:
    """Deviation against tolerance, such as "3.1e-07 of 4.2e-06 rad"; nothing for exact equality."""
    if result.deviation is None or (result.deviation == 0 and not result.tolerance):
        return ""
    if not result.tolerance:
        return f"{result.deviation:.2g} where none is allowed"
    unit = f" {result.unit}" if result.unit == "rad" else ""
    return f"{result.deviation:.2g} of {result.tolerance:.2g}{unit}"


def _jsonable(value: Any) -> Any:
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
