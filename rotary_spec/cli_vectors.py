"""``rotary-spec vectors``: command names, options and help; the work is in the conformance room."""

from __future__ import annotations

from typing import Annotated

import typer

from rotary_spec.cli_options import Json

app = typer.Typer(help="Golden vectors for implementations in any language.", no_args_is_help=True)


@app.command("export")
def vectors_export(
    folder: Annotated[str, typer.Argument(help="A new or empty folder.")],
) -> None:
    """Write inputs, exact results, a manifest with its JSON Schema, and a README that says how.

    Exits with 0 if the files were written, 2 with the reason if they were not.
    """
    from rotary_spec_conformance.commands.vectors import run_export

    raise typer.Exit(run_export(folder))


@app.command("verify")
def vectors_verify(
    folder: Annotated[
        str, typer.Argument(help="An exported folder, with results.safetensors added.")
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of cases ('axes-*') or tensors ('*/y_*'); may be repeated."),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            help="float32, float16, bfloat16, float64 (cos and sin) or uint64 (phases); may be "
            "repeated. Default: all."
        ),
    ] = None,
    narrow: Annotated[
        bool,
        typer.Option("--narrow", help="Allow 16-bit results to come from 16-bit arithmetic."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Hold the results of a program, in whatever language, against the exact ones.

    Exits with 0 if all are right, 1 if a number is wrong, 2 if a tensor is missing, truncated or
    otherwise cannot be compared. A partial run is right as far as asked, and says so.
    """
    from rotary_spec_conformance.commands.vectors import run_verify

    code = run_verify(folder, only=only or (), dtypes=dtype or (), narrow=narrow, as_json=as_json)
    raise typer.Exit(code)
