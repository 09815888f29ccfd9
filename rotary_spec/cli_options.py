"""Options that several commands of ``rotary-spec`` take."""

from __future__ import annotations

from typing import Annotated, Any

import typer

SPEC, CALL, RUN = "The spec", "How it is called", "The run"


TARGET_HELP = (
    "A name of the catalog (transformers:llama; see 'rotary-spec targets'), "
    "package.module:attribute, or path/to/file.py:attribute."
)

# Options of every command that opens targets.
Config = Annotated[
    str | None,
    typer.Option(
        help="Hugging Face config.json: the spec to hold a target against, or the model to build "
        "for transformers:... ones.",
        rich_help_panel=SPEC,
    ),
]
LayerType = Annotated[
    str | None,
    typer.Option(
        help="Which of the config's rotations is meant, if it has one per layer type: "
        "full_attention, say.",
        rich_help_panel=SPEC,
    ),
]
HeadDim = Annotated[int | None, typer.Option(rich_help_panel=SPEC)]
Shape = Annotated[
    str | None,
    typer.Option(
        help="Call shape: x-positions, x-offset, x, x-cos-sin, qk-cos-sin, qk-freqs-cis or "
        "tables; default: by the parameter names.",
        rich_help_panel=CALL,
    ),
]
Apply = Annotated[
    str | None,
    typer.Option(
        help="For a module that gives (cos, sin): the function (q, k, cos, sin) that uses them, "
        "named as a target is.",
        rich_help_panel=CALL,
    ),
]
Order = Annotated[
    str | None, typer.Option(help="Axes of x: bhsd (default) or bshd.", rich_help_panel=CALL)
]
Factory = Annotated[
    bool | None,
    typer.Option(
        "--factory",
        help="The attribute makes the implementation when called without arguments.",
        rich_help_panel=CALL,
    ),
]
Framework = Annotated[
    str | None,
    typer.Option(help="numpy, torch, jax, cupy or mlx; default: inferred.", rich_help_panel=CALL),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Such as cuda; with --framework, or for rotary-spec's own backends.",
        rich_help_panel=CALL,
    ),
]
AxisOrder = Annotated[
    str | None,
    typer.Option(
        help="Where the code has the axes of positions on several axes: first (default), as in "
        "(axes, batch, seq), or last.",
        rich_help_panel=CALL,
    ),
]
Coordinates = Annotated[
    bool | None,
    typer.Option(
        "--coordinates",
        help="Positions on several axes may be fractions, as in vision.",
        rich_help_panel=CALL,
    ),
]
Axes = Annotated[
    int | None,
    typer.Option(
        help="Positions on so many axes: 3 for time, row and column. Default: one number.",
        rich_help_panel=CALL,
    ),
]
Kind = Annotated[
    str,
    typer.Option(
        help="What the targets are: rotation, f(x, positions), or linear-attention, "
        "f(q, k, v, positions).",
        rich_help_panel=CALL,
    ),
]
FeatureMap = Annotated[
    str | None,
    typer.Option(help="Of a linear attention: elu+1 (default) or softmax.", rich_help_panel=SPEC),
]
Bidirectional = Annotated[
    bool | None,
    typer.Option(
        "--bidirectional", help="A linear attention that is not causal.", rich_help_panel=SPEC
    ),
]
Eps = Annotated[
    float | None,
    typer.Option(
        help="What a linear attention adds to its denominator; default: 0.", rich_help_panel=SPEC
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=RUN)]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown.", rich_help_panel=RUN)]

# Fields of a spec; None where one is not given.
Base = Annotated[float | None, typer.Option(help="Default: 10000.", rich_help_panel=SPEC)]
Layout = Annotated[
    str | None, typer.Option(help="interleaved (default) or half.", rich_help_panel=SPEC)
]
OutputLayout = Annotated[str | None, typer.Option(help="Default: as layout.", rich_help_panel=SPEC)]
RotaryDim = Annotated[int | None, typer.Option(help="Default: head_dim.", rich_help_panel=SPEC)]
RotaryStart = Annotated[
    int | None, typer.Option(help="First rotated lane; default: 0.", rich_help_panel=SPEC)
]
ScheduleText = Annotated[
    str | None,
    typer.Option(
        help="default, linear:factor=4, yarn:factor=8,original_max_position_embeddings=4096, "
        "and so on: a rope_type of Hugging Face with its parameters.",
        rich_help_panel=SPEC,
    ),
]
AttentionFactor = Annotated[
    float | None, typer.Option(help="Default: what the schedule says.", rich_help_panel=SPEC)
]
Inverse = Annotated[
    bool | None, typer.Option("--inverse", help="Rotate by -m theta.", rich_help_panel=SPEC)
]
SectionSizes = Annotated[
    str | None,
    typer.Option(
        "--sections",
        help="Pairs per axis, such as 16,24,24, where positions are on several axes.",
        rich_help_panel=SPEC,
    ),
]
SectionOrder = Annotated[
    str | None,
    typer.Option(help="chunked (default), interleaved or spatial_first.", rich_help_panel=SPEC),
]
SectionFrequencies = Annotated[
    str | None,
    typer.Option(help="shared (default), restart or strided.", rich_help_panel=SPEC),
]
SectionPairing = Annotated[
    str | None,
    typer.Option(
        help="across (default) all rotated lanes, or within those of each axis.",
        rich_help_panel=SPEC,
    ),
]

# Options of the commands that draw.
Out = Annotated[str, typer.Option(help="The file to write: .png, .svg, .pdf, ...")]
SeqLen = Annotated[
    int | None, typer.Option(help="Length of the sequence, where the schedule depends on it.")
]
SpecConfig = Annotated[
    str | None,
    typer.Option(help="Hugging Face config.json to take the spec from.", rich_help_panel=SPEC),
]


def given(**options: Any) -> dict[str, Any]:
    """Those of the options that were given."""
    return {name: value for name, value in options.items() if value is not None}
