"""Threads of our own: the engines release the interpreter lock.

Numba's own thread pools are left alone: the default one stops the process where two Python threads
meet in it or a child of a fork uses it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

Job = Callable[[], object]

VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")
"""Environment variables that limit the threads of NumPy calls; the first that is set counts."""


WORTHWHILE = 2**21
"""Bytes of rows below which another thread wakes too late to help."""


def num_threads() -> int:
    """How many threads a NumPy call may use: `VARIABLES`, or the CPUs that the process has."""
    for name in VARIABLES:
        value = os.environ.get(name, "").partition(",")[0]
        if value.isdigit() and int(value) > 0:
            return min(int(value), _cpus())
    return _cpus()


@cache
def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(jobs: Iterable[Job], threads: int) -> None:
    """Run all jobs; the caller is one of the threads. The first exception is raised again."""
    if threads <= 1:
        for job in jobs:
            job()
        return
    waiting = deque(jobs)
    helpers = min(threads, len(waiting)) - 1
    started = [_pool().submit(_drain, waiting) for _ in range(helpers)]
    try:
        _drain(waiting)
    finally:
        waiting.clear()  # after an exception here the others stop early
        for helper in started:
            if not helper.cancel():  # one that did not start yet has nothing left to do
                helper.result()


def _drain(waiting: deque[Job]) -> None:
    while True:
        try:
            job = waiting.popleft()
        except IndexError:
            return
        job()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _cpus() - 1), thread_name_prefix="rotary-spec")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
