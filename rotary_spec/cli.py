"""``rotary-spec``: command names, options and help. The work is in the rooms, imported when run."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="What a rotary position embedding is, and whether yours is one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_SPEC, _CALL, _RUN = "The spec it is held against", "How it is called", "The run"


@app.command()
def check(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="A name of the catalog (transformers:llama; see 'rotary-spec targets') or a "
            "family of it (rotary-spec), package.module:attribute, or path/to/file.py:attribute.",
        ),
    ],
    config: Annotated[
        str | None,
        typer.Option(help="Hugging Face config.json to take the spec from.", rich_help_panel=_SPEC),
    ] = None,
    head_dim: Annotated[int | None, typer.Option(rich_help_panel=_SPEC)] = None,
    base: Annotated[
        float | None, typer.Option(help="Default: 10000.", rich_help_panel=_SPEC)
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="interleaved (default) or half.", rich_help_panel=_SPEC),
    ] = None,
    output_layout: Annotated[
        str | None, typer.Option(help="Default: as layout.", rich_help_panel=_SPEC)
    ] = None,
    rotary_dim: Annotated[
        int | None, typer.Option(help="Default: head_dim.", rich_help_panel=_SPEC)
    ] = None,
    rotary_start: Annotated[
        int | None, typer.Option(help="First rotated lane; default: 0.", rich_help_panel=_SPEC)
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="default, linear:factor=4, or llama3:factor=8,low_freq_factor=1,"
            "high_freq_factor=4,original_max_position_embeddings=8192.",
            rich_help_panel=_SPEC,
        ),
    ] = None,
    attention_factor: Annotated[
        float | None,
        typer.Option(help="Default: what the schedule says.", rich_help_panel=_SPEC),
    ] = None,
    inverse: Annotated[
        bool | None,
        typer.Option("--inverse", help="Rotate by -m theta.", rich_help_panel=_SPEC),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="Call shape: x-positions, x-offset, x, x-cos-sin, qk-cos-sin, qk-freqs-cis or "
            "tables; default: by the parameter names.",
            rich_help_panel=_CALL,
        ),
    ] = None,
    apply: Annotated[
        str | None,
        typer.Option(
            help="For a module that gives (cos, sin): the function (q, k, cos, sin) that uses "
            "them, named as a target is.",
            rich_help_panel=_CALL,
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(help="Axes of x: bhsd (default) or bshd.", rich_help_panel=_CALL),
    ] = None,
    factory: Annotated[
        bool | None,
        typer.Option(
            "--factory",
            help="The attribute makes the implementation when called without arguments.",
            rich_help_panel=_CALL,
        ),
    ] = None,
    framework: Annotated[
        str | None,
        typer.Option(
            help="numpy, torch, jax, cupy or mlx; default: inferred.", rich_help_panel=_CALL
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Such as cuda; with --framework, or for rotary-spec's own backends.",
            rich_help_panel=_CALL,
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="Dtype to test; may be repeated. Default: all.", rich_help_panel=_RUN),
    ] = None,
    max_position: Annotated[
        int | None,
        typer.Option(
            help="Positions below it must be right; default: 131072, or what the target declares.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer dtypes and positions.", rich_help_panel=_RUN)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the reports as JSON.", rich_help_panel=_RUN)
    ] = False,
) -> None:
    """Check implementations against a spec.

    Exits with 0 if all conform, 1 if one does not, 2 if one could not be run.
    """
    from rotary_spec_conformance.commands import run_check

    fields = {
        "head_dim": head_dim, "base": base, "layout": layout, "output_layout": output_layout,
        "rotary_dim": rotary_dim, "rotary_start": rotary_start, "schedule": schedule,
        "attention_factor": attention_factor, "inverse": inverse,
    }  # fmt: skip
    code = run_check(
        targets,
        spec_fields={name: value for name, value in fields.items() if value is not None},
        config=config,
        adapting={"shape": shape, "order": order, "factory": factory, "framework": framework},
        apply=apply,
        device=device,
        checking={"dtypes": dtype, "max_position": max_position, "quick": quick},
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command()
def targets() -> None:
    """List the catalog: implementations in other libraries that can be checked by name."""
    from rotary_spec_conformance.commands import run_targets

    raise typer.Exit(run_targets())


@app.command()
def backends() -> None:
    """List the backends: versions, devices and dtypes, or why one cannot be used."""
    from rotary_spec_backends.commands import run_backends

    raise typer.Exit(run_backends())
