"""Every backend, in every precision it offers here; one test over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from rotary_spec_backends import Backend, available, select
from tests.backends.cuda import CUDA, GPU_BACKENDS

HOST_BACKENDS = ("numpy", "torch", "jax", "jax-x64")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of a backend run on the CPU, and once more on every GPU backend where there is a GPU.

    Without one they are not collected; ``test_gpu`` is skipped then, and says so. A module may
    name fewer in its own HOST_BACKENDS: JAX compiles every shape twice for its two precisions.
    """
    if "backend" in metafunc.fixturenames:
        gpu = [pytest.param(name, marks=pytest.mark.gpu) for name in GPU_BACKENDS if CUDA]
        host = getattr(metafunc.module, "HOST_BACKENDS", HOST_BACKENDS)
        metafunc.parametrize("backend", [*host, *gpu], indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend ready for use, or a skip with the reason that `available` gives."""
    name, _, variant = request.param.partition("-")
    status = next(s for s in available() if s.name == name)
    if not status.usable:
        pytest.skip(str(status.reason))
    with _x64() if variant == "x64" else nullcontext():
        yield select(name, device="cuda" if variant == "cuda" else "cpu")


def _x64() -> Any:
    import jax

    return jax.enable_x64(True)
