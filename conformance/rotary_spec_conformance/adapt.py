"""`adapt`: make a `Target` of the usual call shapes, by their parameter names where that tells."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import numpy as np

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_backends import Framework
from rotary_spec_conformance.call_shapes import (
    BINDERS,
    GIVEN_TABLES,
    KINDS,
    OFFSET_NAMES,
    SHAPES,
    Call,
    Order,
    pair_maker,
    parameters,
)
from rotary_spec_conformance.inference import framework_of
from rotary_spec_conformance.probe import on_every_axis
from rotary_spec_conformance.target import PositionKind, Target

AxisOrder = Literal["first", "last"]

_POSITION_NAMES = ("positions", "position_ids", "pos", "input_pos", "pos_ids", "ids")
_KEY_NAMES = ("k", "key", "xk")


def adapt(
    obj: Any,
    *,
    spec: rs.RotarySpec,
    shape: str = "auto",
    framework: str | Framework | None = None,
    apply: Callable[..., Any] | None = None,
    order: Order | None = None,
    name: str | None = None,
    factory: bool = False,
    positions: PositionKind | None = None,
    max_position: int | None = None,
    dtypes: tuple[str, ...] | None = None,
    row_positions: bool | None = None,
    axes: int | None = None,
    axis_order: AxisOrder = "first",
    coordinates: bool = False,
    in_place: bool = False,
    versions: dict[str, str] | None = None,
    about: str | None = None,
) -> Target:
    """A `Target` of a function, a module or a factory in one of the usual call shapes.

    Parameters
    ----------
    obj : callable
        The function or module under test, or what makes it (see ``factory``).
    spec : RotarySpec
        Gives head_dim, and the cos and sin for shapes whose caller supplies them.
    shape : str
        One of `SHAPES`, or "auto": by the parameter names.
    framework : str, Framework or None
        None: by annotations and imports of the code, or else by trial.
    apply : callable or None
        For shape "tables": the function ``(q, k, cos, sin)`` that uses the module's tables.
    order : {"bhsd", "bshd"} or None
        Order of the axes that the code takes; None: bshd for qk-freqs-cis, else bhsd.
    name : str or None
    factory : bool
        Whether ``obj()`` makes the implementation, so that it can be built afresh.
    positions : {"explicit", "offset", "arange"} or None
        How positions are passed; None: as the shape implies.
    max_position : int or None
        First position that the implementation does not promise to serve.
    row_positions : bool or None
        Whether explicit positions may be of shape (batch, seq); None: for shape "tables" only.
    axes : int or None
        Number of position axes; None: as many as the spec has sections for, if it has any.
    axis_order : {"first", "last"}
        Where the code has the axes of its positions: (axes, seq) and (axes, batch, seq), or
        (seq, axes) and (batch, seq, axes).
    coordinates : bool
        Whether positions on several axes may be float32 coordinates.
    dtypes, in_place, versions, about
        As for `Target`.

    Returns
    -------
    Target

    Raises
    ------
    TargetError
        If ``obj`` is not callable, or the call shape or framework cannot be told, or ``axes``
        contradict the spec or the shape.

    Examples
    --------
    >>> import rotary_spec as rs
    >>> from rotary_spec_conformance import adapt
    >>> def rope(x, cos, sin):
    ...     a, b = x[..., 0::2], x[..., 1::2]
    ...     return np.stack([a * cos - b * sin, b * cos + a * sin], -1).reshape(x.shape)
    >>> adapt(rope, spec=rs.RotarySpec(head_dim=8), framework="numpy").given_tables
    True
    """
    if not callable(obj):
        raise TargetError(f"target must be callable, got {obj!r} ({type(obj).__name__})")
    if isinstance(obj, type) and not factory:
        raise TargetError(f"{_name(obj)} is a class. Hint: factory=True, or give an instance")
    sample = _built(obj) if factory else obj
    chosen = _shape_of(sample) if shape == "auto" else shape
    if chosen not in SHAPES:
        raise TargetError(f"shape must be auto or one of {', '.join(SHAPES)}; got {shape!r}")
    if chosen == "x-positions" and apply is not None:
        chosen = "tables"
    if chosen == "tables" and apply is None:
        raise TargetError("shape 'tables' needs apply=, the function that uses cos and sin")
    taken = order or ("bshd" if chosen == "qk-freqs-cis" else "bhsd")
    counted = _axes(axes, spec, chosen)
    if axis_order not in ("first", "last"):
        raise TargetError(f"axis_order must be 'first' or 'last', got {axis_order!r}")
    last = axis_order == "last"

    def calling(f: Framework) -> Call:
        return Call(f, spec, taken, apply, counted, last)

    fw = framework_of(
        apply or sample, sample, framework, lambda f: _trial(calling(f), sample, chosen)
    )
    make, fresh = _maker(obj, sample, factory)
    call = calling(fw)
    bind = BINDERS[chosen]
    kind = positions or KINDS.get(chosen, "explicit")
    return Target(
        name=name or _name(obj),
        build=lambda: bind(call, make()),
        framework=fw,
        head_dim=spec.head_dim,
        positions=kind,
        max_position=max_position,
        dtypes=dtypes,
        row_positions=chosen == "tables" if row_positions is None else row_positions,
        axes=counted,
        coordinates=coordinates,
        fresh=fresh,
        given_tables=chosen in GIVEN_TABLES,
        in_place=in_place,
        pair=pair_maker(chosen, call, make),
        versions=versions or {},
        about=about or SHAPES[chosen],
    )


def _axes(given: int | None, spec: rs.RotarySpec, shape: str) -> int | None:
    """The number of position axes, by the spec where it has sections."""
    if spec.sections is None:
        if given is not None and shape in GIVEN_TABLES:
            raise TargetError(
                f"axes: the caller of shape {shape!r} supplies cos and sin, and says with them "
                "which axis turns which pair. Hint: give a spec with sections"
            )
        return given
    if given not in (None, spec.sections.axes):
        raise TargetError(f"axes is {given}, the spec has sections for {spec.sections.axes}")
    return spec.sections.axes


def _built(factory: Any) -> Any:
    """What the factory makes, or a `TargetError` that says why it makes nothing to test."""
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise TargetError(
            f"a factory takes no arguments, but calling {_name(factory)}: {error}. "
            "Hint: fill it in with functools.partial"
        ) from None
    except ValueError:
        pass  # a builtin that does not say what it takes
    try:
        sample = factory()
    except Exception as error:  # a stranger's constructor can fail in any way
        text = f"the factory {_name(factory)} raised {type(error).__name__}: {error}"
        raise TargetError(text) from error
    if not callable(sample):
        raise TargetError(f"the factory {_name(factory)} gave {sample!r}, which is not callable")
    return sample


def _name(obj: Any) -> str:
    return getattr(obj, "__qualname__", None) or type(obj).__qualname__


def _maker(obj: Any, sample: Any, factory: bool) -> tuple[Callable[[], Any], bool]:
    """How to get an instance, and whether each is a new one."""
    if factory:
        return obj, True
    if inspect.isroutine(sample):
        return (lambda: sample), False
    try:  # an object that was not called yet can be copied as it is now
        pristine = copy.deepcopy(sample)
    except Exception:  # objects refuse to be copied in many ways
        return (lambda: sample), False
    return (lambda: copy.deepcopy(pristine)), True


def _required(obj: Any) -> list[str]:
    return [p.name for p in parameters(obj) if p.default is inspect.Parameter.empty]


def _shape_of(obj: Any) -> str:
    names = [p.name for p in parameters(obj)]
    required = _required(obj)
    if {"cos", "sin"} <= set(names):
        before = names.index("cos") if names.index("cos") < names.index("sin") else -1
        if before == 1:
            return "x-cos-sin"
        if before == 2:
            return "qk-cos-sin"
    if len(names) >= 3 and ("freqs_cis" in names[2] or names[2] in ("freqs", "cis")):
        return "qk-freqs-cis"
    if len(names) >= 2 and names[1] in _POSITION_NAMES:
        return "x-positions"
    if any(n in OFFSET_NAMES for n in names[1:]):
        return "x-offset"
    if len(required) == 2 and len(names) == 2 and names[1] not in _KEY_NAMES:
        return "x-positions"
    if len(required) == 1:
        return "x"
    raise TargetError(
        f"cannot tell how to call {_name(obj)}({', '.join(names)}). Hint: give shape=, one of "
        + "; ".join(f"{key}: {text}" for key, text in SHAPES.items())
    )


def _trial(call: Call, sample: Any, shape: str) -> bool:
    """Whether a small call in that framework works and gives an array of it."""
    framework = call.framework
    kind = KINDS.get(shape, "explicit")
    ids = framework.asarray(on_every_axis(np.arange(2), call.axes), "int64")
    for dtype in ("float16", "float32"):  # narrow first, see `rotary_spec_conformance.runner`
        x = framework.asarray(np.ones((1, 1, 2, call.spec.head_dim)), dtype)
        with suppress(Exception):  # any failure means: not this framework
            bound = BINDERS[shape](call, copy.deepcopy(sample))
            y = bound(x, {"explicit": ids, "offset": 0, "arange": None}[kind])
            return framework.owns(y)
    return False
