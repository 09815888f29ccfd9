"""`LinearAttentionTarget`: the linear attention under test, as one canonical call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from rotary_spec import RotarySpec, TargetError
from rotary_spec_backends import Framework
from rotary_spec_conformance.inference import framework_of
from rotary_spec_conformance.target import Target

Step = Callable[[Any, Any, Any, Any, Any], tuple[Any, Any]]
"""``step(state, q, k, v, positions) -> (state, out)`` for the next tokens, one or many.

``state`` is None before the first token, so that ``step(None, ...)`` on a prefix is the prefill.
"""


@dataclass(frozen=True)
class LinearAttentionTarget(Target):
    """A linear attention under test.

    `build` makes an instance: ``f(q, k, v, positions) -> out`` with q and k of shape
    (batch, heads, seq, head_dim), v and out of shape (batch, heads, seq, value_dim), and positions
    as for `Target`. Everything else is as there, and:

    Parameters
    ----------
    step : callable or None
        Makes the recurrent form, a `Step`, where there is one.
    value_dim : int or None
        Width of the values; None: head_dim.
    """

    build: Callable[[], Any]  # of f(q, k, v, positions) -> out
    step: Callable[[], Step] | None = None
    value_dim: int | None = None

    @property
    def values(self) -> int:
        """Width of the values."""
        return self.head_dim if self.value_dim is None else self.value_dim


def adapt_linear_attention(
    obj: Any,
    *,
    spec: RotarySpec,
    head_dim: int | None = None,
    framework: str | Framework | None = None,
    factory: bool = False,
    step: Step | None = None,
    name: str | None = None,
    **declared: Any,
) -> LinearAttentionTarget:
    """A `LinearAttentionTarget` from a callable ``f(q, k, v, positions)``.

    Parameters
    ----------
    obj : callable
        Its attribute ``step``, where it has one that is callable, is its recurrent form.
    spec : RotarySpec
    head_dim : int or None
        Width of q and k; None: that of the spec, which is the number of features.
    framework : str, Framework or None
        None: by annotations, imports or trial.
    factory : bool
        Whether ``obj`` makes the implementation when called without arguments.
    step : callable or None
        The recurrent form of a function that has no such attribute.
    name : str or None
    **declared
        Further fields of `LinearAttentionTarget`.

    Raises
    ------
    TargetError
        If ``obj`` is not callable, or its framework cannot be told.
    """
    if not callable(obj):
        raise TargetError(f"target must be callable, got {obj!r} ({type(obj).__name__})")
    if isinstance(obj, type) and not factory:
        raise TargetError(f"{obj.__qualname__} is a class. Hint: factory=True, or give an instance")
    sample = obj() if factory else obj
    width = spec.head_dim if head_dim is None else head_dim
    recurrent = step or getattr(sample, "step", None)

    def trial(candidate: Framework) -> bool:
        x = candidate.asarray(np.ones((1, 1, 2, width)), "float32")
        with suppress(Exception):  # any failure means: not this framework
            return candidate.owns(sample(x, x, x, candidate.asarray(np.arange(2), "int64")))
        return False

    def build_step() -> Step:
        made: Any = obj().step if factory and step is None else recurrent
        return cast(Step, made)

    return LinearAttentionTarget(
        name=name or getattr(obj, "__qualname__", None) or type(obj).__qualname__,
        build=obj if factory else lambda: obj,
        framework=framework_of(sample, sample, framework, trial),
        head_dim=width,
        fresh=factory,
        step=build_step if callable(recurrent) else None,
        about=declared.pop("about", "f(q, k, v, positions)"),
        **declared,
    )
