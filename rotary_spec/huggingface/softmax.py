"""What YaRN does to the softmax scale in some models: outside the rotation, and so of a spec."""

from __future__ import annotations

import math
from typing import Any

from rotary_spec.errors import SpecError
from rotary_spec.huggingface.families import SOFTMAX_MSCALE
from rotary_spec.huggingface.reading import (
    Config,
    layer_types_of,
    model_type_of,
    of_layer,
    read_config,
    rope_type_of,
)
from rotary_spec.schedules import positive


def hf_softmax_factor(config: Config) -> float:
    """By how much YaRN makes the softmax scale larger than a model's usual one.

    DeepSeek-V2 and its kin multiply every score, also that of the lanes that do not rotate, by
    m(s, a)^2 with s = ``factor``, a = ``mscale_all_dim`` and m(s, a) = 0.1 a ln(s) + 1. The spec's
    ``attention_factor``, m(s, mscale) / m(s, a), is only what remains for the lanes that rotate.
    Source: DeepSeek-V3's inference code (``softmax_scale``), transformers' ``yarn_apply_mscale``.

    Parameters
    ----------
    config : path, mapping or config object
        As for `from_hf_config`.

    Returns
    -------
    float
        Dimensionless, at least 1; exactly 1 for the other models, whatever their schedule.

    Raises
    ------
    SpecError
        If the config cannot be read, or ``factor`` or ``mscale_all_dim`` is no number.

    Examples
    --------
    >>> from rotary_spec import hf_softmax_factor
    >>> config = {"model_type": "deepseek_v3", "rope_scaling": {
    ...     "type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0}}
    >>> round(hf_softmax_factor(config), 6)
    1.873854
    """
    values = read_config(config)
    if model_type_of(values) not in SOFTMAX_MSCALE or layer_types_of(values):
        return 1.0
    parameters: dict[str, Any] = (seen := of_layer(values, None))["rope_parameters"]
    share = parameters.get("mscale_all_dim")
    if rope_type_of(seen) == "default" or not share:
        return 1.0
    factor = positive("factor", parameters.get("factor"))
    if factor < 1:
        raise SpecError(f"factor must be at least 1, got {factor!r}")
    return (0.1 * positive("mscale_all_dim", share) * math.log(factor) + 1.0) ** 2
