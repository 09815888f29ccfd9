"""A picture of a run: a panel for each case, a bar for each contestant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rotary_spec import BackendUnavailable

_COLOURS = {"ours": "#1f6f8b", "peer": "#b8b8b8", "copy": "#444444"}


def require_matplotlib() -> None:
    """Raise `BackendUnavailable`, which names the extra, where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(
            "a plot needs matplotlib: pip install 'rotary-spec[plot]'"
        ) from error


def plot(run: dict[str, Any], path: Path) -> None:
    """Draw the ratios of a run, as `compare.read` gives it, into a PNG.

    Raises
    ------
    BackendUnavailable
        If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    parts = [(part, _timed(part)) for part in run["cases"]]
    parts = [(part, rows) for part, rows in parts if rows]
    columns = min(2, max(1, len(parts)))
    lines = max(1, -(-len(parts) // columns))
    most = max((len(rows) for _, rows in parts), default=1)
    figure = Figure(figsize=(6.4 * columns, lines * (1.1 + 0.26 * most)), layout="constrained")
    for number, (part, rows) in enumerate(parts):
        axes = figure.add_subplot(lines, columns, number + 1)
        values = [row["ratio"] for row in rows]
        axes.barh(range(len(rows)), values, color=[_COLOURS[row["kind"]] for row in rows])
        axes.set_yticks(range(len(rows)), [row["contestant"] for row in rows], fontsize=8)
        axes.invert_yaxis()
        axes.axvline(1, color="black", linewidth=0.8)
        for place, value in enumerate(values):
            axes.annotate(f" {value:.2f}", (value, place), va="center", fontsize=7)
        axes.set_xlim(0, 1.15 * max(values))
        axes.set_title(part["case"]["name"], fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(f"time by the time of a copy of the same bytes ({_where(run)})", fontsize=9)
    figure.savefig(path, dpi=110)


def _timed(part: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [row for row in part["rows"] if row["ratio"] is not None]
    return sorted(rows, key=lambda row: float(row["ratio"]))


def _where(run: dict[str, Any]) -> str:
    about = run.get("provenance", {})
    return str(about.get("gpu") or about.get("cpu") or "?").partition(",")[0]
