"""``rotary-spec``: command names, options and help. The work is in the rooms, imported when run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

app = typer.Typer(
    help="What a rotary position embedding is, and whether yours is one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_SPEC, _CALL, _RUN = "The spec it is held against", "How it is called", "The run"


_TARGET_HELP = (
    "A name of the catalog (transformers:llama; see 'rotary-spec targets'), "
    "package.module:attribute, or path/to/file.py:attribute."
)

# Options of every command that opens targets.
Config = Annotated[
    str | None,
    typer.Option(
        help="Hugging Face config.json: the spec to hold a target against, or the model to build "
        "for transformers:... ones.",
        rich_help_panel=_SPEC,
    ),
]
LayerType = Annotated[
    str | None,
    typer.Option(
        help="Which of the config's rotations is meant, if it has one per layer type: "
        "full_attention, say.",
        rich_help_panel=_SPEC,
    ),
]
HeadDim = Annotated[int | None, typer.Option(rich_help_panel=_SPEC)]
Shape = Annotated[
    str | None,
    typer.Option(
        help="Call shape: x-positions, x-offset, x, x-cos-sin, qk-cos-sin, qk-freqs-cis or "
        "tables; default: by the parameter names.",
        rich_help_panel=_CALL,
    ),
]
Apply = Annotated[
    str | None,
    typer.Option(
        help="For a module that gives (cos, sin): the function (q, k, cos, sin) that uses them, "
        "named as a target is.",
        rich_help_panel=_CALL,
    ),
]
Order = Annotated[
    str | None, typer.Option(help="Axes of x: bhsd (default) or bshd.", rich_help_panel=_CALL)
]
Factory = Annotated[
    bool | None,
    typer.Option(
        "--factory",
        help="The attribute makes the implementation when called without arguments.",
        rich_help_panel=_CALL,
    ),
]
Framework = Annotated[
    str | None,
    typer.Option(help="numpy, torch, jax, cupy or mlx; default: inferred.", rich_help_panel=_CALL),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Such as cuda; with --framework, or for rotary-spec's own backends.",
        rich_help_panel=_CALL,
    ),
]
AxisOrder = Annotated[
    str | None,
    typer.Option(
        help="Where the code has the axes of positions on several axes: first (default), as in "
        "(axes, batch, seq), or last.",
        rich_help_panel=_CALL,
    ),
]
Coordinates = Annotated[
    bool | None,
    typer.Option(
        "--coordinates",
        help="Positions on several axes may be fractions, as in vision.",
        rich_help_panel=_CALL,
    ),
]
Axes = Annotated[
    int | None,
    typer.Option(
        help="Positions on so many axes: 3 for time, row and column. Default: one number.",
        rich_help_panel=_CALL,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=_RUN)]


@app.command()
def check(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...", help=f"{_TARGET_HELP} A family such as rotary-spec stands for all."
        ),
    ],
    config: Config = None,
    layer_type: LayerType = None,
    head_dim: HeadDim = None,
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
            help="default, linear:factor=4, yarn:factor=8,original_max_position_embeddings=4096, "
            "and so on: a rope_type of Hugging Face with its parameters.",
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
    sections: Annotated[
        str | None,
        typer.Option(
            help="Pairs per axis, such as 16,24,24, where positions are on several axes.",
            rich_help_panel=_SPEC,
        ),
    ] = None,
    section_order: Annotated[
        str | None,
        typer.Option(
            help="chunked (default), interleaved or spatial_first.", rich_help_panel=_SPEC
        ),
    ] = None,
    section_frequencies: Annotated[
        str | None,
        typer.Option(help="shared (default), restart or strided.", rich_help_panel=_SPEC),
    ] = None,
    section_pairing: Annotated[
        str | None,
        typer.Option(
            help="across (default) all rotated lanes, or within those of each axis.",
            rich_help_panel=_SPEC,
        ),
    ] = None,
    shape: Shape = None,
    apply: Apply = None,
    order: Order = None,
    factory: Factory = None,
    framework: Framework = None,
    device: Device = None,
    axis_order: AxisOrder = None,
    coordinates: Coordinates = None,
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
    as_json: Json = False,
) -> None:
    """Check implementations against a spec.

    Exits with 0 if all conform, 1 if one does not, 2 if one could not be run.
    """
    from rotary_spec_conformance.commands.check import run_check

    said = {
        "sizes": sections, "order": section_order, "frequencies": section_frequencies,
        "pairing": section_pairing,
    }  # fmt: skip
    shared_out = {name: value for name, value in said.items() if value is not None}
    fields = {
        "head_dim": head_dim, "base": base, "layout": layout, "output_layout": output_layout,
        "rotary_dim": rotary_dim, "rotary_start": rotary_start, "schedule": schedule,
        "attention_factor": attention_factor, "inverse": inverse,
        "sections": shared_out or None,
    }  # fmt: skip
    call = _call(shape, order, factory, framework, axis_order=axis_order, coordinates=coordinates)
    code = run_check(
        targets,
        spec_fields={name: value for name, value in fields.items() if value is not None},
        opening=_opening(config, call, apply, device, layer_type),
        checking={"dtypes": dtype, "max_position": max_position, "quick": quick},
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command()
def identify(
    target: Annotated[str, typer.Argument(help=_TARGET_HELP)],
    config: Config = None,
    layer_type: LayerType = None,
    head_dim: HeadDim = None,
    shape: Shape = None,
    apply: Apply = None,
    order: Order = None,
    factory: Factory = None,
    framework: Framework = None,
    device: Device = None,
    axes: Axes = None,
    axis_order: AxisOrder = None,
    coordinates: Coordinates = None,
    as_json: Json = False,
) -> None:
    """Find out what an implementation does: pairs, direction, frequencies, schedule, precision.

    Exits with 0 if a spec says it all, 1 if none does, 2 if it could not be run.
    """
    from rotary_spec_conformance.commands.identify import run_identify

    call = _call(shape, order, factory, framework, axes, axis_order, coordinates)
    opening = _opening(config, call, apply, device, layer_type)
    raise typer.Exit(run_identify(target, head_dim, opening, as_json=as_json))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help=_TARGET_HELP)],
    second: Annotated[str, typer.Argument(help="The same.")],
    config: Config = None,
    layer_type: LayerType = None,
    head_dim: HeadDim = None,
    shape: Shape = None,
    apply: Apply = None,
    order: Order = None,
    factory: Factory = None,
    framework: Framework = None,
    device: Device = None,
    axes: Axes = None,
    axis_order: AxisOrder = None,
    coordinates: Coordinates = None,
    as_json: Json = False,
) -> None:
    """Say whether two implementations are the same, up to which permutation, and what differs.

    Options hold for both, but for those of the catalog. Exits with 0 if they are the same, 1 if
    not, 2 if one could not be run.
    """
    from rotary_spec_conformance.commands.identify import run_compare

    call = _call(shape, order, factory, framework, axes, axis_order, coordinates)
    opening = _opening(config, call, apply, device, layer_type)
    raise typer.Exit(run_compare(first, second, head_dim, opening, as_json=as_json))


def _call(
    shape: str | None,
    order: str | None,
    factory: bool | None,
    framework: str | None,
    axes: int | None = None,
    axis_order: str | None = None,
    coordinates: bool | None = None,
) -> dict[str, Any]:
    return {
        "shape": shape, "order": order, "factory": factory, "framework": framework,
        "axes": axes, "axis_order": axis_order, "coordinates": coordinates,
    }  # fmt: skip


def _opening(
    config: str | None,
    call: dict[str, Any],
    apply: str | None,
    device: str | None,
    layer_type: str | None,
) -> Any:
    from rotary_spec_conformance.commands.opening import Opening

    return Opening(config, call, apply, device, layer_type)


@app.command()
def targets() -> None:
    """List the catalog: implementations in other libraries that can be checked by name."""
    from rotary_spec_conformance.commands.check import run_targets

    raise typer.Exit(run_targets())


@app.command()
def backends() -> None:
    """List the backends: versions, devices and dtypes, or why one cannot be used."""
    from rotary_spec_backends.commands import run_backends

    raise typer.Exit(run_backends())


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A safetensors file.")],
    destination: Annotated[str, typer.Argument(help="The file to write; it must not exist.")],
    from_layout: Annotated[
        str, typer.Option("--from", help="The layout that the weights are in: interleaved or half.")
    ],
    to_layout: Annotated[str, typer.Option("--to", help="The layout to put them in.")],
    head_dim: Annotated[int | None, typer.Option(help="Needed without --config.")] = None,
    rotary_dim: Annotated[int | None, typer.Option(help="Default: head_dim.")] = None,
    rotary_start: Annotated[
        int | None, typer.Option(help="First rotated lane; default: 0.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="Hugging Face config.json to take dimensions and heads from."),
    ] = None,
    heads: Annotated[int | None, typer.Option(help="Heads of q; checked, or for --qkv.")] = None,
    kv_heads: Annotated[int | None, typer.Option(help="Heads of k and v; default: heads.")] = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option(
            help="Pattern such as '*.q_proj.weight' for tensors of q or k, in place of the usual "
            "names; may be repeated."
        ),
    ] = None,
    qkv: Annotated[
        list[str] | None,
        typer.Option(help="Pattern for tensors that hold q, k and v; may be repeated."),
    ] = None,
    qkv_packing: Annotated[
        str | None,
        typer.Option(
            help="concatenated (all q, all k, all v), per-head (q, k, v of one head after the "
            "other) or per-group (some q, their k, their v)."
        ),
    ] = None,
    axis: Annotated[
        int, typer.Option(help="Axis of the heads: 0 as in PyTorch, or -1.", show_default=False)
    ] = 0,
) -> None:
    """Rewrite a safetensors file so that its q and k are in another layout.

    Everything else is copied bit for bit. A checkpoint in several files is converted one file at
    a time, under the same names in another directory; copy the files that hold no q or k.

    Exits with 0 if the file was written, 2 with the reason if it was not.
    """
    from rotary_spec.convert_command import run_convert

    code = run_convert(
        source,
        destination,
        config=config,
        dimensions={
            "head_dim": head_dim, "rotary_dim": rotary_dim, "rotary_start": rotary_start,
            "heads": heads, "kv_heads": kv_heads,
        },
        options={
            "from_layout": from_layout, "to_layout": to_layout, "axis": axis,
            "tensors": tensor or None, "qkv": qkv or (), "qkv_packing": qkv_packing,
        },
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def survey(
    library: Annotated[str, typer.Argument(help="transformers.")],
    model_types: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL_TYPE]...", help="Default: every one that rotates."),
    ] = None,
    as_json: Json = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown.", rich_help_panel=_RUN)
    ] = False,
) -> None:
    """Identify every rotary embedding of a library and hold it against its own config.

    Exits with 0 whatever is found, 2 if the survey could not be run.
    """
    from rotary_spec_conformance.commands.survey import run_survey

    raise typer.Exit(
        run_survey(library, model_types or (), as_json=as_json, as_markdown=as_markdown)
    )


_vectors = typer.Typer(
    help="Golden vectors for implementations in any language.", no_args_is_help=True
)
app.add_typer(_vectors, name="vectors")


@_vectors.command("export")
def vectors_export(
    folder: Annotated[str, typer.Argument(help="A new or empty folder.")],
) -> None:
    """Write inputs, exact results, a manifest with its JSON Schema, and a README that says how.

    Exits with 0 if the files were written, 2 with the reason if they were not.
    """
    from rotary_spec_conformance.commands.vectors import run_export

    raise typer.Exit(run_export(folder))


@_vectors.command("verify")
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
