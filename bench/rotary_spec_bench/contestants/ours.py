"""This package's backends: with new results, and into memory that is given where they can."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import which
from typing import Any

from rotary_spec_backends import select
from rotary_spec_backends.host.route import ENVIRONMENT, no_numba
from rotary_spec_bench.cases import Inputs
from rotary_spec_bench.contestants.base import Contestant, Prepared, Unsuited, compiled

_BACKENDS = {"cpu": ("numpy", "torch", "jax"), "cuda": ("torch", "cupy", "jax")}


def ours(device: str) -> list[Contestant]:
    """Every backend that has such a device, installed or not."""
    found = []
    for name in _BACKENDS[device]:
        found.append(_contestant(name, device))
        if name != "jax":
            found.append(_contestant(name, device, out=True))
    if device == "cpu":  # on a GPU the compilations would take most of the run
        found.append(_contestant("torch", device, with_compiler=True))
    if device == "cpu" and no_numba() is None:
        for name in _BACKENDS[device]:
            found.append(_contestant(name, device, out=name != "jax", numba=False))
    return found


def _contestant(
    name: str, device: str, *, out: bool = False, numba: bool = True, with_compiler: bool = False
) -> Contestant:
    label = f"rotary-spec {name}{', out=' * out}{'' if numba else ', without Numba'}"
    label += ", compiled" * with_compiler

    def prepare(inputs: Inputs) -> Prepared:
        case = inputs.case
        backend = select(name, device=device)
        framework = backend.framework
        if case.dtype not in framework.supported_dtypes():
            raise Unsuited(f"{name} has no {case.dtype} here")
        arrays, spec = inputs.of(framework), case.spec
        positions = framework.asarray(inputs.positions, "int64")
        rotate = backend.rotate_back if case.backward else backend.rotate
        if with_compiler:
            if not any(map(which, ("g++", "clang++"))):
                raise Unsuited("torch.compile finds no C++ compiler")
            turn = rotate

            def rotate_compiled(arrays: Any, positions: Any, spec: Any) -> Any:
                return turn(arrays, positions, spec)

            rotate = compiled(rotate_compiled)
        options: dict[str, Any] = (
            {"out": tuple(_empty(x, framework) for x in arrays)} if out else {}
        )

        def call() -> Any:
            found = rotate(arrays, positions, spec, **options)
            if name == "jax" and device == "cpu":
                framework.xp.block_until_ready(found)
            return found

        def without_numba() -> Any:
            with _environment(ENVIRONMENT, "0"):
                return call()

        return Prepared(call if numba else without_numba, framework)

    return Contestant(label, prepare, "ours", ("numba",) if not numba else ())


def _empty(x: Any, framework: Any) -> Any:
    return framework.xp.empty_like(x)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
