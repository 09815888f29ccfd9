"""What ``rotary-spec bench`` and its subcommands do; the options are in rotary_spec.cli."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from rotary_spec import BackendUnavailable, RotarySpecError
from rotary_spec_backends import available, select
from rotary_spec_bench import growth, report
from rotary_spec_bench.cases import grid
from rotary_spec_bench.clock import Clock, DeviceClock, HostClock
from rotary_spec_bench.compare import compare, read
from rotary_spec_bench.contestants import contestants
from rotary_spec_bench.plot import plot, require_matplotlib
from rotary_spec_bench.provenance import provenance
from rotary_spec_bench.runner import CaseResult, complete, run

DONE, INCOMPLETE, COULD_NOT_RUN = 0, 1, 2

_BUDGET = {("cpu", True): 110, ("cpu", False): 1500, ("cuda", True): 210, ("cuda", False): 480}
"""Seconds after which no case is begun, by device and whether the run is a quick one."""


def run_bench(
    *, device: str | None, quick: bool, with_peers: bool, folder: str | None, as_json: bool
) -> int:
    """Time the grid, print and write what was found, and return the exit code.

    0 if every backend of this package was timed in every case that it offers, 1 if not, 2 if the
    benchmark could not be run.
    """
    out = Console(markup=False, highlight=False)
    try:
        device, clock = _device(device)
        target = _folder(folder)
        results = _measure(device, clock, quick, with_peers)
        about = {
            "provenance": provenance(device),
            "method": {
                "clock": clock.method, "rounds": _rounds(quick), "seed": 0, "quick": quick,
                "bytes": "2 * elements of q and k * itemsize",
                "ratio": "median over rounds of the time by the copy's in the same round",
            },
        }  # fmt: skip
        found = report.to_dict(results, about)
        if as_json:
            print(json.dumps(found, indent=1, allow_nan=False))
        else:
            report.show(results, out, host=device == "cuda")
        if target is not None:
            name = f"rotation-{device}"
            report.write(target / f"{name}.json", found)
            plot(found, target / f"{name}.png")
            if not as_json:
                out.print(f"written: {target / name}.json and .png")
    except RotarySpecError as error:
        return _not_run(error, as_json, out)
    return DONE if complete(results) else INCOMPLETE


def _device(name: str | None) -> tuple[str, Clock]:
    """The device that is named, or a GPU where there is one, and its clock."""
    if name not in (None, "cpu", "cuda"):
        raise BackendUnavailable(f"device must be cpu or cuda, got {name!r}")
    if name == "cpu":
        return "cpu", HostClock()
    usable = [s.name for s in available() if any(d.startswith("cuda") for d in s.devices)]
    if name is None and not usable:
        return "cpu", HostClock()
    if not usable:
        raise BackendUnavailable("no backend has a CUDA device; see 'rotary-spec backends'")
    if "torch" not in usable:
        raise BackendUnavailable("the device clock needs PyTorch with CUDA, for its profiler")
    return "cuda", DeviceClock()


def _folder(name: str | None) -> Path | None:
    """The folder to write to, checked before anything is measured."""
    if name is None:
        return None
    require_matplotlib()
    folder = Path(name)
    if not folder.is_dir():
        raise RotarySpecError(f"--out: {name} is no folder")
    return folder


def _rounds(quick: bool) -> int:
    return 7 if quick else 15


def _measure(device: str, clock: Clock, quick: bool, with_peers: bool) -> list[CaseResult]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("bench", total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=what)

        return run(
            grid(device, quick), contestants(device, with_peers), clock,
            rounds=_rounds(quick), budget=_BUDGET[device, quick], progress=progress,
        )  # fmt: skip


def run_compare(before: str, after: str, threshold: float, *, as_json: bool) -> int:
    """What changed from one run to another; 1 if something regressed, 2 if it cannot be said."""
    out = Console(markup=False, highlight=False)
    try:
        if not threshold >= 0:
            raise RotarySpecError(f"threshold must not be negative, got {threshold}")
        changes = compare(read(before), read(after), threshold)
        if not changes:
            raise RotarySpecError(f"{before} and {after} have no case and contestant in common")
    except RotarySpecError as error:
        return _not_run(error, as_json, out)
    if as_json:
        print(json.dumps([vars(change) for change in changes], indent=1))
    else:
        table = Table(box=None, pad_edge=False)
        for column in ("case", "contestant", "before", "after", ""):
            table.add_column(column, overflow="fold")
        for c in changes:
            numbers = ["not timed" if r is None else f"{r:.2f}" for r in (c.before, c.after)]
            said = "regressed" if c.regressed else ""
            table.add_row(c.case, c.contestant, *numbers, said, style="red" if said else "")
        out.print(table)
        lost = sum(c.regressed for c in changes)
        out.print(f"{lost} of {len(changes)} slower by more than {threshold:.0%}, or lost")
    return INCOMPLETE if any(c.regressed for c in changes) else DONE


def run_show(path: str) -> int:
    """Print a run from its file, as Markdown; 2 if it is none."""
    try:
        print(report.markdown(read(path)))
    except RotarySpecError as error:
        return _not_run(error, False, Console(markup=False, highlight=False))
    return DONE


def run_growth(*, device: str | None, as_json: bool) -> int:
    """Print how time and memory of every backend grow; 2 if there is no such device."""
    out = Console(markup=False, highlight=False)
    try:
        device, _ = _device(device)
    except RotarySpecError as error:
        return _not_run(error, as_json, out)
    usable = [s.name for s in available() if any(d.startswith(device) for d in s.devices)]
    backends = [select(name, device=device) for name in usable]
    grown = [row for backend in backends for row in growth.measure(backend)]
    far = {backend.name: growth.far(backend) for backend in backends}
    if as_json:
        found = {"provenance": provenance(device), "growth": [g.to_dict() for g in grown]}
        print(json.dumps({**found, "sixteen_rows": far}, indent=1))
        return DONE
    table = Table(box=None, pad_edge=False)
    for column in ("backend", "against", "sizes", "time ~ n^", "memory ~ n^"):
        table.add_column(column)
    for g in grown:
        memory = "not measured" if g.memory_exponent is None else f"{g.memory_exponent:.2f}"
        sizes = f"{g.sizes[0]} .. {g.sizes[-1]}"
        table.add_row(g.backend, g.axis, sizes, f"{g.time_exponent:.2f}", memory)
    out.print(table)
    out.print(Text("\nPeak memory of a call on sixteen rows, by first position:"))
    for name, peaks in far.items():
        shown = (f"{first:,}: {_bytes(peak)}" for first, peak in peaks.items())
        out.print(f"  {name}: {', '.join(shown)}")
    return DONE


def _bytes(peak: int | None) -> str:
    return "not measured" if peak is None else f"{peak / 2**20:.2f} MiB"


def _not_run(error: RotarySpecError, as_json: bool, out: Console) -> int:
    if as_json:
        print(json.dumps({"not_run": str(error)}))
    else:
        out.print(Text(f"not run: {error}", style="yellow"))
    return COULD_NOT_RUN
