"""Is an implementation linear attention with RoPE, as RoFormer Eq. 19 has it?"""

from __future__ import annotations

from rotary_spec_conformance.linear_attention.suite import check_linear_attention
from rotary_spec_conformance.linear_attention.target import (
    LinearAttentionTarget,
    adapt_linear_attention,
)

__all__ = ["LinearAttentionTarget", "adapt_linear_attention", "check_linear_attention"]
