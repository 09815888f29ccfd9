"""Choosing a backend: by name, by environment, by array; and what is said where it cannot be."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import (
    ENVIRONMENT,
    FRAMEWORKS,
    BackendStatus,
    BackendUnavailable,
    available,
    base,
    for_array,
    select,
)
from tests.backends.cuda import CUDA

BUILT_IN = ["torch", "cupy", "jax", "numpy"]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As if these frameworks were not installed."""
    find = base.find_spec

    def without(name: str) -> ModuleSpec | None:
        return None if name in modules else find(name)

    monkeypatch.setattr(base, "find_spec", without)


class TestSelect:
    @pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
    def test_by_name(self, name: str) -> None:
        pytest.importorskip(name)
        backend = select(name)
        assert backend.name == name
        assert type(backend.framework) is FRAMEWORKS[name]

    def test_by_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("torch")
        monkeypatch.setenv(ENVIRONMENT, "torch")
        assert select().name == "torch"
        assert select("numpy").name == "numpy"  # what the caller names goes first
        monkeypatch.setenv(ENVIRONMENT, "")
        assert select("auto").name == select().name

    @pytest.mark.skipif(CUDA, reason="there is an accelerator")
    @pytest.mark.parametrize("name", [None, "auto"])
    def test_auto_without_an_accelerator(self, name: str | None) -> None:
        assert select(name).name == "numpy"

    def test_auto_takes_the_first_accelerator(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Torch before JAX; a framework with CPU devices only is passed over."""
        jax = pytest.importorskip("jax")
        torch = pytest.importorskip("torch")
        from rotary_spec_backends.jax_backend import JaxBackend
        from rotary_spec_backends.torch_backend import TorchBackend

        hide(monkeypatch, "cupy")
        monkeypatch.setattr(JaxBackend, "_devices", classmethod(lambda cls: ("cpu:0", "cuda:0")))
        monkeypatch.setattr(TorchBackend, "_devices", classmethod(lambda cls: ("cpu",)))
        chosen = select("auto")
        assert (chosen.name, chosen.framework.device) == ("jax", "cuda:0")
        monkeypatch.setattr(TorchBackend, "_devices", classmethod(lambda cls: ("cpu", "mps")))
        chosen = select("auto")
        assert (chosen.name, chosen.framework.device) == ("torch", "mps")
        assert jax.__version__
        assert torch.__version__

    def test_auto_takes_no_device(self) -> None:
        with pytest.raises(BackendUnavailable, match="device='cuda' needs a backend name"):
            select(device="cuda")

    def test_unknown_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known = "known: auto, torch, cupy, jax, numpy"
        with pytest.raises(BackendUnavailable, match=f"name='tensorflow' is not .*; {known}"):
            select("tensorflow")
        monkeypatch.setenv(ENVIRONMENT, "tensorflow")  # the text says where the name came from
        with pytest.raises(BackendUnavailable, match=rf"\${ENVIRONMENT}='tensorflow' is not"):
            select()

    @pytest.mark.parametrize(
        ("name", "device"), [("numpy", "cuda"), ("torch", "cpu:7"), ("jax", "tpu"), ("torch", "")]
    )
    def test_unknown_device(self, name: str, device: str) -> None:
        pytest.importorskip(name)
        with pytest.raises(BackendUnavailable, match=f"'{name}' has no device '{device}'; .*cpu"):
            select(name, device=device)

    @pytest.mark.parametrize("name", ["torch", "jax", "cupy"])
    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """The text names the pip extra, which exists."""
        hide(monkeypatch, name)
        extra = "cupy-cuda13" if name == "cupy" else name
        reason = f"not installed; pip install 'rotary-spec[{extra}]'"
        with pytest.raises(ImportError) as error:
            select(name)
        assert str(error.value) == f"backend {name!r} cannot be used: {reason}"
        (status,) = (s for s in available() if s.name == name)
        assert status == BackendStatus(name, usable=False, reason=reason)

    def test_broken_installation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A framework that fails while importing is a reason, not a traceback."""
        from rotary_spec_backends.frameworks import JaxFramework

        def broken(self: Any) -> ModuleType:
            raise OSError("libfoo.so: cannot open shared object file")

        pytest.importorskip("jax")
        monkeypatch.setattr(JaxFramework, "xp", property(broken))
        with pytest.raises(
            BackendUnavailable, match=r"'jax' cannot be used: import failed: libfoo"
        ):
            select("jax")


class TestAvailable:
    def test_every_backend_is_listed_once(self) -> None:
        assert [s.name for s in available()][:4] == BUILT_IN

    def test_usable_ones_say_what_they_have(self) -> None:
        for status in available():
            if status.usable:
                assert status.reason is None
                assert status.version == sys.modules[status.name].__version__
                assert status.devices
                assert "float32" in status.dtypes
            else:
                assert status.reason

    @pytest.mark.skipif(CUDA, reason="there is a CUDA device")
    def test_cupy_without_a_device(self) -> None:
        """CuPy imports without one; the status says what is missing."""
        pytest.importorskip("cupy")
        (status,) = (s for s in available() if s.name == "cupy")
        assert not status.usable
        assert status.version
        assert str(status.reason).startswith("no CUDA device (")
        with pytest.raises(BackendUnavailable, match="'cupy' cannot be used: no CUDA device"):
            select("cupy")

    def test_dtypes_follow_jax_x64(self) -> None:
        jax = pytest.importorskip("jax")
        for x64 in (False, True):
            with jax.enable_x64(x64):
                (status,) = (s for s in available() if s.name == "jax")
                assert ("float64" in status.dtypes) is x64


class TestForArray:
    def test_by_the_arrays_type(self) -> None:
        torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
        for name, x in (("numpy", np.ones(2)), ("torch", torch.ones(2)), ("jax", jnp.ones(2))):
            assert for_array(x).name == name

    def test_subclasses_and_tracers(self) -> None:
        torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
        assert for_array(torch.nn.Parameter(torch.ones(2))).name == "torch"
        seen = []
        jax.jit(lambda x: seen.append(for_array(x).name))(jax.numpy.ones(2))
        assert seen == ["jax"]

    @pytest.mark.parametrize("given", [[1.0], 1.0, None, "numpy", np.float64(1.0)], ids=repr)
    def test_not_an_array(self, given: Any) -> None:
        kind = f"{type(given).__module__}.{type(given).__name__}"
        with pytest.raises(rs.DtypeError, match=f"no backend takes {kind}; known: torch, cupy"):
            for_array(given)


def test_abstract_methods_are_few() -> None:
    """What a third party has to write, and nothing more."""
    assert base.Backend.__abstractmethods__ == {"_devices", "_ids", "_rotate"}
