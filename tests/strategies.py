"""What hypothesis draws: specs over every field, positions, and features to rotate."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

import rotary_spec as rs

LAYOUTS = ("interleaved", "half")
positions = st.integers(-(2**31), 2**31 - 1)
"""Every position for which phases are promised to be exact."""

# Powers of ten either side of the schedules in use; floats of any bit pattern between.
_factors = st.floats(1.0, 1e3)


@st.composite
def _llama3(draw: st.DrawFn) -> rs.Llama3:
    low, high = sorted((draw(st.floats(0.25, 64.0)), draw(st.floats(0.25, 64.0))))
    return rs.Llama3(draw(_factors), low, high, draw(st.integers(1, 2**20)))


schedules = st.builds(rs.Default) | st.builds(rs.Linear, _factors) | _llama3()


@st.composite
def specs(draw: st.DrawFn, **fixed: Any) -> rs.RotarySpec:
    """A spec of at most 16 lanes; fields given in ``fixed`` are not drawn."""
    head_dim = fixed.pop("head_dim", None) or 2 * draw(st.integers(1, 8))
    drawn: dict[str, Any] = {
        "base": lambda: draw(st.floats(1.0, 1e7)),
        "layout": lambda: draw(st.sampled_from(LAYOUTS)),
        "output_layout": lambda: draw(st.sampled_from((None, *LAYOUTS))),
        "rotary_dim": lambda: 2 * draw(st.integers(1, head_dim // 2)),
        "schedule": lambda: draw(schedules),
        "attention_factor": lambda: draw(st.none() | st.floats(0.125, 8.0)),
        "inverse": lambda: draw(st.booleans()),
    }
    values = {name: fixed[name] if name in fixed else make() for name, make in drawn.items()}
    start = draw(st.integers(0, head_dim - values["rotary_dim"]))
    return rs.RotarySpec(head_dim, rotary_start=start, **values)


# Normal float32 values: a product of two that underflows would not be rounded relative to itself.
_numbers = st.floats(-8, 8, width=32, allow_subnormal=False)


@st.composite
def vectors(draw: st.DrawFn, spec: rs.RotarySpec) -> Any:
    """A feature vector of ordinary size, float64."""
    return np.asarray(draw(st.lists(_numbers, min_size=spec.head_dim, max_size=spec.head_dim)))
