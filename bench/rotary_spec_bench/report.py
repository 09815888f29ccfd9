"""What a run found: tables for the terminal, JSON for the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rotary_spec.spec import LAYOUTS
from rotary_spec_bench.contestants.copies import BASELINE
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


def markdown(run: dict[str, Any]) -> str:
    """Times the copy's, as a Markdown table: a row per contestant, cells interleaved / half.

    Cases that differ in the layout only share a column; a dash is a row that was not timed.
    """
    columns: dict[str, dict[str, dict[str, float]]] = {}
    kinds: dict[str, str] = {}
    for result in run["cases"]:
        layout = result["case"]["layout"]
        column = result["case"]["name"].replace(f", {layout}", "")
        by_layout = columns.setdefault(column, {}).setdefault(layout, {})
        for row in result["rows"]:
            if row["ratio"] is not None and row["contestant"] != BASELINE:
                by_layout[row["contestant"]] = row["ratio"]
                kinds[row["contestant"]] = row["kind"]

    def cell(by_layout: dict[str, dict[str, float]], name: str) -> str:
        ratios = [by_layout.get(layout, {}).get(name) for layout in LAYOUTS]
        return " / ".join("-" if ratio is None else _figures(ratio) for ratio in ratios)

    def worst(name: str) -> float:
        column = next(iter(columns.values()))
        return max(ratios.get(name, 0.0) for ratios in column.values())

    lines = [f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for name in sorted(kinds, key=worst):
        shown = f"**{name}**" if kinds[name] == "ours" else name
        cells = " | ".join(cell(by_layout, name) for by_layout in columns.values())
        lines.append(f"| {shown} | {cells} |")
    return "\n".join(lines)


def _figures(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 9.95 else f"{ratio:.0f}"


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
