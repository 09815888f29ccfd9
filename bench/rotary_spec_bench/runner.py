"""Run a grid: check every contestant, then time those that are right, side by side."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any

from rotary_spec_bench.accuracy import Wrong, error_of
from rotary_spec_bench.cases import Case, Inputs
from rotary_spec_bench.clock import Call, Clock, quiet
from rotary_spec_bench.contestants import Contestant, Unsuited
from rotary_spec_bench.contestants.copies import BASELINE

Progress = Callable[[str, int, int], None]

TIMED, WRONG, UNSUITED, FAILED, LEFT_OUT = "timed", "wrong", "unsuited", "failed", "left out"


@dataclass
class Row:
    """One contestant in one case.

    Attributes
    ----------
    contestant, kind : str
    status : {"timed", "wrong", "unsuited", "failed", "left out"}
    reason : str
        Why it was not timed.
    error : float or None
        Largest deviation from the float64 reference on the last tokens.
    seconds, p10, p90 : float or None
        Median and deciles of the samples, seconds per call.
    ratio : float or None
        Median over the rounds of its time by the baseline's in the same round.
    host_seconds : float or None
        Median time until the call came back.
    first_seconds : float or None
        The first call: compilation and all.
    samples : int
    repeats : int
        Calls in a sample.
    """

    contestant: str
    kind: str
    status: str
    reason: str = ""
    error: float | None = None
    seconds: float | None = None
    p10: float | None = None
    p90: float | None = None
    ratio: float | None = None
    host_seconds: float | None = None
    first_seconds: float | None = None
    samples: int = 0
    repeats: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON types."""
        return asdict(self)


@dataclass
class CaseResult:
    """All rows of one case."""

    case: Case
    rows: list[Row] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The case and its rows, as JSON types."""
        return {"case": self.case.to_dict(), "rows": [row.to_dict() for row in self.rows]}


def complete(results: Sequence[CaseResult]) -> bool:
    """Whether every backend of this package was timed in every case that it offers."""
    rows = [row for result in results for row in result.rows if row.kind == "ours"]
    return bool(rows) and all(row.status in (TIMED, UNSUITED) for row in rows)


def run(
    cases: Sequence[Case],
    contestants: Sequence[Contestant],
    clock: Clock,
    *,
    rounds: int,
    budget: float,
    progress: Progress = lambda what, done, total: None,
) -> list[CaseResult]:
    """Time every case.

    Parameters
    ----------
    cases, contestants, clock
    rounds : int
        Samples of each contestant.
    budget : float
        Seconds after which no further case is begun; what is left out is said in its rows.
    progress : callable
        ``progress(what, done, total)``.
    """
    started = time.perf_counter()
    results = []
    for done, case in enumerate(cases):
        progress(case.name, done, len(cases))
        if time.perf_counter() - started > budget:
            reason = f"the time budget of {budget:.0f} s was spent"
            rows = [Row(c.name, c.kind, LEFT_OUT, reason) for c in contestants]
            results.append(CaseResult(case, rows))
            continue

        def within(what: str, case: Case = case, done: int = done) -> None:
            progress(f"{case.name}: {what}", done, len(cases))

        results.append(run_case(case, contestants, clock, rounds=rounds, progress=within))
        gc.collect()
    progress("", len(cases), len(cases))
    return results


def run_case(
    case: Case,
    contestants: Sequence[Contestant],
    clock: Clock,
    *,
    rounds: int,
    progress: Callable[[str], None] = lambda what: None,
) -> CaseResult:
    """Check all contestants of a case, then time those that are right."""
    inputs = Inputs(case)
    ready: list[tuple[Row, Call]] = []
    result = CaseResult(case)
    for contestant in contestants:
        progress(contestant.name)
        row, call = _checked(contestant, inputs)
        result.rows.append(row)
        if call is not None:
            ready.append((row, call))
    progress("timing")
    _time(ready, clock, rounds)
    return result


def _checked(contestant: Contestant, inputs: Inputs) -> tuple[Row, Call | None]:
    row = Row(contestant.name, contestant.kind, TIMED)
    try:
        if (missing := contestant.missing()) is not None:
            raise Unsuited(missing)
        prepared = contestant.prepare(inputs)
        start = time.perf_counter()
        out = prepared.call()
        row.first_seconds = time.perf_counter() - start
        row.error = error_of(inputs, prepared, out, contestant.kind)
    except Unsuited as why:
        row.status, row.reason = UNSUITED, str(why)
    except Wrong as why:
        row.status, row.reason = WRONG, str(why)
    except Exception as why:  # other people's code, and memory, can fail in any way
        row.status, row.reason = FAILED, _said(why)
    return row, prepared.call if row.status == TIMED else None


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def _time(ready: list[tuple[Row, Call]], clock: Clock, rounds: int) -> None:
    """Fill in the rows' times; a call that fails now becomes a failed row, and the others go on."""
    repeats: dict[int, int] = {}
    for i, (row, call) in enumerate(ready):
        try:
            call()
            repeats[i] = row.repeats = clock.repeats(call)
        except Exception as why:
            row.status, row.reason = FAILED, _said(why)
    samples: dict[int, list[tuple[float, float]]] = {i: [] for i in repeats}
    with quiet():
        for number in range(rounds):
            order = [i for i in samples if ready[i][0].status == TIMED]
            for i in order if number % 2 == 0 else reversed(order):
                row, call = ready[i]
                try:
                    samples[i] += clock.sample([call], [repeats[i]])
                except Exception as why:
                    row.status, row.reason = FAILED, _said(why)
    base = next((i for i in samples if ready[i][0].contestant == BASELINE), None)
    for i, taken in samples.items():
        row = ready[i][0]
        if row.status == TIMED and taken:
            _summarise(row, taken, samples[base] if base is not None else None)


def _summarise(
    row: Row, taken: list[tuple[float, float]], base: list[tuple[float, float]] | None
) -> None:
    work = [seconds for seconds, _ in taken]
    deciles = quantiles(work, n=10, method="inclusive") if len(work) > 1 else [work[0]] * 9
    row.seconds, row.p10, row.p90 = median(work), deciles[0], deciles[-1]
    row.host_seconds = median(host for _, host in taken)
    row.samples = len(work)
    if base and len(base) == len(work):
        row.ratio = median(mine / copy[0] for mine, copy in zip(work, base))
