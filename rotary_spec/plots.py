"""Figures of specs, drawn with Matplotlib, which is imported when the first is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from rotary_spec.decay import mean_partial_sum
from rotary_spec.errors import BackendUnavailable, SpecError
from rotary_spec.frequencies import attention_factor, frequencies
from rotary_spec.rotation import cos_sin
from rotary_spec.schedules import Default, Schedule
from rotary_spec.spec import RotarySpec, integer

COLOURS = ("#1f5fa8", "#d1661d", "#2e8b57", "#8e3b8e", "#7a6a1f", "#b0304a")
"""Dark enough for thin lines; neighbours differ in lightness too."""
GREY = "#7a7a7a"

LOGARITHMIC_BEYOND = 2048
"""Distances, in positions, beyond which an axis is logarithmic."""

_STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "font.size": 9.5,
    "grid.alpha": 0.25,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}


@contextmanager
def drawing(width: float, height: float) -> Iterator[Any]:
    """An empty figure of that size in inches, and our style while it is drawn on.

    The figure belongs to no window and to no global state.

    Raises
    ------
    BackendUnavailable
        If Matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise BackendUnavailable(
            "drawing needs Matplotlib: pip install 'rotary-spec[plot]'"
        ) from None
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
        yield figure


def save(figure: Any, path: str | Path) -> None:
    """Write a figure in the format that the ending of ``path`` names; replace what is there.

    Raises
    ------
    SpecError
        If Matplotlib does not know the format, or the file cannot be written.
    """
    known = figure.canvas.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".").lower() not in known:
        endings = ", ".join(f".{name}" for name in sorted(known))
        raise SpecError(f"out must end in one of {endings}; got {str(path)!r}")
    try:
        figure.savefig(path)
    except OSError as error:
        raise SpecError(f"out: {str(path)!r} cannot be written: {error}") from error


def draw_decay(
    specs: Sequence[RotarySpec], *, max_distance: int = 256, seq_len: int | None = None
) -> Any:
    """The paper's Figure 2: the mean of |S_j| against the relative distance (RoFormer Eq. 37).

    Parameters
    ----------
    specs : sequence of RotarySpec
        At least one; the legend names the fields in which they differ.
    max_distance : int
        In positions. Beyond `LOGARITHMIC_BEYOND` the axis is logarithmic, and a curve shows the
        mean, least and most of 48 distances around each point.
    seq_len : int or None
        Length of the whole sequence, for schedules that depend on it.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SpecError
        If there is no spec, or ``max_distance`` is not positive.
    BackendUnavailable
        If Matplotlib is not installed.
    """
    if not specs:
        raise SpecError("specs must name at least one spec to draw, got none")
    _check_positive("max_distance", max_distance)
    logarithmic = max_distance > LOGARITHMIC_BEYOND
    sample = _spread(max_distance) if logarithmic else np.arange(max_distance + 1)[:, None]
    curves = [mean_partial_sum(sample, spec, seq_len=seq_len) for spec in specs]
    with drawing(6.4, 3.8) as figure:
        axes = figure.subplots()
        distances = sample.mean(axis=1)
        for index, (name, curve) in enumerate(zip(labels(specs), curves)):
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(distances, curve.mean(axis=1), color=colour, label=fill(name, 60))
            if logarithmic:
                low, high = curve.min(axis=1), curve.max(axis=1)
                axes.fill_between(distances, low, high, color=colour, alpha=0.15, lw=0)
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xlim(distances[0], distances[-1])
        axes.set_ylim(bottom=0)
        axes.set_title("Long-term decay (RoFormer Fig. 2)")
        axes.set_xlabel("relative distance m $-$ n (positions)")
        axes.set_ylabel("mean of |S$_j$| over j = 1 … d/2")
        title = "mean, and band from least to most, nearby" if logarithmic else None
        axes.legend(title=title, title_fontsize="small", alignment="left")
    return figure


def _spread(last: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Distances for a logarithmic axis, shape (windows, points): ripples show as a band."""
    edges = np.geomspace(1, last, 161)
    within = np.linspace(edges[:-1], edges[1:], 48, axis=-1)
    return np.round(within).astype(np.int64)


def draw_spec(spec: RotarySpec, *, max_position: int = 256, seq_len: int | None = None) -> Any:
    """A spec in three panels: wavelengths, what the schedule does to them, and the rotation.

    Parameters
    ----------
    spec : RotarySpec
    max_position : int
        Last position of the rotation's panel.
    seq_len : int or None
        Length of the whole sequence, for schedules that depend on it.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SpecError
        If ``max_position`` is not positive.
    BackendUnavailable
        If Matplotlib is not installed.
    """
    _check_positive("max_position", max_position)
    plain = replace(spec, schedule=Default())
    before, after = frequencies(plain), frequencies(spec, seq_len)
    unit = replace(spec, attention_factor=1.0, inverse=False)
    cos, _ = cos_sin(np.arange(max_position + 1), unit, seq_len=seq_len)
    with drawing(11, 3.8) as figure:
        figure.suptitle(fill(repr(spec), 110), fontsize=9.5, family="monospace")
        wavelengths, schedule, rotation = figure.subplots(1, 3)
        _draw_wavelengths(wavelengths, spec, before, after)
        _draw_schedule(schedule, after / before, attention_factor(spec, seq_len))
        image = rotation.imshow(
            cos.T, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest"
        )
        rotation.grid(visible=False)
        rotation.set_title("Rotation")
        rotation.set_xlabel("position m")
        rotation.set_ylabel("pair i")
        figure.colorbar(image, ax=rotation, label="cos mθ$_i$")
    return figure


def labels(specs: Sequence[RotarySpec]) -> list[str]:
    """What tells each spec from the others, or all that there is to say where nothing does.

    >>> from rotary_spec import RotarySpec
    >>> from rotary_spec.plots import labels
    >>> labels([RotarySpec(64), RotarySpec(128)])
    ['head_dim=64', 'head_dim=128']
    """
    rows = [{**spec.to_dict(), "schedule": _schedule_name(spec.schedule)} for spec in specs]
    if all(row["rotary_dim"] == row["head_dim"] for row in rows):
        for row in rows:
            del row["rotary_dim"]  # it says nothing that head_dim does not
    differing = [name for name in rows[0] if len({str(row[name]) for row in rows}) > 1]
    if not differing:
        return [repr(spec) for spec in specs]
    return [", ".join(_pair(name, row[name]) for name in differing) for row in rows]


def _schedule_name(schedule: Schedule) -> str:
    """A schedule's type, and the parameters that are not left at their defaults."""
    given = [(field, getattr(schedule, field.name)) for field in fields(schedule)]
    shown = [_pair(field.name, value) for field, value in given if value != field.default]
    return f"{schedule.rope_type} ({', '.join(shown)})" if shown else schedule.rope_type


def _pair(name: str, value: object) -> str:
    if name == "schedule":
        return str(value)
    return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"


def _check_positive(name: str, value: int) -> None:
    if integer(name, value) < 1:
        raise SpecError(f"{name} must be at least 1, got {value}")


def _draw_wavelengths(axes: Any, spec: RotarySpec, before: Any, after: Any) -> None:
    pairs = np.arange(spec.pairs)
    if spec.schedule != Default():
        axes.semilogy(pairs, 2 * np.pi / before, "--", color=GREY, label=f"base {spec.base:g}")
    with np.errstate(divide="ignore"):  # a pair that does not turn has no wavelength
        wavelengths = np.where(after > 0, 2 * np.pi / after, np.nan)
    name = f"base {spec.base:g}" if spec.schedule == Default() else spec.schedule.rope_type
    axes.semilogy(pairs, wavelengths, color=COLOURS[0], label=name)
    trained = getattr(spec.schedule, "original_max_position_embeddings", None)
    if trained is not None:
        axes.axhline(trained, color=COLOURS[1], lw=1, label=f"original length {trained:,.0f}")
    axes.set_title("Wavelengths")
    axes.set_xlabel("pair i")
    axes.set_ylabel("2π / θ$_i$ (positions per turn)")
    axes.legend()


def _draw_schedule(axes: Any, ratio: Any, magnitude: float) -> None:
    axes.plot(np.arange(len(ratio)), ratio, color=COLOURS[0])
    axes.set_ylim(0, 1.08 * max(1.0, float(ratio.max())))
    axes.set_title(f"Schedule, attention factor A = {magnitude:.4g}")
    axes.set_xlabel("pair i")
    axes.set_ylabel("θ$_i$ scheduled / θ$_i$ of the base")
