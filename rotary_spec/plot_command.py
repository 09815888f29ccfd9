"""What ``rotary-spec plot`` does; the options are in rotary_spec.cli."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from rotary_spec.errors import RotarySpecError, SpecError
from rotary_spec.plots import draw_decay, draw_spec, save
from rotary_spec.spec import RotarySpec
from rotary_spec.spec_options import spec_from_options

DRAWN, COULD_NOT_RUN = 0, 2
_HEAD_DIM = 128
"""Of a spec for which nothing says it."""


def run_plot_decay(
    out: str,
    texts: Sequence[str],
    fields: Mapping[str, Any],
    config: str | None,
    *,
    max_distance: int,
    seq_len: int | None,
) -> int:
    """Draw the decay of one or several specs, and give the exit code.

    Parameters
    ----------
    out : str
    texts : sequence of str
        One JSON object per curve, of fields that replace ``fields``; none: one curve.
    fields : mapping
        Fields of `RotarySpec` that were given.
    config : str or None
        Hugging Face config to take the others from.
    max_distance : int
    seq_len : int or None
    """

    def draw() -> Any:
        specs = [_spec({**fields, **_json_object(text)}, config) for text in texts or ["{}"]]
        return draw_decay(specs, max_distance=max_distance, seq_len=seq_len)

    return _run(draw, out)


def run_plot_spec(
    out: str,
    fields: Mapping[str, Any],
    config: str | None,
    *,
    max_position: int,
    seq_len: int | None,
) -> int:
    """Draw one spec, and give the exit code; the parameters are those of `run_plot_decay`."""
    return _run(
        lambda: draw_spec(_spec(fields, config), max_position=max_position, seq_len=seq_len), out
    )


def _run(draw: Callable[[], Any], out: str) -> int:
    try:
        save(draw(), out)
    except RotarySpecError as error:
        text = Text(f"not drawn: {error}", style="bold red")
        Console(stderr=True, markup=False, highlight=False).print(text, soft_wrap=True)
        return COULD_NOT_RUN
    Console(markup=False, highlight=False).print(out, soft_wrap=True)
    return DRAWN


def _spec(fields: Mapping[str, Any], config: str | None) -> RotarySpec:
    default = {} if config is not None else {"head_dim": _HEAD_DIM}
    return spec_from_options({**default, **fields}, config)


def _json_object(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(f"spec {text!r} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise SpecError(f"spec {text!r} must be a JSON object of fields")
    return values
