"""``rotary-spec plot``: command names, options and help. The work is in `plot_command`."""

from __future__ import annotations

from typing import Annotated

import typer

from rotary_spec.cli_options import (
    AttentionFactor,
    Base,
    HeadDim,
    Out,
    RotaryDim,
    ScheduleText,
    SeqLen,
    SpecConfig,
    given,
)

app = typer.Typer(help="Draw what a spec does.", no_args_is_help=True)


@app.command("decay")
def decay(
    out: Out,
    specs: Annotated[
        list[str] | None,
        typer.Option(
            "--spec",
            help="A curve: fields as JSON, in place of those of the other options. May be "
            """repeated: --spec '{}' --spec '{"base": 500000}'.""",
        ),
    ] = None,
    max_distance: Annotated[int, typer.Option(help="In positions.")] = 256,
    seq_len: SeqLen = None,
    config: SpecConfig = None,
    head_dim: HeadDim = None,
    base: Base = None,
    rotary_dim: RotaryDim = None,
    schedule: ScheduleText = None,
) -> None:
    """Draw the paper's Figure 2: how the bound of the scores falls with the distance.

    Without --head-dim and --config: 128 lanes. Exits with 0 if the figure was written, 2 with the
    reason if it was not.
    """
    from rotary_spec.plot_command import run_plot_decay

    fields = given(head_dim=head_dim, base=base, rotary_dim=rotary_dim, schedule=schedule)
    code = run_plot_decay(
        out, specs or [], fields, config, max_distance=max_distance, seq_len=seq_len
    )
    raise typer.Exit(code)


@app.command("spec")
def spec(
    out: Out,
    max_position: Annotated[int, typer.Option(help="Last position that is drawn.")] = 256,
    seq_len: SeqLen = None,
    config: SpecConfig = None,
    head_dim: HeadDim = None,
    base: Base = None,
    rotary_dim: RotaryDim = None,
    schedule: ScheduleText = None,
    attention_factor: AttentionFactor = None,
) -> None:
    """Draw a spec: its wavelengths, what the schedule does to them, and the rotation.

    Without --head-dim and --config: 128 lanes. Exits with 0 if the figure was written, 2 with the
    reason if it was not.
    """
    from rotary_spec.plot_command import run_plot_spec

    fields = given(
        head_dim=head_dim,
        base=base,
        rotary_dim=rotary_dim,
        schedule=schedule,
        attention_factor=attention_factor,
    )
    raise typer.Exit(run_plot_spec(out, fields, config, max_position=max_position, seq_len=seq_len))
