"""`adapt`: make a `Target` of the usual call shapes, by their parameter names where that tells.

Each shape is one small function below that turns an object into a `Rotary`,
``f(x, positions) -> y`` with x of shape (batch, heads, seq, head_dim).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_backends import Framework
from rotary_spec_conformance.inference import framework_of
from rotary_spec_conformance.target import PositionKind, Rotary, Target

Order = Literal["bhsd", "bshd"]

SHAPES: dict[str, str] = {
    "x-positions": "f(x, positions) -> y",
    "x-offset": "f(x, offset=m) -> y",
    "x": "f(x) -> y, positions 0, 1, 2, ...",
    "x-cos-sin": "f(x, cos, sin) -> y",
    "qk-cos-sin": "f(q, k, cos, sin) -> (q, k)",
    "qk-freqs-cis": "f(xq, xk, freqs_cis) -> (xq, xk), complex table",
    "tables": "module(x, position_ids) -> (cos, sin), applied by apply=f(q, k, cos, sin)",
}
"""Call shapes that `adapt` knows, with what each looks like."""

_POSITION_NAMES = ("positions", "position_ids", "pos", "input_pos", "pos_ids", "ids")
_KEY_NAMES = ("k", "key", "xk")
_OFFSET_NAMES = ("offset", "seq_offset", "start", "start_pos", "seqlen_offset", "start_index")


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
    dtypes, in_place, versions, about
        As for `Target`.

    Returns
    -------
    Target

    Raises
    ------
    TargetError
        If ``obj`` is not callable, or the call shape or framework cannot be told.

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
    axes = order or ("bshd" if chosen == "qk-freqs-cis" else "bhsd")
    fw = framework_of(
        apply or sample,
        sample,
        framework,
        lambda f: _trial(_Call(f, spec, axes, apply), sample, chosen),
    )
    make, fresh = _maker(obj, sample, factory)
    call = _Call(fw, spec, axes, apply)
    bind = _BINDERS[chosen]
    kind = positions or _KINDS.get(chosen, "explicit")
    return Target(
        name=name or _name(obj),
        build=lambda: bind(call, make()),
        framework=fw,
        head_dim=spec.head_dim,
        positions=kind,
        max_position=max_position,
        dtypes=dtypes,
        row_positions=chosen == "tables" if row_positions is None else row_positions,
        fresh=fresh,
        given_tables=chosen in ("x-cos-sin", "qk-cos-sin", "qk-freqs-cis"),
        in_place=in_place,
        pair=_pair_maker(chosen, call, make),
        versions=versions or {},
        about=about or SHAPES[chosen],
    )


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


def _parameters(obj: Any) -> list[inspect.Parameter]:
    """Parameters that a caller passes, of the function or of a module's forward."""
    forward = getattr(obj, "forward", None)
    try:
        signature = inspect.signature(forward if callable(forward) else obj)
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in signature.parameters.values() if p.kind not in kinds]


def _required(obj: Any) -> list[str]:
    return [p.name for p in _parameters(obj) if p.default is inspect.Parameter.empty]


def _shape_of(obj: Any) -> str:
    names = [p.name for p in _parameters(obj)]
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
    if any(n in _OFFSET_NAMES for n in names[1:]):
        return "x-offset"
    if len(required) == 2 and len(names) == 2 and names[1] not in _KEY_NAMES:
        return "x-positions"
    if len(required) == 1:
        return "x"
    raise TargetError(
        f"cannot tell how to call {_name(obj)}({', '.join(names)}). Hint: give shape=, one of "
        + "; ".join(f"{key}: {text}" for key, text in SHAPES.items())
    )


@dataclass(frozen=True)
class _Call:
    """What every call shape needs to know."""

    framework: Framework
    spec: rs.RotarySpec
    order: Order
    apply: Callable[..., Any] | None

    def enter(self, x: Any) -> Any:
        """(batch, heads, seq, head_dim) into the order that the code takes."""
        return x if self.order == "bhsd" else _swap(x)

    leave = enter

    def tables(self, x: Any, positions: Any, width: str) -> tuple[Any, Any]:
        """The spec's own cos and sin in the dtype of ``x``, shape (seq, width) or so."""
        ids = self.framework.to_numpy(positions)
        dtype = self.framework.dtype_of(x)

        def widened(table: Any) -> Any:
            if width == "full" and self.spec.layout == "interleaved":
                table = np.repeat(table, 2, -1)
            elif width == "full":
                table = np.concatenate([table, table], -1)
            return self.framework.asarray(table, dtype)

        cos, sin = rs.cos_sin(ids, self.spec, dtype=np.float64)
        return widened(cos), widened(sin)


def _swap(x: Any) -> Any:
    return x.swapaxes(1, 2)


def _x_positions(call: _Call, f: Any) -> Rotary:
    return lambda x, positions: call.leave(f(call.enter(x), positions))


def _x_offset(call: _Call, f: Any) -> Rotary:
    name = next((p.name for p in _parameters(f)[1:] if p.name in _OFFSET_NAMES), "offset")
    return lambda x, positions: call.leave(f(call.enter(x), **{name: positions}))


def _x(call: _Call, f: Any) -> Rotary:
    return lambda x, positions: call.leave(f(call.enter(x)))


def _with_tables(call: _Call, f: Any) -> Callable[..., Any]:
    """``f(*tensors, cos, sin)`` with tables of whichever width it takes."""
    batched = any(p.name == "unsqueeze_dim" for p in _parameters(f))
    extra = {"unsqueeze_dim": 2} if batched and call.order == "bshd" else {}

    def shaped(table: Any) -> Any:
        if batched:
            return table[None]  # (1, seq, width): the function puts the heads axis in
        return table[:, None] if call.order == "bshd" else table

    def rotate(*tensors: Any, positions: Any) -> Any:
        problem: Exception | None = None
        for width in ("full", "half"):
            tables = [shaped(t) for t in call.tables(tensors[0], positions, width)]
            try:
                out = f(*(call.enter(t) for t in tensors), *tables, **extra)
            except Exception as error:  # the wrong width raises in as many ways as there are codes
                problem = problem or error
                continue
            return tuple(map(call.leave, out)) if isinstance(out, tuple | list) else call.leave(out)
        assert problem is not None
        raise problem

    return rotate


def _x_cos_sin(call: _Call, f: Any) -> Rotary:
    rotate = _with_tables(call, f)
    return lambda x, positions: rotate(x, positions=positions)


def _qk_cos_sin(call: _Call, f: Any) -> Rotary:
    rotate = _with_tables(call, f)
    return lambda x, positions: rotate(x, x, positions=positions)[0]


def _qk_freqs_cis(call: _Call, f: Any) -> Rotary:
    rotate = _complex_pair(call, f)
    return lambda x, positions: rotate(x, x, positions)[0]


def _complex_pair(call: _Call, f: Any) -> Callable[[Any, Any, Any], Any]:
    def rotate(q: Any, k: Any, positions: Any) -> Any:
        ids = call.framework.to_numpy(positions)
        cos, sin = rs.cos_sin(ids, call.spec, dtype=np.float64)
        wide = call.framework.dtype_of(q) == "float64"
        table = call.framework.asarray(cos + 1j * sin, "complex128" if wide else "complex64")
        return tuple(map(call.leave, f(call.enter(q), call.enter(k), table)))

    return rotate


def _tables(call: _Call, module: Any) -> Rotary:
    rotate = _module_pair(call, module)
    return lambda x, positions: rotate(x, x, positions)[0]


def _module_pair(call: _Call, module: Any) -> Callable[[Any, Any, Any], Any]:
    assert call.apply is not None
    apply = call.apply
    # Transformers' own functions put the heads axis of the tables where this says.
    extra = {}
    if call.order == "bshd" and any(p.name == "unsqueeze_dim" for p in _parameters(apply)):
        extra = {"unsqueeze_dim": 2}

    def rotate(q: Any, k: Any, positions: Any) -> Any:
        ids = positions[None] if positions.ndim == 1 else positions
        cos, sin = module(q, ids)
        return tuple(map(call.leave, apply(call.enter(q), call.enter(k), cos, sin, **extra)))

    return rotate


def _pair_maker(
    shape: str, call: _Call, make: Callable[[], Any]
) -> Callable[[], Callable[[Any, Any, Any], Any]] | None:
    if shape == "tables":
        return lambda: _module_pair(call, make())
    if shape == "qk-freqs-cis":
        return lambda: _complex_pair(call, make())
    if shape == "qk-cos-sin":
        return lambda: lambda q, k, ids: _with_tables(call, make())(q, k, positions=ids)
    return None


_BINDERS: dict[str, Callable[[_Call, Any], Rotary]] = {
    "x-positions": _x_positions,
    "x-offset": _x_offset,
    "x": _x,
    "x-cos-sin": _x_cos_sin,
    "qk-cos-sin": _qk_cos_sin,
    "qk-freqs-cis": _qk_freqs_cis,
    "tables": _tables,
}
_KINDS: dict[str, PositionKind] = {"x-offset": "offset", "x": "arange"}


def _trial(call: _Call, sample: Any, shape: str) -> bool:
    """Whether a small call in that framework works and gives an array of it."""
    framework = call.framework
    kind = _KINDS.get(shape, "explicit")
    ids = framework.asarray(np.arange(2), "int64")
    for dtype in ("float16", "float32"):  # narrow first, see `rotary_spec_conformance.runner`
        x = framework.asarray(np.ones((1, 1, 2, call.spec.head_dim)), dtype)
        with suppress(Exception):  # any failure means: not this framework
            bound = _BINDERS[shape](call, copy.deepcopy(sample))
            y = bound(x, {"explicit": ids, "offset": 0, "arange": None}[kind])
            return framework.owns(y)
    return False
