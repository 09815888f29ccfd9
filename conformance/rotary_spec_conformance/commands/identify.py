"""What ``rotary-spec identify`` and ``compare`` do; the options are in rotary_spec.cli."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rotary_spec import RotarySpecError
from rotary_spec_conformance.commands.opening import Opening
from rotary_spec_conformance.commands.terminal import CONFORMS, COULD_NOT_RUN, DOES_NOT, print_line
from rotary_spec_conformance.identification.compare import Comparison, compare
from rotary_spec_conformance.identification.identify import identify
from rotary_spec_conformance.identification.result import Identification

_INDENT = " " * 18  # as wide as the names of what was found


def run_identify(name: str, head_dim: int | None, opening: Opening, *, as_json: bool) -> int:
    """Identify a target, print what was found, and return the exit code.

    0: a spec says it all; 1: none does, or it is not rotary; 2: it could not be run.
    """
    out = Console(markup=False, highlight=False)
    try:
        found = identify(opening.alone(name, head_dim))
    except RotarySpecError as error:
        return _not_run(str(error), out, as_json)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        _show(found, out)
    return CONFORMS if found.spec is not None else DOES_NOT


def run_compare(
    first: str, second: str, head_dim: int | None, opening: Opening, *, as_json: bool
) -> int:
    """Compare two targets, print how they differ, and return the exit code.

    0: equal, perhaps after a permutation; 1: different; 2: one could not be run.
    """
    out = Console(markup=False, highlight=False)
    try:
        found = compare(opening.alone(first, head_dim), opening.alone(second, head_dim))
    except RotarySpecError as error:
        return _not_run(str(error), out, as_json)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        _show_comparison(found, out)
    return CONFORMS if found.same else DOES_NOT


def _not_run(reason: str, out: Console, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"not_run": reason}))
    else:
        out.print(Text(f"not run: {reason}", style="yellow"))
    return COULD_NOT_RUN


def _show(found: Identification, out: Console) -> None:
    styles = {"spec": "bold green", "closest spec": "bold yellow", "not rotary": "bold red"}
    for name, text in found.rows():
        style = styles.get(name, "yellow" if name == "finding" else "")
        print_line(out, f"{name:<17} {text}", style, _INDENT)


def _show_comparison(found: Comparison, out: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("", found.a.target, found.b.target):
        table.add_column(column, overflow="fold")
    for row in found.side_by_side():
        table.add_row(*row)
    out.print(table)
    for finding in [*found.a.findings, *found.b.findings]:
        print_line(out, f"finding           {finding}", "yellow", _INDENT)
    out.print()
    print_line(out, found.summary(), "bold green" if found.same else "bold red", "")
    for line in found.advice():
        print_line(out, line, "", "")
