"""Frequencies and magnitude of a spec, as float64 numbers on the host."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import numpy.typing as npt

from rotary_spec.spec import RotarySpec


def exact_frequencies(spec: RotarySpec, seq_len: int | None = None) -> list[Decimal]:
    """`frequencies` before rounding: decimals of `rotary_spec.schedules.PRECISION` digits."""
    sections = spec.sections
    if sections is not None and sections.frequencies == "restart":
        by_axis = [
            spec.schedule.frequencies(spec.base, 2 * size, seq_len) for size in sections.sizes
        ]
        return [by_axis[a][j] for a, j in zip(sections.axis_of_pair(), sections.ranks())]
    theta = spec.schedule.frequencies(spec.base, spec.rotary_dim, seq_len)
    if sections is not None and sections.frequencies == "strided":
        return [
            theta[sections.axes * j + a] for a, j in zip(sections.axis_of_pair(), sections.ranks())
        ]
    return theta


def frequencies(spec: RotarySpec, seq_len: int | None = None) -> npt.NDArray[np.float64]:
    """Angle per position of every pair: Hugging Face's ``inv_freq``, without its rounding.

    Parameters
    ----------
    spec : RotarySpec
    seq_len : int or None
        Length of the whole sequence, for schedules that depend on it.

    Returns
    -------
    numpy.ndarray of float64, shape (rotary_dim // 2,)
        theta_i in radians per position, correctly rounded (RoFormer Eq. 15 and the schedule).

    Examples
    --------
    >>> from rotary_spec import RotarySpec, frequencies
    >>> frequencies(RotarySpec(head_dim=4))
    array([1.  , 0.01])
    """
    return np.asarray([float(theta) for theta in exact_frequencies(spec, seq_len)])


def attention_factor(spec: RotarySpec, seq_len: int | None = None) -> float:
    """Magnitude A on cos and sin: the spec's own, or else what its schedule says.

    Scores grow by A squared. Dimensionless; 1.0 in the paper.

    >>> from rotary_spec import RotarySpec, attention_factor
    >>> attention_factor(RotarySpec(head_dim=4))
    1.0
    """
    if spec.attention_factor is not None:
        return spec.attention_factor
    return spec.schedule.magnitude(seq_len)
