"""What ``rotary-spec check`` and ``rotary-spec targets`` do; the options are in rotary_spec.cli."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from textwrap import fill
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

import rotary_spec as rs
from rotary_spec import RotarySpecError, TargetError
from rotary_spec.schedules import schedule_from_dict
from rotary_spec_conformance.adapt import adapt
from rotary_spec_conformance.catalog import CATALOG, load, names_of
from rotary_spec_conformance.inference import framework_named
from rotary_spec_conformance.locate import locate
from rotary_spec_conformance.results import Report, summary_lines
from rotary_spec_conformance.runner import check
from rotary_spec_conformance.target import Target

CONFORMS, DOES_NOT, COULD_NOT_RUN = 0, 1, 2
_INDENT = " " * 10  # as wide as the mark and the clause id
_STYLES = {"✓": "green", "✗": "bold red", "!": "yellow", "-": "dim", "x": "yellow"}


@dataclass
class Outcome:
    """Reports of what ran, and the reason for each target that did not."""

    reports: list[Report] = field(default_factory=list)
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
    config: str | None,
    adapting: Mapping[str, Any],
    apply: str | None,
    device: str | None,
    checking: Mapping[str, Any],
    as_json: bool,
) -> int:
    """Check every named target, print what was found, and return the exit code.

    Parameters
    ----------
    names : sequence of str
        Catalog names or families, ``module:attribute`` or ``file.py:attribute``.
    spec_fields : mapping
        Fields of `RotarySpec` that were given; for catalog targets they replace the target's own.
    config : str or None
        Hugging Face config to take the spec from.
    adapting, checking : mapping
        Options of `adapt` and of `check`; None is left out.
    apply : str or None
        Function for shape "tables", located as a target is.
    device : str or None
    as_json : bool
    """
    out = Console(highlight=False, soft_wrap=False)
    outcome = Outcome()
    options = {key: value for key, value in checking.items() if value is not None}
    for name in [entry for given in names for entry in names_of(given) or [given]]:
        try:
            target, spec = _target(name, spec_fields, config, adapting, apply, device)
            with _Progress(name) as progress:
                report = check(target, spec, progress=progress, **options)
        except RotarySpecError as error:
            outcome.not_run[name] = str(error)
            if not as_json:
                out.print(Text(f"{name}: not run: {error}", style="yellow"))
            continue
        outcome.reports.append(report)
        if not as_json:
            _show(report, out)
    if as_json:
        print(outcome.to_json())
    elif len(outcome.reports) + len(outcome.not_run) > 1:
        _show_summary(outcome, out)
    return outcome.exit_code


def run_targets() -> int:
    """List the catalog, with what is not installed."""
    table = Table(box=None, pad_edge=False)
    for column in ("target", "what is called", "installed"):
        table.add_column(column, overflow="fold")
    for entry in CATALOG.values():
        installed = "yes" if find_spec(entry.module) else "no: pip install 'rotary-spec[peers]'"
        table.add_row(entry.name, entry.about, installed)
    Console(highlight=False).print(table)
    return CONFORMS


def _target(
    name: str,
    spec_fields: Mapping[str, Any],
    config: str | None,
    adapting: Mapping[str, Any],
    apply: str | None,
    device: str | None,
) -> tuple[Target, rs.RotarySpec]:
    fields = dict(spec_fields)
    if "schedule" in fields:
        fields["schedule"] = parse_schedule(fields["schedule"])
    given = {key: value for key, value in adapting.items() if value is not None}
    if name in CATALOG:
        if given or apply:
            raise TargetError(f"{', '.join(given) or 'apply'}: not for targets of the catalog")
        target, spec = load(name, config=config, device=device)
        return target, replace(spec, **fields)
    found = locate(name)
    spec = _spec(fields, config)
    if isinstance(found, Target):
        if given or apply:
            raise TargetError(f"{', '.join(given) or 'apply'}: {name} is a Target already")
        return found, spec
    framework = given.pop("framework", None)
    if device is not None:
        if framework is None:
            raise TargetError("device needs --framework beside it")
        framework = framework_named(framework, device)
    if apply is not None:
        given["apply"] = locate(apply)
    return adapt(found, spec=spec, framework=framework, name=name, **given), spec


def _spec(fields: dict[str, Any], config: str | None) -> rs.RotarySpec:
    if config is not None:
        return replace(rs.from_hf_config(config), **fields)
    if "head_dim" not in fields:
        raise rs.SpecError("head_dim is missing. Hint: give --head-dim, or --config config.json")
    return rs.RotarySpec(**fields)


def parse_schedule(text: str) -> rs.Schedule:
    """A schedule from ``rope_type:name=value,name=value``.

    >>> from rotary_spec_conformance.commands import parse_schedule
    >>> parse_schedule("linear:factor=4")
    Linear(factor=4.0)
    """
    rope_type, _, rest = text.partition(":")
    parameters: dict[str, Any] = {"rope_type": rope_type}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        try:
            parameters[key] = float(value)
        except ValueError:
            raise rs.SpecError(
                f"schedule {text!r}: {item!r} must be name=number"
                if equals
                else f"schedule {text!r}: must look like linear:factor=4"
            ) from None
    return schedule_from_dict(parameters)


class _Progress:
    """A bar on the error stream, once a check has taken a second."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.perf_counter()
        self._bar: Progress | None = None

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, clause: str, done: int, total: int) -> None:
        if self._bar is None and time.perf_counter() - self._started > 1.0:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(self._name, total=total)
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=done, description=f"{self._name} {clause}"
            )

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _show(report: Report, out: Console) -> None:
    for line in summary_lines(report):
        style = _STYLES.get(line[:1], "")
        if line.startswith(("conforms", "does not conform", "could not be run")):
            style = "bold green" if report.ok else "bold red"
        out.print(Text(fill(line, out.width, subsequent_indent=_INDENT) or line, style=style))


def _show_summary(outcome: Outcome, out: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("target", "verdict", "angles", "trusted to"):
        table.add_column(column)
    for report in outcome.reports:
        grade = report.grades[0] if report.grades else None
        angles = grade.precision if grade else "not judged"
        table.add_row(
            report.target, report.verdict(), angles, f"{grade.trusted_to:,}" if grade else ""
        )
    for name, reason in outcome.not_run.items():
        table.add_row(name, f"not run: {reason}")
    out.print()
    out.print(table)
