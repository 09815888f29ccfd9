"""The errors this project raises. Each says what was given, what was expected and what to do."""

from __future__ import annotations


class RotarySpecError(Exception):
    """Root of every error raised by this project."""


class SpecError(RotarySpecError, ValueError):
    """A rotary embedding that cannot exist, or a configuration that does not describe one."""


class ShapeError(RotarySpecError, ValueError):
    """An array whose shape does not fit the spec or its fellow arguments."""


class DtypeError(RotarySpecError, TypeError):
    """An array, or another argument, of a type that the operation does not take."""


class PositionError(RotarySpecError, ValueError):
    """Position ids that do not broadcast, or whose dtype cannot hold them exactly."""


class DenominatorError(RotarySpecError, ValueError):
    """A linear attention whose weights do not sum to something positive and finite."""


class BackendUnavailable(RotarySpecError, ImportError):
    """A backend whose framework is not installed, or whose device is not there."""


class TargetError(RotarySpecError, ValueError):
    """An implementation under test that cannot be found, built or called."""


class CheckpointError(RotarySpecError, ValueError):
    """A file of weights that is malformed, holds nothing that is asked for, or is in the way."""


class VectorsError(RotarySpecError, ValueError):
    """Golden vectors, or results for them, that cannot be read, written or told apart."""
