"""What ``rotary-spec check`` and ``rotary-spec targets`` do; the options are in rotary_spec.cli."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

import rotary_spec as rs
from rotary_spec import RotarySpecError
from rotary_spec_conformance.catalog import CATALOG, names_of
from rotary_spec_conformance.commands.opening import Opening
from rotary_spec_conformance.commands.terminal import (
    CONFORMS,
    COULD_NOT_RUN,
    DOES_NOT,
    SlowProgress,
    print_line,
)
from rotary_spec_conformance.linear_attention.catalog import LINEAR_CATALOG
from rotary_spec_conformance.results import Report, summary_lines
from rotary_spec_conformance.runner import check

R = TypeVar("R", bound=Report)

_COLUMNS = ("target", "verdict", "angles", "trusted to")
_STYLES = {"✓": "green", "✗": "bold red", "!": "yellow", "-": "dim", "x": "yellow"}


@dataclass
class Outcome(Generic[R]):
    """Reports of what ran, and the reason for each target that did not."""

    reports: list[R] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        if any(report.ran and not report.ok for report in self.reports):
            return DOES_NOT
        if self.not_run or any(not report.ran for report in self.reports):
            return COULD_NOT_RUN
        return CONFORMS

    def to_json(self) -> str:
        reports = [report.to_dict() for report in self.reports]
        not_run = [{"target": name, "reason": why} for name, why in self.not_run.items()]
        whole = {"rotary_spec": rs.__version__, "reports": reports, "not_run": not_run}
        return json.dumps(whole, indent=2, allow_nan=False)


def run_check(
    names: Sequence[str],
    *,
    spec_fields: Mapping[str, Any],
    opening: Opening,
    checking: Mapping[str, Any],
    as_json: bool,
) -> int:
    """Check every named target, print what was found, and return the exit code.

    Parameters
    ----------
    names : sequence of str
        Catalog names or families, ``module:attribute`` or ``file.py:attribute``.
    spec_fields : mapping
        Fields of `RotarySpec` that were given.
    opening : Opening
    checking : mapping
        Options of `check`; None is left out.
    as_json : bool
    """
    options = {key: value for key, value in checking.items() if value is not None}

    def report_of(name: str) -> Report:
        target, spec = opening.with_spec(name, spec_fields)
        with SlowProgress(name) as progress:
            return check(target, spec, progress=progress, **options)

    each = [entry for given in names for entry in names_of(given) or [given]]
    return run_reports(each, report_of, _COLUMNS, _row, as_json=as_json)


def run_reports(
    names: Sequence[str],
    report_of: Callable[[str], R],
    columns: Sequence[str],
    row: Callable[[R], Sequence[str]],
    *,
    as_json: bool,
) -> int:
    """Print the report of every name, a table if there are several, and return the exit code.

    ``row`` makes a line of the table, whose first columns are the target and the verdict.
    """
    out = Console(markup=False, highlight=False)
    outcome: Outcome[R] = Outcome()
    for name in names:
        try:
            report = report_of(name)
        except RotarySpecError as error:
            reason = str(error).removeprefix(f"{name}: ")
            outcome.not_run[name] = reason
            if not as_json:
                out.print(Text(f"{name}: not run: {reason}", style="yellow"))
            continue
        outcome.reports.append(report)
        if not as_json:
            _show(report, out)
    if as_json:
        print(outcome.to_json())
    elif len(outcome.reports) + len(outcome.not_run) > 1:
        _show_summary(outcome, columns, row, out)
    return outcome.exit_code


def run_targets() -> int:
    """List the catalog, with what is not installed."""
    table = Table(box=None, pad_edge=False)
    for column in ("target", "what is called", "installed"):
        table.add_column(column, overflow="fold")
    for entry in (*CATALOG.values(), *LINEAR_CATALOG.values()):
        installed = "yes" if find_spec(entry.module) else f"no: pip install {entry.install}"
        table.add_row(entry.name, entry.about, installed)
    table.add_row("transformers:MODEL_TYPE", "any other model type with a rotary embedding", "")
    Console(markup=False, highlight=False).print(table)
    return CONFORMS


def _show(report: Report, out: Console) -> None:
    for line in summary_lines(report):
        style = _STYLES.get(line[:1], "")
        if line.startswith(("conforms", "does not conform", "could not be run")):
            style = "bold green" if report.ok else "bold red"
        print_line(out, line, style)


def _row(report: Report) -> tuple[str, ...]:
    grade = report.grades[0] if report.grades else None
    angles = grade.precision if grade else "not judged"
    return report.target, report.verdict(), angles, f"{grade.trusted_to:,}" if grade else ""


def _show_summary(
    outcome: Outcome[R],
    columns: Sequence[str],
    row: Callable[[R], Sequence[str]],
    out: Console,
) -> None:
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold" if number else "ellipsis", no_wrap=not number)
    for report in outcome.reports:
        table.add_row(*row(report))
    out.print()
    out.print(table)
    for name, reason in outcome.not_run.items():
        print_line(out, f"{name}  not run: {reason}")
