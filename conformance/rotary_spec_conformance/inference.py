"""Which framework a piece of code is written for."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from rotary_spec import TargetError
from rotary_spec_backends import FRAMEWORKS, Framework
from rotary_spec_conformance.mlx_framework import MlxFramework

ALL_FRAMEWORKS: dict[str, type[Framework]] = {**FRAMEWORKS, "mlx": MlxFramework}
_TRIED = ("numpy", "torch", "jax")


def framework_named(name: str, device: str | None = None) -> Framework:
    """The framework of that name.

    Raises
    ------
    TargetError
        If there is none of that name, or it is not installed.
    """
    if name not in ALL_FRAMEWORKS:
        raise TargetError(f"framework must be one of {', '.join(ALL_FRAMEWORKS)}; got {name!r}")
    if find_spec(name) is None:
        raise TargetError(f"framework {name!r} is not installed")
    return ALL_FRAMEWORKS[name](device)


def framework_of(
    code: Any,
    owner: Any,
    given: str | Framework | None,
    trial: Callable[[Framework], bool],
) -> Framework:
    """The framework given, or annotated, or imported by the code's module, or found by trial.

    Raises
    ------
    TargetError
        If none of these tells.
    """
    if isinstance(given, Framework):
        return given
    if given is not None:
        return framework_named(given)
    for names in (_annotated(code), _imported(code), _imported(owner)):
        if len(names) == 1:
            return framework_named(names.pop())
    for name in _TRIED:
        if find_spec(name) is not None and trial(ALL_FRAMEWORKS[name]()):
            return framework_named(name)
    raise TargetError(
        f"cannot tell the framework of {getattr(code, '__qualname__', code)!r}: a call with "
        f"{', '.join(n for n in _TRIED if find_spec(n))} arrays failed. Hint: give framework="
    )


def _function(code: Any) -> Any:
    """The plain function behind a callable: a module's forward, or its __call__."""
    if inspect.isroutine(code):
        return inspect.unwrap(code)
    forward = getattr(type(code), "forward", None)
    return forward if callable(forward) else getattr(type(code), "__call__", code)  # noqa: B004


def _annotated(code: Any) -> set[str]:
    texts = [str(a) for a in getattr(_function(code), "__annotations__", {}).values()]
    words = {"torch": "torch", "jax": "jax", "numpy": "numpy", "np.": "numpy", "mlx": "mlx"}
    return {name for text in texts for word, name in words.items() if word in text.lower()}


def _imported(code: Any) -> set[str]:
    """Frameworks among the modules that the code's own module refers to."""
    function = _function(code)
    names = getattr(function, "__globals__", None)
    if names is None:
        module = sys.modules.get(getattr(function, "__module__", None) or "")
        names = vars(module) if module else {}
    used = set(_names_used(function)) & set(names) or set(names)
    found = set()
    for value in (names[n] for n in used):
        root = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
        found.add(str(root).partition(".")[0])
    return (found & set(ALL_FRAMEWORKS)) - ({"numpy"} if found & {"torch", "jax", "mlx"} else set())


def _names_used(function: Any) -> tuple[str, ...]:
    return getattr(getattr(function, "__code__", None), "co_names", ())
