"""What a backend is: the operations of the spec, native to one framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from rotary_spec import (
    BackendUnavailable,
    DtypeError,
    PositionError,
    RotarySpec,
    attention_factor,
    turns,
)
from rotary_spec._array import COORDINATE_DTYPES
from rotary_spec.arguments import (
    check_features,
    check_positions,
    check_spec,
    is_array,
    python_positions,
)
from rotary_spec.phase import table
from rotary_spec_backends.attention import AttentionOperations
from rotary_spec_backends.frameworks import Array, Framework
from rotary_spec_backends.outputs import check_outputs


@dataclass(frozen=True)
class BackendStatus:
    """What `rotary_spec_backends.available` says of one backend.

    Attributes
    ----------
    name : str
    usable : bool
    version : str or None
        The framework's version, where it is installed.
    devices : tuple of str
    dtypes : tuple of str
    reason : str or None
        Why it cannot be used; None where it can.
    """

    name: str
    usable: bool
    version: str | None = None
    devices: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    reason: str | None = None


class Backend(AttentionOperations, ABC):
    """One framework's native form of the spec.

    Parameters
    ----------
    device : str or None
        Where `framework` makes new arrays. Operations run where their arguments are.

    Raises
    ------
    BackendUnavailable
        If the framework is not installed, or has no such device; names the pip extra.
    """

    name: ClassVar[str]
    extra: ClassVar[str]
    """The pip extra of rotary-spec that installs the framework."""
    framework_type: ClassVar[type[Framework]]

    def __init__(self, device: str | None = None) -> None:
        status = self.status()
        if not status.usable:
            raise BackendUnavailable(f"backend {self.name!r} cannot be used: {status.reason}")
        if device is not None and not self._has_device(device, status.devices):
            raise BackendUnavailable(
                f"backend {self.name!r} has no device {device!r}; it has "
                f"{', '.join(status.devices)}"
            )
        self.framework = self.framework_type(device)

    @staticmethod
    def _has_device(device: str, devices: tuple[str, ...]) -> bool:
        return device in devices or any(d.startswith(f"{device}:") for d in devices)

    @classmethod
    def status(cls) -> BackendStatus:
        """Whether this backend can be used, with versions and devices, or why not."""
        if find_spec(cls.framework_type.module) is None:
            return BackendStatus(
                cls.name, False, reason=f"not installed; pip install 'rotary-spec[{cls.extra}]'"
            )
        framework = cls.framework_type()
        try:
            version = str(framework.xp.__version__)
        except Exception as error:  # an installed framework may break in any way while importing
            return BackendStatus(cls.name, False, reason=f"import failed: {error}")
        try:
            devices, dtypes = cls._devices(), framework.supported_dtypes()
        except Exception as error:  # so may a driver, and a third party's code
            return BackendStatus(cls.name, False, version, reason=f"no device: {error}")
        if isinstance(devices, str):
            return BackendStatus(cls.name, False, version, reason=devices)
        return BackendStatus(cls.name, True, version, devices, dtypes)

    @classmethod
    @abstractmethod
    def _devices(cls) -> tuple[str, ...] | str:
        """The devices of the imported framework, or a sentence that says why there is none."""

    @classmethod
    def accepts(cls, x: object) -> bool:
        """Whether ``x`` is an array of this backend's framework; imports nothing."""
        return cls.framework_type.owns(x)

    def rotate(
        self,
        x: Array | Sequence[Array],
        positions: Array,
        spec: RotarySpec,
        *,
        seq_axis: int = -2,
        seq_len: int | None = None,
        out: Array | Sequence[Array] | None = None,
    ) -> Any:
        """Rotate one array, or several that share their positions: y = A R_{Theta,m} x (Eq. 34).

        Parameters
        ----------
        x : array of shape (..., seq, head_dim), or a tuple or list of such arrays
            Queries and keys, say, each with its own number of heads. float16, bfloat16, float32
            or float64; the arithmetic is float32, or float64 for float64.
        positions : array of integers, int, or flat list or range of int
            As for `rotary_spec.rotate`; NumPy ids are taken by every backend. With sections,
            shape (axes, ...), and float32 or float64 coordinates too.
        spec : RotarySpec
        seq_axis : int
            The sequence axis of every array.
        seq_len : int or None
            Length of the whole sequence, for schedules that depend on it.
        out : array, sequence of arrays, or None
            Where the result goes, alike ``x`` in number, shape, dtype and device; any strides.
            ``out=x`` rotates in place. Other memory of ``x`` must not be given, nor memory that
            two results share. JAX arrays cannot be written; PyTorch does not differentiate
            through it. None makes new arrays.

        Returns
        -------
        array, or tuple of arrays
            As given, in their own shapes and dtypes, each rounded once from the float32 result;
            the arrays of ``out`` where they were given.

        Raises
        ------
        DtypeError, ShapeError, PositionError
            If an argument does not fit; nothing is computed then, and ``out`` is untouched.
        """
        again = self._again(x, positions, spec, seq_axis, seq_len, out)
        if again is not None:
            return again if isinstance(x, tuple) else again[0]
        arrays, positions, axes = self._checked(x, positions, spec, seq_axis)
        if out is None:
            rotated = self._rotate(arrays, positions, spec, axes, seq_len)
        else:
            rotated = check_outputs(out, arrays, isinstance(x, tuple | list), self.framework)
            self._rotate_into(rotated, arrays, positions, spec, axes, seq_len)
        return rotated if isinstance(x, tuple | list) else rotated[0]

    def rotate_back(
        self,
        gradient: Array | Sequence[Array],
        positions: Array,
        spec: RotarySpec,
        *,
        seq_axis: int = -2,
        seq_len: int | None = None,
        out: Array | Sequence[Array] | None = None,
    ) -> Any:
        """The gradient of `rotate` with respect to ``x``: A Rᵀ applied to the output's gradient.

        Takes and gives what `rotate` does.
        """
        check_spec(spec)
        return self.rotate(
            gradient, positions, spec.transposed(), seq_axis=seq_axis, seq_len=seq_len, out=out
        )

    def _again(
        self, x: Any, positions: Any, spec: Any, seq_axis: Any, seq_len: Any, out: Any
    ) -> tuple[Array, ...] | None:
        """The result of an unchecked call like an earlier one in all that checks look at; or None.

        Several arrays are a tuple, ``x`` and ``out`` alike.
        """
        return None

    def _checked(
        self, x: Array | Sequence[Array], positions: Array, spec: RotarySpec, seq_axis: int
    ) -> tuple[tuple[Array, ...], Array, tuple[int, ...]]:
        """Arrays, positions and sequence axes counted from the end; see `rotate` for the errors."""
        arrays: tuple[Array, ...] = tuple(x) if isinstance(x, tuple | list) else (x,)
        check_spec(spec)
        if not arrays:
            raise DtypeError("x must be an array or a non-empty tuple of arrays, got ()")
        self._check_own(*arrays)
        axes = tuple(check_features(array, spec, seq_axis) for array in arrays)
        positions = self._positions(positions, arrays[0], spec)
        for array, axis in zip(arrays, axes):
            check_positions(positions, spec, tuple(array.shape), axis)
        return arrays, positions, axes

    def _positions(self, positions: Array, like: Array, spec: RotarySpec) -> Array:
        """Position ids as an array of this framework, on the device of ``like``."""
        if self.accepts(positions):
            return positions
        if not is_array(positions):
            positions = np.asarray(python_positions(positions, 64), dtype=np.int64)
        if isinstance(positions, np.generic):
            positions = np.asarray(positions)
        if not isinstance(positions, np.ndarray):
            raise DtypeError(
                f"backend {self.name!r} takes {self.name} or NumPy positions, got "
                f"{type(positions).__module__}.{type(positions).__name__}"
            )
        allowed = COORDINATE_DTYPES if spec.sections else ()
        if positions.dtype.kind not in "iu" and positions.dtype.name not in allowed:
            return positions  # refused, with its dtype, by check_positions
        return self._ids(positions, like)

    @abstractmethod
    def _ids(self, positions: Any, like: Array) -> Array:
        """NumPy integer ids or coordinates as an array on the device of ``like``."""

    @abstractmethod
    def _rotate(
        self,
        arrays: tuple[Array, ...],
        positions: Array,
        spec: RotarySpec,
        axes: tuple[int, ...],
        seq_len: int | None,
    ) -> tuple[Array, ...]:
        """`rotate` on checked arguments; ``axes`` are sequence axes counted from the end."""

    def _rotate_into(
        self,
        outs: tuple[Array, ...],
        arrays: tuple[Array, ...],
        positions: Array,
        spec: RotarySpec,
        axes: tuple[int, ...],
        seq_len: int | None,
    ) -> None:
        """`_rotate` into checked ``outs``; here by way of new arrays."""
        for out, rotated in zip(outs, self._rotate(arrays, positions, spec, axes, seq_len)):
            out[...] = rotated


def plain_axes(
    arrays: Sequence[Array], spec: Any, seq_axis: Any, seq_len: Any
) -> tuple[int, ...] | None:
    """Sequence axes of an unchecked call, counted from the end; None unless it has plain values.

    What is no `RotarySpec` or int might be equal to one that was checked, or have no hash.
    """
    if type(spec) is not RotarySpec or type(seq_axis) is not int:
        return None
    if not (seq_len is None or type(seq_len) is int):
        return None
    return tuple(seq_axis if seq_axis < 0 else seq_axis - array.ndim for array in arrays)


@lru_cache(maxsize=256)
def _cached_constants(spec: RotarySpec, seq_len: int | None) -> tuple[tuple[int, ...], float]:
    return turns(spec, seq_len), attention_factor(spec, seq_len)


def constants(spec: RotarySpec, seq_len: int | None) -> tuple[tuple[int, ...], float]:
    """Frequency turns and magnitude of a spec, a hashable value: 2 ms of decimals saved."""
    return _cached_constants(spec, seq_len)


# See rotary_spec.phase.turns.
constants._dynamo_marked_constant = True  # type: ignore[attr-defined]


def tables(positions: Array, spec: RotarySpec, seq_len: int | None, xp: Any) -> tuple[Array, Array]:
    """A cos and A sin of exact phases for the spec's direction, in the widest float of ``xp``."""
    frequency_turns, magnitude = constants(spec, seq_len)
    return table(positions, frequency_turns, magnitude, spec.inverse, xp, spec.axis_of_pair)


def require_float32(positions: Any) -> None:
    """Raise `PositionError` where float32 does not hold NumPy coordinates as they are."""
    if positions.dtype == np.float64 and np.any(positions != positions.astype(np.float32)):
        raise PositionError(
            "positions of float64 would be rounded to float32, because this framework has no "
            "64-bit floating point now. Hint: pass float32 coordinates, or enable it "
            "(JAX: jax_enable_x64)."
        )


def require_int32(positions: Any) -> None:
    """Raise `PositionError` where NumPy ids do not fit the 32 bits that a framework has."""
    if positions.size and (positions.min() < -(2**31) or positions.max() >= 2**31):
        raise PositionError(
            f"positions must lie in -2**31 .. 2**31 - 1 without 64-bit integers; got "
            f"{positions.min()} .. {positions.max()}"
        )
