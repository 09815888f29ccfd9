"""What ``rotary-spec encodings`` does; the options are in rotary_spec.cli."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rotary_spec.encodings import Properties, paper_encodings, properties
from rotary_spec.errors import RotarySpecError

COMPARED, COULD_NOT_RUN = 0, 2


def run_encodings(dim: int, length: int, seed: int, *, as_json: bool, as_markdown: bool) -> int:
    """Measure the encodings of the paper's Section 2, print the comparison, give the exit code."""
    try:
        encodings = paper_encodings(dim, length, seed=seed)
        found = [properties(encoding, length=length) for encoding in encodings]
    except RotarySpecError as error:
        text = Text(f"not compared: {error}", style="bold red")
        Console(stderr=True, markup=False, highlight=False).print(text, soft_wrap=True)
        return COULD_NOT_RUN
    if as_json:
        whole = {"dim": dim, "length": length, "seed": seed, "encodings": list(map(_row, found))}
        print(json.dumps(whole, indent=2, allow_nan=False))
    elif as_markdown:
        print("\n".join(markdown(found)))
    else:
        table = Table(box=None, pad_edge=False)
        for column in columns(found):
            table.add_column(column, overflow="fold")
        for one in found:
            table.add_row(*cells(one), style="bold" if one.relative and one.multiplies else "")
        Console(markup=False, highlight=False).print(table)
    return COMPARED


def columns(found: Sequence[Properties]) -> tuple[str, ...]:
    """The heads of the table, in lines; they name the lengths that were measured."""
    first = found[0]
    tokens = ", ".join(str(tokens) for tokens, _ in first.ranks)
    return (
        "encoding",
        "Eq.",
        "depends\non",
        "position",
        f"rank of\n{tokens}\ntokens",
        "linear\nattention",
        f"beyond\n{first.length}",
        f"score,\n{first.decay[-1][0]}+ : 0",
    )


def cells(one: Properties) -> tuple[str, ...]:
    """One row of the table."""
    return (
        one.encoding.name,
        one.encoding.equation,
        "m - n" if one.relative else "m and n",
        "multiplies" if one.multiplies else "adds",
        ", ".join(str(rank) for _, rank in one.ranks),
        "no" if one.features is None else f"{one.features} features",
        _beyond(one),
        f"{one.decay[-1][1]:.2f}",
    )


def markdown(found: Sequence[Properties]) -> list[str]:
    """The table in Markdown."""
    heads = [head.replace("\n", " ") for head in columns(found)]
    rows = [heads, ["---"] * len(heads), *map(cells, found)]
    return [f"| {' | '.join(row)} |" for row in rows]


def _beyond(one: Properties) -> str:
    if one.told_apart is None:
        return "undefined"
    if one.beyond == "constant":
        return f"flat from {one.told_apart + 1}"
    return "continues"


def _row(one: Properties) -> dict[str, Any]:
    measured = asdict(one)
    del measured["encoding"], measured["length"]
    derived = ("relative", "features", "multiplies", "beyond")
    return {
        "encoding": one.encoding.name,
        "equation": one.encoding.equation,
        **measured,
        **{name: getattr(one, name) for name in derived},
    }
