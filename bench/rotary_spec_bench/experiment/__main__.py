"""``python -m rotary_spec_bench.experiment``: train, and write the curves, table and figure."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import rotary_spec as rs
from rotary_spec import RotarySpecError
from rotary_spec_bench.experiment.report import markdown
from rotary_spec_bench.experiment.settings import TASKS, Settings
from rotary_spec_bench.experiment.text import read_text

NAME = "experiment"


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment and give the exit code: 0, or 2 where it cannot be run."""
    parser = argparse.ArgumentParser(prog="rotary_spec_bench.experiment", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="a directory")
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--seeds", type=int, default=len(Settings.seeds), help="how many")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--redraw", action="store_true", help="from the JSON that is there")
    given = parser.parse_args(arguments)
    for name in ("steps", "seeds", "jobs"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(given, name)}")
    try:
        from rotary_spec_bench.experiment.figure import draw

        data = given.out / f"{NAME}.json"
        if not given.redraw:
            settings = replace(Settings(), steps=given.steps, seeds=tuple(range(given.seeds)))
            results = run_all(settings, given.jobs)
            given.out.mkdir(parents=True, exist_ok=True)
            data.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        results = json.loads(data.read_text(encoding="utf-8"))
        table = "\n".join(markdown(results))
        (given.out / f"{NAME}.md").write_text(table + "\n", encoding="utf-8")
        draw(results, given.out / f"{NAME}.png")
    except (RotarySpecError, OSError) as error:
        print(f"not run: {error}", file=sys.stderr)
        return 2
    print(table)
    return 0


def run_all(settings: Settings, jobs: int) -> dict[str, Any]:
    """Every run, so many at a time, each in a process of its own with one thread.

    Returns
    -------
    dict of JSON types
        ``settings``, ``runs``, and ``provenance``: versions, machine, text, times.
    """
    import torch

    from rotary_spec_bench.experiment.training import train

    text = read_text()
    started, when = time.perf_counter(), datetime.now(UTC)
    grid = [(t, v, s) for t in TASKS for s in settings.seeds for v in t.variants]
    runs = []
    one_thread = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), **one_thread) as pool:
        for run in pool.map(train, *zip(*grid), [settings] * len(grid)):
            runs.append(run.to_dict())
            last = f"{run.bits[-1]:.3f} bits per character, {run.seconds:.0f} s"
            print(f"{run.task}, {run.variant}, seed {run.seed}: {last}", file=sys.stderr)
    provenance = {
        "started": when.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 1),
        "jobs": jobs,
        "threads_per_job": 1,
        "python": platform.python_version(),
        "rotary_spec": rs.__version__,
        **{name: version(name) for name in ("torch", "numpy")},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "text": {
            "source": "pydoc_data.topics",
            "sha256": text.digest,
            "characters": len(text.train) + len(text.validation),
            "alphabet": len(text.alphabet),
        },
    }
    return {"provenance": provenance, "settings": asdict(settings), "runs": runs}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


if __name__ == "__main__":
    sys.exit(main())
