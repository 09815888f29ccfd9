"""Which kind of target ``rotary-spec check`` is asked to check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from rotary_spec_conformance.commands.check import run_check
from rotary_spec_conformance.commands.check_linear_attention import run_check_linear_attention
from rotary_spec_conformance.commands.opening import Opening
from rotary_spec_conformance.commands.terminal import COULD_NOT_RUN
from rotary_spec_conformance.linear_attention.catalog import names_of

KINDS = ("rotation", "linear-attention")


def run_check_of_kind(
    kind: str,
    names: Sequence[str],
    *,
    spec_fields: Mapping[str, Any],
    opening: Opening,
    checking: Mapping[str, Any],
    attention: Mapping[str, Any],
    as_json: bool,
) -> int:
    """`run_check` or `run_check_linear_attention`, and the exit code.

    Parameters
    ----------
    kind : {"rotation", "linear-attention"}
    names, spec_fields, opening, checking, as_json
        As for both.
    attention : mapping
        Further options of `check_linear_attention`; None was not given.
    """
    given = {name: value for name, value in attention.items() if value is not None}
    common: dict[str, Any] = {"spec_fields": spec_fields, "opening": opening, "as_json": as_json}
    if kind == "linear-attention":
        return run_check_linear_attention(names, checking={**checking, **given}, **common)
    listed = [name for name in names if names_of(name)]
    if kind != "rotation":
        problem = f"kind must be {' or '.join(KINDS)}, got {kind!r}"
    elif given or listed:
        problem = f"{', '.join([*given, *listed])}: only with --kind linear-attention"
    else:
        return run_check(names, checking=checking, **common)
    Console(markup=False, highlight=False).print(Text(f"not run: {problem}", style="yellow"))
    return COULD_NOT_RUN
