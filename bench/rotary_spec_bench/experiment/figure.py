"""The curves: mean over the seeds, and the band between the smallest and the largest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rotary_spec.plots import COLOURS, GREY, drawing, save
from rotary_spec_bench.experiment.settings import NONE, ROPE, SINUSOIDS, TASKS

_COLOURS = {NONE.name: GREY, SINUSOIDS.name: COLOURS[1], ROPE.name: COLOURS[0]}


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Write the figure; one panel per task."""
    seeds = len(results["settings"]["seeds"])
    with drawing(9.5, 3.9) as figure:
        for axes, task in zip(figure.subplots(1, len(TASKS)), TASKS):
            curves = []
            for variant in task.variants:
                steps, bits = _curves(results["runs"], task.name, variant.name)
                colour = _COLOURS[variant.name]
                axes.fill_between(steps, bits.min(0), bits.max(0), color=colour, alpha=0.2, lw=0)
                axes.plot(steps, bits.mean(0), color=colour, label=variant.name)
                curves.append(bits)
            # From an eighth of the steps on: the fall before that is the same for all.
            shown = np.concatenate(curves)[:, len(steps) // 8 :]
            axes.set_xlim(0, steps[-1])
            axes.set_ylim(shown.min() - 0.05 * np.ptp(shown), shown.max() + 0.05 * np.ptp(shown))
            axes.set_title(task.title)
            axes.set_xlabel("training step")
            axes.set_ylabel("validation loss (bits per character)")
            title = f"mean of {seeds} seeds, band: min to max"
            axes.legend(title=title, title_fontsize="small", alignment="left")
    save(figure, path)


def _curves(runs: Any, task: str, variant: str) -> tuple[Any, Any]:
    """Steps, and the losses of every seed, shape (seeds, steps)."""
    found = [run for run in runs if (run["task"], run["variant"]) == (task, variant)]
    return found[0]["steps"], np.asarray([run["bits"] for run in found])
