"""How time and memory grow with length, heads and batch, as exponents; and with the position."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from rotary_spec_backends import Backend
from rotary_spec_bench.cases import Case, Inputs

START = Case(8192, "float32", "half", q_heads=8, k_heads=0)
"""32 MiB, so that new memory comes from the system and is seen."""
AXES = {"length": "length", "heads": "q_heads", "batch": "batch"}
FACTORS = (1, 2, 4)
FAR = (0, 2**30)
"""First positions of sixteen rows that are rotated near and far."""


@dataclass(frozen=True)
class Growth:
    """Time and memory against one axis.

    Attributes
    ----------
    backend, axis : str
    sizes : tuple of int
    seconds : tuple of float
        Medians.
    memory : tuple of int or None
        Bytes that a call needs at its peak beyond what was there before it.
    time_exponent, memory_exponent : float or None
        Slopes of the logarithms, by least squares: 1 is proportional.
    """

    backend: str
    axis: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    memory: tuple[int, ...] | None
    time_exponent: float
    memory_exponent: float | None

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON types."""
        return asdict(self)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log(values) against log(sizes) by least squares.

    >>> from rotary_spec_bench.growth import exponent
    >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def measure(backend: Backend, start: Case = START, repeats: int = 5) -> list[Growth]:
    """Time and memory of a backend against every axis of `AXES`."""
    found = []
    for axis, field in AXES.items():
        sizes, seconds, memory = [], [], []
        for factor in FACTORS:
            case = replace(start, **{field: getattr(start, field) * factor})
            call = _call(backend, case)
            call()
            sizes.append(getattr(case, field))
            seconds.append(median(_seconds(call) for _ in range(repeats)))
            memory.append(peak(call, backend))
        known = tuple(m for m in memory if m is not None and m > 0)
        complete = known if len(known) == len(sizes) else None
        found.append(
            Growth(
                backend.name, axis, tuple(sizes), tuple(seconds), complete,
                exponent(sizes, seconds), exponent(sizes, complete) if complete else None,
            )
        )  # fmt: skip
    return found


def far(backend: Backend) -> dict[int, int | None]:
    """Bytes that a call with sixteen rows needs at its peak, by its first position."""
    case = replace(START, length=16)
    found = {}
    for first in FAR:
        call = _call(backend, case, first)
        call()
        found[first] = peak(call, backend)
    return found


def _call(backend: Backend, case: Case, first: int = 0) -> Callable[[], Any]:
    framework = backend.framework
    arrays, spec = Inputs(case).of(framework), case.spec
    positions = framework.asarray(np.arange(first, first + case.length), "int64")

    def call() -> Any:
        out = backend.rotate(arrays, positions, spec)
        if framework.name == "jax":
            framework.xp.block_until_ready(out)
        framework.synchronize()
        return out

    return call


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak(call: Callable[[], Any], backend: Backend) -> int | None:
    """Bytes that a call needs at its peak; None where nothing tells.

    On a GPU PyTorch's allocator tells; on the CPU the process's high-water mark, which Linux lets a
    process reset.
    """
    device = str(backend.framework.device or "cpu")
    if device.startswith("cuda"):
        return _cuda_peak(call) if backend.name == "torch" else None
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    _give_back()
    try:
        reset.write_text("5", encoding="ascii")
        before = _kilobytes(status, "VmRSS")
        call()
        return 1024 * max(0, _kilobytes(status, "VmHWM") - before)
    except (OSError, KeyError):
        return None


def _give_back() -> None:
    """Hand freed memory to the system: what is used again would not be seen."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return  # not the GNU C library


def _kilobytes(status: Path, name: str) -> int:
    lines = status.read_text(encoding="ascii").splitlines()
    return int({key: value for key, _, value in (x.partition(":") for x in lines)}[name].split()[0])


def _cuda_peak(call: Callable[[], Any]) -> int:
    import torch

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return int(torch.cuda.max_memory_allocated() - before)
