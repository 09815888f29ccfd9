"""Two clocks: the host's for calls that end when their work does, the device's own for GPUs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

Call = Callable[[], Any]

_SAMPLE = 2e-3  # seconds that a sample lasts at least: calls shorter than that are repeated in it


class Clock(Protocol):
    """How calls are timed."""

    method: str

    def sample(self, calls: Sequence[Call], repeats: Sequence[int]) -> list[tuple[float, float]]:
        """Time every call, in that order: seconds of work and seconds on the host, per call."""

    def repeats(self, call: Call) -> int:
        """How often to repeat a call that was warmed up, so that a sample is long enough."""


class HostClock:
    """`time.perf_counter` around calls that come back when they are done."""

    method = (
        "host clock (perf_counter) around finished calls; contestants in turn, every other round "
        "backwards; NumPy, PyTorch and the copy read the same memory; each writes its own, which "
        "all others' passes through the caches before it is written again; "
        f"calls shorter than {_SAMPLE * 1e3:.0f} ms repeated within a sample"
    )

    def sample(self, calls: Sequence[Call], repeats: Sequence[int]) -> list[tuple[float, float]]:
        return [(seconds, seconds) for seconds in map(self._time, calls, repeats)]

    def repeats(self, call: Call) -> int:
        return max(1, int(_SAMPLE / max(self._time(call, 1), 1e-7)))

    @staticmethod
    def _time(call: Call, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats


class DeviceClock:
    """Kernel time as CUPTI sees it, through torch.profiler: one clock for every framework.

    Before each call a buffer of twice the L2 cache is written. The kernels of that write are of
    float64, so that they can be told apart, and part the trace into one piece for each call.
    """

    method = (
        "kernel time from CUPTI through torch.profiler, the same for every framework; twice the L2 "
        "cache written before each call; contestants in turn, every other round backwards; host "
        "time (perf_counter until the call is queued) apart"
    )

    def __init__(self) -> None:
        import torch

        self._torch = torch
        size = torch.cuda.get_device_properties("cuda").L2_cache_size
        self._flushed = torch.empty(2 * size // 8, dtype=torch.float64, device="cuda")

    def repeats(self, call: Call) -> int:
        return 1

    def sample(self, calls: Sequence[Call], repeats: Sequence[int]) -> list[tuple[float, float]]:
        torch = self._torch
        host = []
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for call in calls:
                self._flushed.fill_(1.0)
                torch.cuda.synchronize()
                start = time.perf_counter()
                out = call()
                host.append(time.perf_counter() - start)
                _wait(out)
                torch.cuda.synchronize()
                del out
        return list(zip(self._pieces(profile, len(calls)), host, strict=True))

    def _pieces(self, profile: Any, expected: int) -> list[float]:
        """Seconds of kernels and copies between one flush and the next."""
        found: list[float] = []
        events = [e for e in profile.events() if str(e.device_type).endswith("CUDA")]
        for event in sorted(events, key=lambda e: e.time_range.start):
            if "FillFunctor<double>" in event.name:
                found.append(0.0)
            elif found:
                found[-1] += event.time_range.elapsed_us() * 1e-6
        if len(found) != expected:
            raise RuntimeError(f"the profiler saw {len(found)} of {expected} calls")
        return found


def _wait(out: Any) -> None:
    """Wait for arrays that are not on PyTorch's streams."""
    for x in out if isinstance(out, tuple | list) else [out]:
        if hasattr(x, "block_until_ready"):
            x.block_until_ready()


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection in between."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
