"""``rotary-spec``: command names, options and help. The work is in the rooms, imported when run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rotary_spec.cli_bench import app as bench
from rotary_spec.cli_options import (
    RUN,
    TARGET_HELP,
    Apply,
    AttentionFactor,
    Axes,
    AxisOrder,
    Base,
    Bidirectional,
    Config,
    Coordinates,
    Device,
    Eps,
    Factory,
    FeatureMap,
    Framework,
    HeadDim,
    Inverse,
    Json,
    Kind,
    LayerType,
    Layout,
    Markdown,
    Order,
    OutputLayout,
    RotaryDim,
    RotaryStart,
    ScheduleText,
    SectionFrequencies,
    SectionOrder,
    SectionPairing,
    SectionSizes,
    Shape,
    given,
)
from rotary_spec.cli_plot import app as plot
from rotary_spec.cli_vectors import app as vectors

app = typer.Typer(
    help="What a rotary position embedding is, and whether yours is one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench")
app.add_typer(plot, name="plot")
app.add_typer(vectors, name="vectors")


@app.command()
def check(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...", help=f"{TARGET_HELP} A family such as rotary-spec stands for all."
        ),
    ],
    config: Config = None,
    layer_type: LayerType = None,
    head_dim: HeadDim = None,
    base: Base = None,
    layout: Layout = None,
    output_layout: OutputLayout = None,
    rotary_dim: RotaryDim = None,
    rotary_start: RotaryStart = None,
    schedule: ScheduleText = None,
    attention_factor: AttentionFactor = None,
    inverse: Inverse = None,
    sections: SectionSizes = None,
    section_order: SectionOrder = None,
    section_frequencies: SectionFrequencies = None,
    section_pairing: SectionPairing = None,
    feature_map: FeatureMap = None,
    bidirectional: Bidirectional = None,
    eps: Eps = None,
    kind: Kind = "rotation",
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
        typer.Option(help="Dtype to test; may be repeated. Default: all.", rich_help_panel=RUN),
    ] = None,
    max_position: Annotated[
        int | None,
        typer.Option(
            help="Positions below it must be right; default: 131072, or what the target declares.",
            rich_help_panel=RUN,
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer dtypes and positions.", rich_help_panel=RUN)
    ] = False,
    as_json: Json = False,
) -> None:
    """Check implementations against a spec.

    Exits with 0 if all conform, 1 if one does not, 2 if one could not be run.
    """
    from rotary_spec_conformance.commands.kinds import run_check_of_kind

    shared_out = given(
        sizes=sections,
        order=section_order,
        frequencies=section_frequencies,
        pairing=section_pairing,
    )
    fields = given(
        head_dim=head_dim,
        base=base,
        layout=layout,
        output_layout=output_layout,
        rotary_dim=rotary_dim,
        rotary_start=rotary_start,
        schedule=schedule,
        attention_factor=attention_factor,
        inverse=inverse,
        sections=shared_out or None,
    )
    call = _call(shape, order, factory, framework, axis_order=axis_order, coordinates=coordinates)
    code = run_check_of_kind(
        kind,
        targets,
        spec_fields=fields,
        opening=_opening(config, call, apply, device, layer_type),
        checking={"dtypes": dtype, "max_position": max_position, "quick": quick},
        attention={
            "feature_map": feature_map, "eps": eps, "causal": False if bidirectional else None
        },
        as_json=as_json,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def identify(
    target: Annotated[str, typer.Argument(help=TARGET_HELP)],
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
    first: Annotated[str, typer.Argument(help=TARGET_HELP)],
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
    as_markdown: Markdown = False,
) -> None:
    """Identify every rotary embedding of a library and hold it against its own config.

    Exits with 0 whatever is found, 2 if the survey could not be run.
    """
    from rotary_spec_conformance.commands.survey import run_survey

    raise typer.Exit(
        run_survey(library, model_types or (), as_json=as_json, as_markdown=as_markdown)
    )


@app.command()
def encodings(
    dim: Annotated[
        int, typer.Option(help="Features of a token, even; a quarter of length at most.")
    ] = 32,
    length: Annotated[
        int, typer.Option(help="Training length in positions, a multiple of 4.")
    ] = 512,
    seed: Annotated[int, typer.Option(help="Of the encodings' parameters.")] = 0,
    as_json: Json = False,
    as_markdown: Markdown = False,
) -> None:
    """Compare RoPE with the encodings of the paper's Section 2, by measuring their scores.

    Position multiplies where the score is bilinear in the contents. Linear attention takes a score
    whose rank does not grow with the tokens. The last column is the mean score of equal tokens far
    apart to that at distance 0, with parameters drawn from the seed.

    Exits with 0, or 2 with the reason if they could not be compared.
    """
    from rotary_spec.encodings_command import run_encodings

    raise typer.Exit(run_encodings(dim, length, seed, as_json=as_json, as_markdown=as_markdown))
