"""Hugging Face ``config.json`` to `RotarySpec` and back.

Reads both spellings: ``rope_parameters`` (transformers 5) and ``rope_scaling`` with a top-level
``rope_theta`` (transformers 4). What a config does not say, because it is in the model's code, is
in `families`.
"""

from rotary_spec.huggingface.from_config import from_hf_config, one_hf_spec, says_rotary
from rotary_spec.huggingface.softmax import hf_softmax_factor
from rotary_spec.huggingface.writing import to_hf_config

__all__ = ["from_hf_config", "hf_softmax_factor", "one_hf_spec", "says_rotary", "to_hf_config"]
