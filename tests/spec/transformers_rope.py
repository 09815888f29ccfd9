"""The rotary modules of the installed transformers release, and how far their float32 may be off.

`rope_bound` follows their arithmetic step by step; u is float32's unit roundoff.
"""

from __future__ import annotations

import inspect
import math
from copy import deepcopy
from importlib import import_module
from typing import Any

import numpy as np

import rotary_spec as rs

U = 2.0**-24


def config_object(values: dict[str, Any]) -> Any:
    """transformers' own config of a card's values; of several parts, the text model's."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    cls = CONFIG_MAPPING[values["model_type"]]
    given = {name: value for name, value in values.items() if name != "model_type"}
    return cls.from_dict(deepcopy(given)).get_text_config()  # it writes into what it is given


def rotary_class(config: Any, part: str = "") -> type | None:
    """The rotary class that the model's own code builds from this config, if it has one."""
    module = import_module(type(config).__module__.replace("configuration_", "modeling_"))
    found = [
        cls
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if name.endswith(("RotaryEmbedding", "RopePositionEmbedding"))
        and cls.__module__ == module.__name__
        and part in name
        and "config" in inspect.signature(cls).parameters
    ]
    wanted = type(config).__name__.removesuffix("Config").removesuffix("Text")
    fitting = [cls for cls in found if cls.__name__.startswith(wanted)]
    return next(iter(sorted(fitting or found, key=lambda cls: len(cls.__name__))), None)


def numbers(module: Any, layer_type: str | None, seq_len: int | None) -> tuple[Any, float]:
    """A module's float32 ``inv_freq`` and its attention factor, once it has seen that length."""
    import torch

    layer = () if layer_type is None else (layer_type,)
    if seq_len is not None:
        module(torch.zeros(1, 1), torch.tensor([[seq_len - 1]]), *layer)
    prefix = "".join(f"{name}_" for name in layer)
    inv_freq = getattr(module, f"{prefix}inv_freq").double().numpy()
    return inv_freq, float(getattr(module, f"{prefix}attention_scaling"))


def rope_bound(spec: rs.RotarySpec, seq_len: int | None) -> Any:
    """How far a float32 ``inv_freq`` may be off, for every pair."""
    schedule, base = spec.schedule, spec.base
    relative = 0.0
    if isinstance(schedule, rs.Ntk):
        base *= schedule.factor ** (spec.rotary_dim / (spec.rotary_dim - 2))
    if isinstance(schedule, rs.DynamicNtk):
        # factor n / M and what is taken from it are rounded, the power of the difference too.
        scaled = schedule.factor * max(seq_len or 0, schedule.max_position_embeddings)
        scaled /= schedule.max_position_embeddings
        growth = scaled - (schedule.factor - 1)
        exponent = spec.rotary_dim / (spec.rotary_dim - 2)
        base *= growth**exponent
        relative = (exponent * 2 * scaled / growth + 3 + math.log(base)) * U
    # The exponent's rounding, amplified by the power; the power's own, two ulp; the reciprocal's;
    # the division by a factor, itself rounded.
    relative += (math.log(base) + 5) * U
    bound = relative * rs.frequencies(spec, seq_len)
    plain = rs.frequencies(rs.RotarySpec(spec.rotary_dim, base=spec.base))
    if isinstance(schedule, rs.Yarn):
        # The ramp is (i - lo) / (hi - lo): lo and three operations rounded. What it takes from a
        # pair stands beside a frequency that is `factor` times smaller.
        lo, hi = (float(end) for end in schedule.ramp(spec.base, spec.rotary_dim))
        bound = bound + (3 + lo / (hi - lo)) * U * plain
    if isinstance(schedule, rs.Llama3) and schedule.high_freq_factor > schedule.low_freq_factor:
        # The ramp's height is (L / lambda - low) / (high - low), and L / lambda at most high.
        high = schedule.high_freq_factor
        bound = bound + high / (high - schedule.low_freq_factor) * (relative + 3 * U) * plain
    return bound


def assert_same(theirs: tuple[Any, float], spec: rs.RotarySpec, seq_len: int | None) -> None:
    inv_freq, magnitude = theirs
    ours = rs.frequencies(spec, seq_len)
    assert inv_freq.shape == ours.shape
    off = np.abs(inv_freq - ours)
    assert np.all(off <= rope_bound(spec, seq_len)), np.max(off / np.maximum(ours, 1e-30)) / U
    # Python floats, the same few operations: their order alone may differ.
    assert math.isclose(magnitude, rs.attention_factor(spec, seq_len), rel_tol=4 * 2.0**-53)


def lengths(spec: rs.RotarySpec, longest: int | None) -> list[int | None]:
    """On both sides of each switch of a schedule, and of the longest length."""
    schedule = spec.schedule
    switch = schedule.original_max_position_embeddings if isinstance(schedule, rs.LongRope) else 0
    around = [end + step for end in {switch, longest or 0} if end for step in (-1, 0, 1)]
    grown = (
        [2 * longest, 3 * longest + 1] if isinstance(schedule, rs.DynamicNtk) and longest else []
    )
    return [None, *sorted(around), *grown]
