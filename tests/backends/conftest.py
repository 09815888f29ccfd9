"""Every backend, in every precision it offers here; one test over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from typing import Any

import pytest

from rotary_spec_backends import Backend, available, select
from rotary_spec_backends.host.route import ENVIRONMENT as NUMBA
from tests.backends.cuda import CUDA, GPU_BACKENDS
from tests.backends.cuda_on_host import cuda_on_host
from tests.backends.interpreter import interpreted

HOST_BACKENDS = (
    "numpy", "numpy-plain", "torch", "torch-plain", "torch-triton", "jax", "jax-x64", "jax-numba",
    "cupy-host",
)  # fmt: skip
"""Framework and variant: plain is without Numba, numba with it however small the arrays, triton
interpreted, host compiled for the CPU."""


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
    if variant == "host":
        with cuda_on_host() as on_host:
            yield on_host
        return
    status = next(s for s in available() if s.name == name)
    if not status.usable:
        pytest.skip(str(status.reason))
    settings = {
        "x64": _x64, "triton": interpreted, "plain": _without_numba, "numba": _small_too
    }  # fmt: skip
    with settings.get(variant, nullcontext)():
        yield select(name, device="cuda" if variant == "cuda" else "cpu")


@contextmanager
def _without_numba() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NUMBA, "0")
        yield


@contextmanager
def _small_too() -> Iterator[None]:
    pytest.importorskip("numba")
    from rotary_spec_backends import jax_host

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax_host, "WORTHWHILE", 0)
        yield


def _x64() -> Any:
    import jax

    return jax.enable_x64(True)


@pytest.fixture(scope="session", autouse=True)
def _modules_that_grow() -> None:
    """Import what CuPy's modules import when they are looked at.

    torch.compile goes through sys.modules, where it meets CuPy once `available` has asked for it,
    and fails if that grows on the way (PyTorch 2.13, CuPy 14.2).
    """
    with suppress(ImportError):
        import_module("cupyx.scipy.sparse")
