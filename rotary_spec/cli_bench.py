"""``rotary-spec bench``: command names, options and help; the work is in the bench room."""

from __future__ import annotations

from typing import Annotated

import typer

from rotary_spec.cli_options import Json

app = typer.Typer(pretty_exceptions_enable=False)

BenchDevice = Annotated[
    str | None, typer.Option(help="cpu or cuda; default: cuda where there is a GPU.")
]


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    device: BenchDevice = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few cases.")] = False,
    peers: Annotated[
        bool, typer.Option("--peers", help="Other libraries' rotations that are installed, too.")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Write rotation-DEVICE.json and .png into this folder."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Time every backend beside a copy of the same bytes, after checking that it is right.

    Exits with 0 if every backend was timed in every case that it offers, 1 if one was not, 2 if
    the benchmark could not be run.
    """
    if context.invoked_subcommand is not None:
        return
    from rotary_spec_bench.commands import run_bench

    code = run_bench(device=device, quick=quick, with_peers=peers, folder=out, as_json=as_json)
    raise typer.Exit(code)


@app.command("compare")
def bench_compare(
    before: Annotated[str, typer.Argument(help="A file that 'rotary-spec bench --out' wrote.")],
    after: Annotated[str, typer.Argument(help="A later one.")],
    threshold: Annotated[
        float, typer.Option(help="How much slower is a regression: 0.1 is a tenth.")
    ] = 0.1,
    as_json: Json = False,
) -> None:
    """Say what became slower from one run to another, each against the copy of its own run.

    Exits with 0 if nothing did, 1 if something did, 2 if it cannot be said.
    """
    from rotary_spec_bench.commands import run_compare

    raise typer.Exit(run_compare(before, after, threshold, as_json=as_json))


@app.command("show")
def bench_show(
    path: Annotated[str, typer.Argument(help="A file that 'rotary-spec bench --out' wrote.")],
) -> None:
    """Print a run as a Markdown table: times the copy's, interleaved / half.

    Exits with 0, or 2 with the reason if the file is no run.
    """
    from rotary_spec_bench.commands import run_show

    raise typer.Exit(run_show(path))


@app.command("growth")
def bench_growth(device: BenchDevice = None, as_json: Json = False) -> None:
    """Print how time and memory grow with length, heads, batch and position, as exponents."""
    from rotary_spec_bench.commands import run_growth

    raise typer.Exit(run_growth(device=device, as_json=as_json))
