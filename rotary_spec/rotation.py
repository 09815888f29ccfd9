"""The rotation R_{Theta,m}: three ways the paper writes it, one operator.

`rotate` is the efficient form (RoFormer Eq. 34), `rotation_matrix` the block-diagonal matrix
(Eq. 15) and `rotate_complex` the product with e^{i m theta} (Eq. 12).

The arithmetic is float64 where the array's namespace and device have it, else float32; the result
is rounded once, to the dtype of the input.
"""

from __future__ import annotations

from rotary_spec import layouts
from rotary_spec._array import Array, Namespace, device_of, move_axis, namespace_of
from rotary_spec.arguments import (
    check_features,
    check_positions,
    check_spec,
    position_array,
    rows_of,
)
from rotary_spec.frequencies import attention_factor
from rotary_spec.phase import table, turns
from rotary_spec.spec import RotarySpec


def cos_sin(
    positions: Array, spec: RotarySpec, *, seq_len: int | None = None, dtype: object = None
) -> tuple[Array, Array]:
    """A cos(m theta_i) and A sin(m theta_i) of every pair, for the spec's direction.

    Parameters
    ----------
    positions : array of integers, shape (...), or (axes, ...) for a spec with sections
        Token positions m; negative ones are fine. With sections also float32 or float64
        coordinates.
    spec : RotarySpec
    seq_len : int or None
        Length of the whole sequence, for schedules that depend on it.
    dtype : floating dtype of the positions' namespace, or None for float32

    Returns
    -------
    cos, sin : arrays of shape (..., rotary_dim // 2)
        Float32 values are within 1 ulp (2^-23) of the exact ones for |m| < 2^31.

    Raises
    ------
    DtypeError, PositionError
        If ``positions`` is not an array, or not of integers.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec, cos_sin
    >>> cos, sin = cos_sin(np.asarray([0, 1]), RotarySpec(head_dim=4))
    >>> cos.shape, cos.dtype
    ((2, 2), dtype('float32'))
    """
    check_spec(spec)
    xp = namespace_of(positions=positions)
    check_positions(positions, spec, (*rows_of(positions, spec), spec.head_dim), -2)
    cos, sin = _cos_sin(positions, spec, seq_len, xp)
    target = xp.float32 if dtype is None else dtype
    return xp.astype(cos, target), xp.astype(sin, target)


def _cos_sin(
    positions: Array, spec: RotarySpec, seq_len: int | None, xp: Namespace
) -> tuple[Array, Array]:
    magnitude = attention_factor(spec, seq_len)
    return table(positions, turns(spec, seq_len), magnitude, spec.inverse, xp, spec.axis_of_pair)


def rotate(
    x: Array,
    positions: Array,
    spec: RotarySpec,
    *,
    seq_axis: int = -2,
    seq_len: int | None = None,
) -> Array:
    """Rotate the pairs of ``x`` by their positions: y = A R_{Theta,m} x (RoFormer Eq. 34).

    Parameters
    ----------
    x : array, shape (..., seq, head_dim)
        float16, bfloat16, float32 or float64, of any Array API namespace.
    positions : array of integers, int, or flat list or range of int
        Token positions m. An array broadcasts against ``x.shape[:-1]`` with the sequence axis
        last: (seq,) for all rows alike, (batch, 1, seq) for ids per row of (batch, heads, seq).
        For a spec with `Sections` the axes come first, (axes, seq) or (axes, batch, 1, seq), and
        float32 and float64 coordinates are taken too.
    spec : RotarySpec
    seq_axis : int
        The sequence axis of ``x``: -2, or for instance 1 for (batch, seq, heads, head_dim).
    seq_len : int or None
        Length of the whole sequence, for schedules that depend on it.

    Returns
    -------
    array of the shape and dtype of ``x``
        Pass-through lanes are copied bit for bit.

    Raises
    ------
    DtypeError, ShapeError, PositionError
        If an argument does not fit; nothing is computed then.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec, rotate
    >>> rotate(np.asarray([[1.0, 0.0]]), [1], RotarySpec(head_dim=2)).round(4)
    array([[0.5403, 0.8415]])
    """
    x, positions, seq_axis, xp = _arguments(x, positions, spec, seq_axis)
    lanes = move_axis(x, seq_axis, -2, xp)
    first, second = layouts.take_pairs(lanes, spec, xp)
    cos, sin = _cos_sin(positions, spec, seq_len, xp)
    first, second = xp.astype(first, cos.dtype), xp.astype(second, cos.dtype)
    rotated = layouts.put_pairs(first * cos - second * sin, second * cos + first * sin, spec, xp)
    return _result(lanes, rotated, spec, seq_axis, xp)


def rotate_complex(
    x: Array,
    positions: Array,
    spec: RotarySpec,
    *,
    seq_axis: int = -2,
    seq_len: int | None = None,
) -> Array:
    """`rotate` as a product of complex numbers: (x_1 + i x_2) A e^{i m theta} (RoFormer Eq. 12).

    Takes and gives what `rotate` does, for namespaces that have complex numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec, rotate_complex
    >>> rotate_complex(np.asarray([[1.0, 0.0]]), [1], RotarySpec(head_dim=2)).round(4)
    array([[0.5403, 0.8415]])
    """
    x, positions, seq_axis, xp = _arguments(x, positions, spec, seq_axis)
    lanes = move_axis(x, seq_axis, -2, xp)
    first, second = layouts.take_pairs(lanes, spec, xp)
    cos, sin = _cos_sin(positions, spec, seq_len, xp)
    pairs = xp.astype(first, cos.dtype) + 1j * xp.astype(second, cos.dtype)
    product = pairs * (cos + 1j * sin)
    rotated = layouts.put_pairs(xp.real(product), xp.imag(product), spec, xp)
    return _result(lanes, rotated, spec, seq_axis, xp)


def rotation_matrix(
    positions: Array, spec: RotarySpec, *, seq_len: int | None = None, dtype: object = None
) -> Array:
    """The matrices A R_{Theta,m}, block diagonal over the pairs (RoFormer Eq. 15).

    Parameters
    ----------
    positions : array of integers, shape (...)
    spec, seq_len, dtype
        As in `cos_sin`.

    Returns
    -------
    array of shape (..., head_dim, head_dim)
        ``rotation_matrix(m, spec) @ x == rotate(x, m, spec)``; ones on pass-through lanes.

    Examples
    --------
    >>> import numpy as np
    >>> from rotary_spec import RotarySpec, rotation_matrix
    >>> rotation_matrix(np.asarray(1), RotarySpec(head_dim=2), dtype=np.float64).round(4)
    array([[ 0.5403, -0.8415],
           [ 0.8415,  0.5403]])
    """
    check_spec(spec)
    xp = namespace_of(positions=positions)
    cos, sin = cos_sin(positions, spec, seq_len=seq_len, dtype=dtype)
    device = device_of(positions)

    def blocks(pairs: list[tuple[int, int, int]]) -> Array:
        """(pairs, head_dim, head_dim), one sign at (row, column) of each listed pair."""
        unit = [[[0] * spec.head_dim for _ in range(spec.head_dim)] for _ in range(spec.pairs)]
        for index, (row, column, sign) in enumerate(pairs):
            unit[index % spec.pairs][row][column] = sign
        return xp.asarray(unit, dtype=cos.dtype, device=device)

    first, second = layouts.input_lanes(spec)
    out_first, out_second = layouts.output_lanes(spec)
    ones = [1] * spec.pairs
    diagonal = blocks([*zip(out_first, first, ones), *zip(out_second, second, ones)])
    crossed = blocks([*zip(out_first, second, [-1] * spec.pairs), *zip(out_second, first, ones)])
    kept = [
        [float(row == column and row not in first + second) for column in range(spec.head_dim)]
        for row in range(spec.head_dim)
    ]
    return (
        xp.tensordot(cos, diagonal, axes=1)
        + xp.tensordot(sin, crossed, axes=1)
        + xp.asarray(kept, dtype=cos.dtype, device=device)
    )


def _arguments(
    x: Array, positions: Array, spec: RotarySpec, seq_axis: int
) -> tuple[Array, Array, int, Namespace]:
    """The checked arguments: arrays of one namespace, ``seq_axis`` counted from the end."""
    check_spec(spec)
    xp = namespace_of(x=x)
    seq_axis = check_features(x, spec, seq_axis)
    positions = position_array(positions, x, xp)
    check_positions(positions, spec, tuple(x.shape), seq_axis)
    return x, positions, seq_axis, xp


def _result(lanes: Array, rotated: Array, spec: RotarySpec, seq_axis: int, xp: Namespace) -> Array:
    """Round to the input's dtype, put the pass-through lanes back, and the sequence axis too."""
    rotated = xp.astype(rotated, lanes.dtype)
    if spec.rotary_dim < spec.head_dim:
        place = layouts.rotated_lanes(spec)
        parts = [lanes[..., : place.start], rotated, lanes[..., place.stop :]]
        rotated = xp.concat(parts, axis=-1)
    return move_axis(rotated, -2, seq_axis, xp)
