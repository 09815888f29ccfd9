"""What ``rotary-spec survey`` does; the options are in rotary_spec.cli."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

import rotary_spec as rs
from rotary_spec import RotarySpecError
from rotary_spec_conformance.commands.terminal import CONFORMS, COULD_NOT_RUN
from rotary_spec_conformance.survey import Row, survey

COLUMNS = (
    "model type", "layout", "±", "rotated", "axes", "base", "schedule", "A", "tables", "angles",
    "trusted to", "as its config",
)  # fmt: skip


def run_survey(
    library: str, model_types: Sequence[str], *, as_json: bool, as_markdown: bool
) -> int:
    """Survey a library, print a row per rotary embedding, and return the exit code.

    0 unless the survey could not be run: what models do is a finding, not a failure.
    """
    try:
        if library != "transformers":
            raise RotarySpecError(f"{library!r} cannot be surveyed; only transformers can")
        rows = _survey(model_types)
    except RotarySpecError as error:
        if as_json:
            print(json.dumps({"not_run": str(error)}))
        else:
            Console(markup=False, highlight=False).print(Text(f"not run: {error}", style="yellow"))
        return COULD_NOT_RUN
    if as_json:
        whole = {
            "rotary_spec": rs.__version__,
            "versions": {name: version(name) for name in ("transformers", "torch")},
            "rows": [row.to_dict() for row in rows],
        }
        print(json.dumps(whole, indent=2, allow_nan=False))
    elif as_markdown:
        print("\n".join(markdown(rows)))
    else:
        _show(rows)
    return CONFORMS


def _survey(model_types: Sequence[str]) -> list[Row]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("survey", total=None)

        def progress(model_type: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=model_type)

        return survey(progress, model_types or None)


def cells(row: Row) -> tuple[str, ...]:
    """A row under `COLUMNS`; where nothing was measured, the reason in the last."""
    name = row.target.partition(":")[2]
    if row.status != "identified":
        return (name, *[""] * (len(COLUMNS) - 2), f"{row.status}: {row.reason}")
    factor = row.attention_factor
    remarks = [row.conforms, *row.findings]
    return (
        name,
        row.layout,
        row.direction,
        row.rotated,
        row.axes,
        "" if row.base is None else f"{row.base:.10g}",
        row.schedule,
        "" if factor is None or factor == 1 else f"{factor:.6g}",
        row.table_dtype,
        row.precision,
        "" if row.trusted_to is None else f"{row.trusted_to:,}",
        "; ".join(filter(None, remarks)),
    )


def summary(rows: Sequence[Row]) -> str:
    """One line: how many rows, and what became of them."""
    counts = Counter(row.status for row in rows)
    said = Counter(row.conforms.partition(":")[0] for row in rows if row.status == "identified")
    parts = [f"{count} {status}" for status, count in counts.most_common()]
    return (
        f"{len(rows)} rotary embeddings of {len({row.model_type for row in rows})} model types: "
        f"{', '.join(parts)}. As their configs say: {said['yes']} yes, {said['no']} no, "
        f"{said['config says nothing']} whose config says nothing."
    )


def markdown(rows: Sequence[Row]) -> list[str]:
    """The table in Markdown, and the summary."""
    head = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    body = ["| " + " | ".join(c.replace("|", "\\|") for c in cells(row)) + " |" for row in rows]
    return [*head, *body, "", summary(rows)]


def _show(rows: Sequence[Row]) -> None:
    out = Console(markup=False, highlight=False)
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for row in rows:
        unusual = row.status != "identified" or row.conforms.startswith("no") or row.findings
        table.add_row(*cells(row), style="yellow" if unusual or row.direction == "-" else "")
    out.print(table)
    out.print()
    out.print(Text(summary(rows)))
