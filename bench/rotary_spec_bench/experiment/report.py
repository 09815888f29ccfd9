"""From curves to a table, and to what they say about the claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from rotary_spec_bench.experiment.settings import TASKS, Task


@dataclass(frozen=True)
class Row:
    """One variant of one task, over its seeds.

    Attributes
    ----------
    task, variant : str
    final : tuple of float
        Validation loss at the end of each seed's run, in bits per predicted character.
    behind : tuple of float
        How much more than RoPE's of the same seed; empty for RoPE itself.
    reached : tuple of (int or None)
        After how many steps RoPE's curve of the same seed is at the variant's final loss or below.
    """

    task: str
    variant: str
    final: tuple[float, ...]
    behind: tuple[float, ...]
    reached: tuple[int | None, ...]

    @property
    def spread(self) -> float:
        """Largest minus smallest final loss."""
        return max(self.final) - min(self.final)


def summarise(results: Mapping[str, Any]) -> list[Row]:
    """The rows of the table, from what the experiment wrote."""
    return [row for task in TASKS for row in _rows(task, results["runs"])]


def _rows(task: Task, runs: Sequence[Mapping[str, Any]]) -> list[Row]:
    curves = {(r["variant"], r["seed"]): r for r in runs if r["task"] == task.name}
    seeds = sorted({seed for _, seed in curves})
    rope = task.variants[-1].name
    rows = []
    for variant in task.variants:
        final = [curves[variant.name, seed]["bits"][-1] for seed in seeds]
        others = [] if variant.name == rope else [curves[rope, seed] for seed in seeds]
        behind = tuple(f - r["bits"][-1] for f, r in zip(final, others))
        reached = tuple(_first_step(r, f) for f, r in zip(final, others))
        rows.append(Row(task.name, variant.name, tuple(final), behind, reached))
    return rows


def _first_step(curve: Mapping[str, Any], bits: float) -> int | None:
    return next((s for s, b in zip(curve["steps"], curve["bits"]) if b <= bits), None)


def markdown(results: Mapping[str, Any]) -> list[str]:
    """The table, and one sentence per comparison."""
    steps = results["settings"]["steps"]
    rows = summarise(results)
    measured = f"bits per character after {steps} steps: mean (min to max)"
    columns = ("task", "positions", measured, "more than RoPE, same seed", "RoPE gets there after")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for task in TASKS:
        for row in (row for row in rows if row.task == task.name):
            lines.append(f"| {' | '.join((task.title, *_cells(row)))} |")
    return [*lines, "", *(f"- {sentence}" for sentence in readings(rows))]


def _cells(row: Row) -> tuple[str, ...]:
    final = f"{mean(row.final):.3f} ({min(row.final):.3f} to {max(row.final):.3f})"
    if not row.behind:
        return row.variant, final, "", ""
    behind = f"{mean(row.behind):+.3f} ({min(row.behind):+.3f} to {max(row.behind):+.3f})"
    return row.variant, final, behind, _reached(row)


def _reached(row: Row) -> str:
    steps = [step for step in row.reached if step is not None]
    if len(steps) < len(row.reached):
        return f"in {len(steps)} of {len(row.reached)} runs"
    span = f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"
    return f"{span} steps"


def readings(rows: Sequence[Row]) -> list[str]:
    """What each comparison says: a difference counts if it has one sign in all seeds and exceeds
    the spread between seeds of either side.
    """
    titles = {task.name: task.title for task in TASKS}
    rope = {row.task: row for row in rows if not row.behind}
    said = []
    for row in (row for row in rows if row.behind):
        difference = mean(row.behind)
        spread = max(row.spread, rope[row.task].spread)
        one_sign = all(b > 0 for b in row.behind) or all(b < 0 for b in row.behind)
        if one_sign and abs(difference) > spread:
            verdict = f"RoPE ends {'lower' if difference > 0 else 'higher'} than {row.variant}"
        else:
            verdict = f"RoPE and {row.variant} are not told apart"
        said.append(
            f"{titles[row.task]}: {verdict} (difference {difference:+.3f} bits per character, "
            f"spread between seeds up to {spread:.3f})."
        )
    return said
