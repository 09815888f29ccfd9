"""Which backends there are, and which one to use."""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from rotary_spec import BackendUnavailable, DtypeError
from rotary_spec_backends.base import Backend, BackendStatus

ENTRY_POINTS = "rotary_spec.backends"
"""Entry-point group in which a package registers its own `Backend` subclass by name."""

ENVIRONMENT = "ROTARY_SPEC_BACKEND"
"""Environment variable that names the backend where the caller names none."""

# Fastest first among those with an accelerator; NumPy is the one that is always there.
_BUILT_IN = {
    "torch": "rotary_spec_backends.torch_backend:TorchBackend",
    "cupy": "rotary_spec_backends.cupy_backend:CupyBackend",
    "jax": "rotary_spec_backends.jax_backend:JaxBackend",
    "numpy": "rotary_spec_backends.numpy_backend:NumpyBackend",
}


def available() -> list[BackendStatus]:
    """The state of every backend, built in or registered: what it offers, or why it cannot be used.

    >>> from rotary_spec_backends import available
    >>> [status.name for status in available() if status.name == "numpy"]
    ['numpy']
    """
    return [_load(name).status() for name in _names()]


def status(name: str) -> BackendStatus:
    """The state of one backend, without looking at the others.

    Raises
    ------
    BackendUnavailable
        If there is no backend of that name.
    """
    if name not in _names():
        raise BackendUnavailable(f"{name!r} is not a backend; known: {', '.join(_names())}")
    return _load(name).status()


def select(name: str | None = None, *, device: str | None = None) -> Backend:
    """The backend of that name, ready for use.

    Parameters
    ----------
    name : str or None
        "numpy", "torch", "jax", "cupy", a registered name, or "auto". None reads
        ``$ROTARY_SPEC_BACKEND``, or else means "auto": the first of torch, cupy and jax that has
        an accelerator, and NumPy where none has.
    device : str or None
        In the framework's words: "cpu", "cuda", "cuda:1". "auto" takes only None.

    Raises
    ------
    BackendUnavailable
        If the backend is unknown, not installed (the text names the pip extra), or without the
        device.

    Examples
    --------
    >>> from rotary_spec_backends import select
    >>> select("numpy").name
    'numpy'
    """
    source = "name"
    if name is None:
        name, source = os.environ.get(ENVIRONMENT) or "auto", f"${ENVIRONMENT}"
    if name == "auto":
        return _automatic(device)
    if name not in _names():
        raise BackendUnavailable(
            f"{source}={name!r} is not a backend; known: auto, {', '.join(_names())}"
        )
    return _load(name)(device)


def for_array(x: Any) -> Backend:
    """The backend whose framework ``x`` is an array of, found without importing any framework.

    Raises
    ------
    DtypeError
        If no backend takes ``x``.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec_backends import for_array
    >>> for_array(np.zeros(3)).name
    'numpy'
    """
    for name in _names():
        if (backend := _load(name)).accepts(x):
            return backend()
    raise DtypeError(
        f"no backend takes {type(x).__module__}.{type(x).__name__}; known: {', '.join(_names())}"
    )


def _automatic(device: str | None) -> Backend:
    if device is not None:
        raise BackendUnavailable(f"device={device!r} needs a backend name beside it")
    for name in _BUILT_IN:
        status = _load(name).status()
        if status.usable and any(not d.startswith("cpu") for d in status.devices):
            return _load(name)(next(d for d in status.devices if not d.startswith("cpu")))
    return _load("numpy")()


@cache
def _registered() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in _BUILT_IN or point.name in found:
            warnings.warn(
                f"backend {point.name!r} of {point.value} is ignored: the name is taken",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            found[point.name] = point
    return found


def _names() -> tuple[str, ...]:
    return (*_BUILT_IN, *_registered())


@cache
def _load(name: str) -> type[Backend]:
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        loaded = getattr(import_module(module), attribute)
    else:
        loaded = _load_registered(name)
    return loaded  # type: ignore[no-any-return]


def _load_registered(name: str) -> type[Backend]:
    """A third party's class; where it is broken, a stand-in that is never usable and says why."""
    point = _registered()[name]
    try:
        loaded = point.load()
    except Exception as error:  # a third party's import can fail in any way
        return _broken(name, f"{point.value} failed to import: {error}")
    if not (isinstance(loaded, type) and issubclass(loaded, Backend)):
        return _broken(name, f"{point.value} is not a rotary_spec_backends.Backend")
    needed = *loaded.__abstractmethods__, "name", "extra", "framework_type"
    missing = sorted(n for n in needed if n in loaded.__abstractmethods__ or not hasattr(loaded, n))
    if missing:
        return _broken(name, f"{point.value} is unfinished: it lacks {', '.join(missing)}")
    return loaded


def _broken(name: str, problem: str) -> type[Backend]:
    def status(cls: type[Backend]) -> BackendStatus:
        return BackendStatus(name, False, reason=problem)

    def accepts(cls: type[Backend], x: object) -> bool:
        return False

    members = {"name": name, "status": classmethod(status), "accepts": classmethod(accepts)}
    stand_in: type[Backend] = type("BrokenBackend", (Backend,), members)
    stand_in.__abstractmethods__ = frozenset()  # calling it raises BackendUnavailable instead
    return stand_in
