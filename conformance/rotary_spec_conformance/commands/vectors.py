"""What ``rotary-spec vectors export`` and ``verify`` do; the options are in rotary_spec.cli."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rotary_spec import VectorsError
from rotary_spec_conformance import vectors
from rotary_spec_conformance.commands.terminal import (
    CONFORMS,
    COULD_NOT_RUN,
    DOES_NOT,
    print_line,
)
from rotary_spec_conformance.vectors import TensorResult, Verification
from rotary_spec_conformance.vectors.exporting import check_folder

RESULTS = "results.safetensors"
_SHOWN = 40  # rows of a table; the JSON has them all


def run_export(folder: str) -> int:
    """Write the vectors, say what was written, and return the exit code."""
    out = Console(markup=False, highlight=False)
    try:
        written = vectors.export(folder)
    except VectorsError as error:
        Console(stderr=True, markup=False, highlight=False).print(
            Text(f"not exported: {error}", style="bold red"), soft_wrap=True
        )
        return COULD_NOT_RUN
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    for path in written:
        table.add_row(Text(str(path)), f"{path.stat().st_size:,} bytes")
    out.print(table)
    cases = vectors.load()
    out.print(
        Text(
            f"{len(cases)} cases, {len(cases.outputs()):,} tensors to compute. README.md says how; "
            f"write them to {RESULTS} there, then: rotary-spec vectors verify {folder}"
        ),
        soft_wrap=True,
    )
    return CONFORMS


def run_verify(
    folder: str, *, only: Sequence[str], dtypes: Sequence[str], narrow: bool, as_json: bool
) -> int:
    """Verify the results in a folder, print what was found, and return the exit code.

    0: all that was asked for is right; 1: a number is wrong; 2: something could not be compared.
    """
    out = Console(markup=False, highlight=False)
    try:
        check_folder(folder)
        found = vectors.verify(Path(folder) / RESULTS, only=only, dtypes=dtypes, narrow=narrow)
    except VectorsError as error:
        if as_json:
            print(json.dumps({"not_run": str(error)}))
        else:
            out.print(Text(f"not verified: {error}", style="yellow"), soft_wrap=True)
        return COULD_NOT_RUN
    if as_json:
        print(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    else:
        _show(found, out)
    if found.failures:
        return DOES_NOT
    return COULD_NOT_RUN if found.problems else CONFORMS


def _show(found: Verification, out: Console) -> None:
    if found.failures:
        out.print(_failures(found))
        _rest(len(found.failures), "wrong tensors", out)
        out.print()
    if found.problems:
        table = _table("tensor", "problem", "")
        for problem in found.problems[:_SHOWN]:
            table.add_row(Text(problem.tensor), Text(problem.kind, "yellow"), Text(problem.message))
        out.print(table)
        _rest(len(found.problems), "tensors that cannot be compared", out)
        out.print()
    if not found.failures and not found.problems:
        out.print(_groups(found))
        out.print()
    style = "bold green" if found.ok else "bold red" if found.failures else "bold yellow"
    print_line(out, _verdict(found), style, "")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _failures(found: Verification) -> Table:
    table = _table("wrong tensor", "off by", "allowed", "position", "pair", "lane")
    for r in found.failures[:_SHOWN]:
        where = [r.where.get(key) for key in ("position", "pair", "lane")]
        if r.where.get("pair") is None:
            where[1] = "copied"
        table.add_row(
            Text(f"{r.case}/{r.tensor}", "red"),
            _number(r, r.deviation),
            _number(r, r.tolerance) if r.tolerance else "0",
            *("" if value is None else str(value) for value in where),
        )
    return table


def _number(result: TensorResult, value: float) -> str:
    return f"{value:.3g}" + ("" if result.unit == "abs" else f" * {result.unit}")


def _groups(found: Verification) -> Table:
    """Right results by output: how many, and the closest call."""
    table = _table("output", "right", "worst off by", "allowed there", "in case")
    for name in dict.fromkeys(result.tensor for result in found.results):
        group = [result for result in found.results if result.tensor == name]
        worst = max(group, key=lambda r: r.deviation / r.tolerance if r.tolerance else 0.0)
        exact = worst.deviation == 0
        table.add_row(
            name,
            str(len(group)),
            "equal" if exact else _number(worst, worst.deviation),
            "" if exact else _number(worst, worst.tolerance),
            "" if exact else worst.case,
        )
    return table


def _rest(count: int, what: str, out: Console) -> None:
    if count > _SHOWN:
        out.print(f"... and {count - _SHOWN:,} more {what}; --json lists them all")


def _verdict(found: Verification) -> str:
    right = sum(result.ok for result in found.results)
    parts = [f"{right:,} of {found.asked:,} tensors are right"]
    if found.failures:
        parts.append(f"{len(found.failures):,} wrong")
    if found.problems:
        parts.append(f"{len(found.problems):,} cannot be compared")
    verdicts = list(found.cases().values())
    text = f"{', '.join(parts)}; {verdicts.count('pass')} of {len(verdicts)} cases pass"
    if found.narrow:
        text += "; 16-bit arithmetic was allowed for"
    if found.asked < found.total:
        text += f". A partial run: {found.total - found.asked:,} of {found.total:,} not asked for"
    verdict = (
        "verified"
        if found.ok and found.whole
        else "right as far as asked"
        if found.ok
        else ("not verified")
    )
    return f"{verdict}: {text}"
