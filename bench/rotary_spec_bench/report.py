"""What a run found: tables for the terminal, JSON for the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rotary_spec_bench.runner import TIMED, UNSUITED, CaseResult, Row

_STYLES = {"ours": "bold", "copy": "dim", "peer": ""}


def to_dict(results: Sequence[CaseResult], about: dict[str, Any]) -> dict[str, Any]:
    """A whole run as JSON types; ``about`` is provenance and method."""
    return {**about, "cases": [result.to_dict() for result in results]}


def write(path: Path, run: dict[str, Any]) -> None:
    """The run as a JSON file."""
    path.write_text(json.dumps(run, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def show(results: Sequence[CaseResult], out: Console, *, host: bool = False) -> None:
    """One table for each case, fastest first; then what was not timed, by reason."""
    for result in results:
        out.print(Text(result.case.name, style="bold underline"))
        out.print(_table(result, host))
        for line in _not_timed(result.rows):
            out.print(Text(line, style="yellow"))
        out.print()


def _table(result: CaseResult, host: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    numbers = ["x copy", "ms", "p10 .. p90", "GB/s", *["host µs"] * host, "error"]
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    timed = [row for row in result.rows if row.status == TIMED and row.seconds is not None]
    for row in sorted(timed, key=lambda r: (r.ratio is None, r.ratio or r.seconds)):
        assert row.seconds is not None
        assert row.p10 is not None
        assert row.p90 is not None
        assert row.host_seconds is not None
        table.add_row(
            row.contestant,
            "" if row.ratio is None else f"{row.ratio:.2f}",
            _ms(row.seconds),
            f"{_ms(row.p10)} .. {_ms(row.p90)}",
            f"{result.case.nbytes / row.seconds / 1e9:.1f}",
            *[f"{row.host_seconds * 1e6:.1f}"] * host,
            f"{row.error:.1e}" if row.error else "0",
            style=_STYLES[row.kind],
        )
    return table


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def _not_timed(rows: Sequence[Row]) -> list[str]:
    """A line for each reason, with everybody it holds for; first what went wrong."""
    reasons: dict[tuple[bool, str], list[str]] = {}
    for row in rows:
        if row.status != TIMED:
            key = row.status == UNSUITED, f"{row.status}: {row.reason}"
            reasons.setdefault(key, []).append(row.contestant)
    return [f"{', '.join(names)}: {why}" for (_, why), names in sorted(reasons.items())]
