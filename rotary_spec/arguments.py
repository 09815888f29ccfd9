"""Checks of array arguments, before any work starts. The reference and the backends share them."""

from __future__ import annotations

import operator
from typing import cast

from rotary_spec._array import (
    COORDINATE_DTYPES,
    FLOAT_DTYPES,
    INTEGER_DTYPES,
    Array,
    Namespace,
    device_of,
    dtype_name,
    has_dtype,
    namespace_of,
)
from rotary_spec.errors import DtypeError, PositionError, ShapeError
from rotary_spec.spec import RotarySpec


def check_spec(spec: object) -> RotarySpec:
    """``spec`` itself, or a `DtypeError` that says what was given in its place."""
    if not isinstance(spec, RotarySpec):
        raise DtypeError(f"spec must be a RotarySpec, got {spec!r} ({type(spec).__name__})")
    return spec


def check_floating(x: Array, name: str = "x") -> None:
    """Check that ``x`` is of a floating dtype, or raise `DtypeError`."""
    if dtype_name(x) not in FLOAT_DTYPES:
        raise DtypeError(
            f"{name} must be of dtype {', '.join(FLOAT_DTYPES)}; got {dtype_name(x)}. "
            "A rotation has no integer result: cast first."
        )


def sequence_axis(shape: tuple[int, ...], seq_axis: int = -2, name: str = "x") -> int:
    """``seq_axis`` counted from the end; `ShapeError` where it is no axis but the last."""
    try:
        axis = operator.index(seq_axis)
    except TypeError:
        raise DtypeError(f"seq_axis must be an integer, got {seq_axis!r}") from None
    axis = axis if axis < 0 else axis - len(shape)
    if axis == -2 and len(shape) == 1:
        return axis  # one feature vector: there is no sequence axis to move
    if not -len(shape) <= axis <= -2:
        raise ShapeError(
            f"seq_axis must name an axis of {name} other than the last, "
            f"got {seq_axis} for shape {shape}"
        )
    return axis


def check_features(x: Array, spec: RotarySpec, seq_axis: int = -2, name: str = "x") -> int:
    """Check the features to rotate and return ``seq_axis`` counted from the end.

    Raises
    ------
    DtypeError
        If ``x`` is not of a floating dtype.
    ShapeError
        If the last axis is not ``spec.head_dim`` long, or ``seq_axis`` is not another axis.
    """
    check_floating(x, name)
    shape = tuple(x.shape)
    if not shape or shape[-1] != spec.head_dim:
        raise ShapeError(
            f"{name}: the last axis must be head_dim = {spec.head_dim} long, got shape {shape}"
        )
    return sequence_axis(shape, seq_axis, name)


def check_positions(
    positions: Array, spec: RotarySpec, shape: tuple[int, ...], seq_axis: int, name: str = "x"
) -> None:
    """Check positions against the features' ``shape``, ``seq_axis`` counted from the end.

    Raises
    ------
    PositionError
        If they are neither integers nor, for a spec with sections, float32 or float64 coordinates;
        if they do not broadcast against ``shape[:-1]`` with the sequence axis moved last; or, for
        a spec with sections, if their first axis does not hold one entry per axis.
    """
    allowed = INTEGER_DTYPES + (COORDINATE_DTYPES if spec.sections else ())
    if dtype_name(positions) not in allowed:
        wanted = "integers or float32 or float64 coordinates" if spec.sections else "integers"
        raise PositionError(
            f"positions must be {wanted}, got {dtype_name(positions)}: floating point holds them "
            "exactly only up to 256 (bfloat16), 2048 (float16) or 2**24 (float32). "
            "Hint: pass int32 or int64 ids."
        )
    rows = list(shape[:-1])
    if seq_axis != -2:
        rows.append(rows.pop(seq_axis + 1))
    given = rows_of(positions, spec)
    fits = len(given) <= len(rows) and all(
        p in (1, r) for p, r in zip(reversed(given), reversed(rows), strict=False)
    )
    if not fits:
        hint = ""
        if len(given) == 2 and len(rows) == 3 and given == (rows[0], rows[2]):
            row_axes = "[:, :, None, :]" if spec.sections else "[:, None, :]"
            hint = f" Hint: ids per row of a batch go in as positions{row_axes}."
        axes = f" after their {spec.sections.axes} axes" if spec.sections else ""
        raise PositionError(
            f"positions must broadcast{axes} against {name}.shape[:-1] with the sequence axis "
            f"last, {tuple(rows)}; got shape {tuple(positions.shape)}.{hint}"
        )


def rows_of(positions: Array, spec: RotarySpec) -> tuple[int, ...]:
    """The shape of positions without the axes of `Sections`.

    Raises
    ------
    PositionError
        If a spec with sections finds another number of axes.
    """
    given = tuple(positions.shape)
    if spec.sections is None:
        return given
    axes = spec.sections.axes
    if not given or given[0] != axes:
        hint = " Hint: text stands at the same position on every axis." if axes > 1 else ""
        raise PositionError(
            f"positions must have shape (axes, ...) with {axes} axes, because the spec has "
            f"sections {spec.sections.sizes}; got shape {given}.{hint}"
        )
    return given[1:]


def is_array(positions: Array) -> bool:
    """Whether ``positions`` is an array already, as opposed to Python integers."""
    return hasattr(positions, "dtype") and hasattr(positions, "shape")


def position_array(positions: Array, like: Array, xp: Namespace) -> Array:
    """``positions`` as an array beside ``like``: itself, or ids made of Python integers."""
    if is_array(positions):
        namespace_of(x=like, positions=positions)
        return positions
    dtype, bits = (xp.int64, 64) if has_dtype(xp, "int64", like) else (xp.int32, 32)
    return xp.asarray(python_positions(positions, bits), dtype=dtype, device=device_of(like))


def python_positions(positions: object, bits: int) -> list[int] | int:
    """Python integers, or a flat sequence of them, checked before an array is made of them.

    Raises
    ------
    DtypeError
        If ``positions`` is anything else.
    PositionError
        If one does not fit a signed integer of so many ``bits``.
    """
    items = [positions] if isinstance(positions, int) else positions
    if not isinstance(items, range | list | tuple) or not all(
        isinstance(i, int) and not isinstance(i, bool) for i in items
    ):
        raise DtypeError(
            f"positions must be an integer array, an int, or a flat list or range of ints; "
            f"got {positions!r}"
        )
    limit = 2 ** (bits - 1)
    for position in items:
        if not -limit <= position < limit:
            raise PositionError(
                f"positions must lie in -2**{bits - 1} .. 2**{bits - 1} - 1, got {position}"
            )
    return positions if isinstance(positions, int) else cast("list[int]", list(items))
