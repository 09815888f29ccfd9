"""`Contestant`: a name, and how to make a call of it that can be timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from types import FunctionType
from typing import Any

from rotary_spec_backends.frameworks import Framework
from rotary_spec_bench.cases import Case, Inputs


class Unsuited(Exception):
    """A case that a contestant does not offer; the text says why."""


@dataclass(frozen=True)
class Prepared:
    """A call that is ready to be timed.

    Attributes
    ----------
    call : callable
        Does the work of the case once and gives what came out, finished on the CPU.
    framework : Framework
        Of the results.
    results : callable
        What ``call`` gave, as a tuple of arrays of the case's shapes.
    bits : bool
        The result is the input itself, as of a copy.
    """

    call: Callable[[], Any]
    framework: Framework
    results: Callable[[Any], tuple[Any, ...]] = lambda out: tuple(out)
    bits: bool = False


@dataclass(frozen=True)
class Contestant:
    """Something that is timed.

    Attributes
    ----------
    name : str
    prepare : callable
        ``prepare(inputs)`` gives a `Prepared`, or raises; what it raises is the row's reason.
    kind : str
        "copy", "ours" or "peer".
    modules : tuple of str
        What must be installed for it.
    """

    name: str
    prepare: Callable[[Inputs], Prepared]
    kind: str = "peer"
    modules: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """What is not installed, if anything is."""
        for module in self.modules:
            if find_spec(module) is None:
                return f"{module} is not installed"
        return None


_numbers = count()


def compiled(function: Any) -> Any:
    """``torch.compile`` of a copy, for one case's shapes: a second case would get dynamic ones."""
    import torch

    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_numbers)}")
    copy = FunctionType(code, function.__globals__, code.co_name, None, function.__closure__)
    copy.__kwdefaults__, copy.__defaults__ = function.__kwdefaults__, function.__defaults__
    return torch.compile(copy)


def need(case: Case, *, layouts: tuple[str, ...] = (), dtypes: tuple[str, ...] = ()) -> None:
    """Raise `Unsuited` unless the case has one of these, rotates whole heads, and goes forward."""
    if layouts and case.layout not in layouts:
        raise Unsuited(f"has no {case.layout} layout")
    if dtypes and case.dtype not in dtypes:
        raise Unsuited(f"has no {case.dtype}")
    if case.rotary_dim is not None:
        raise Unsuited("rotates whole heads")
