"""Linear attention of this package, held to the same checks as anybody's."""

from __future__ import annotations

from typing import Any

import rotary_spec as rs
from rotary_spec import BackendUnavailable
from rotary_spec_backends import select, status
from rotary_spec_backends.frameworks import NumpyFramework
from rotary_spec_conformance.linear_attention.catalog import Listed
from rotary_spec_conformance.linear_attention.target import LinearAttentionTarget

SPEC = rs.RotarySpec(head_dim=32)


def _nothing(x: Any) -> Any:
    """No token yet: what a state begins with."""
    return x[..., :0, :]


def reference() -> Listed:
    """The definition, and its recurrence."""

    def attend(q: Any, k: Any, v: Any, positions: Any) -> Any:
        return rs.linear_attention(q, k, v, positions, SPEC, causal=True)

    def step(state: Any, q: Any, k: Any, v: Any, positions: Any) -> Any:
        if state is None:
            state = rs.linear_attention_state(_nothing(k), _nothing(v), positions[:0], SPEC)
        return rs.linear_attention_step(state, q, k, v, positions=positions)

    target = LinearAttentionTarget(
        name="linear:reference",
        build=lambda: attend,
        framework=NumpyFramework(),
        head_dim=SPEC.head_dim,
        fresh=False,
        step=lambda: step,
        versions={"rotary-spec": rs.__version__},
        about="rotary_spec.linear_attention",
    )
    return Listed(target, SPEC, {})


def backend(name: str, device: str | None = None) -> Listed:
    """The chunked and the recurrent form of a backend.

    Raises
    ------
    BackendUnavailable
        If it cannot be used here, or has no linear attention.
    """
    if (reason := status(name).reason) is not None:
        raise BackendUnavailable(reason)
    chosen: Any = select(name, device=device)
    if not hasattr(chosen, "linear_attention"):
        raise BackendUnavailable(f"the {name} backend has no linear_attention")

    def attend(q: Any, k: Any, v: Any, positions: Any) -> Any:
        return chosen.linear_attention(q, k, v, positions, SPEC, causal=True)

    def step(state: Any, q: Any, k: Any, v: Any, positions: Any) -> Any:
        if state is None:
            state = chosen.linear_attention_state(_nothing(k), _nothing(v), positions[:0], SPEC)
        return chosen.linear_attention_step(state, q, k, v, positions=positions)

    target = LinearAttentionTarget(
        name=f"linear:{name}",
        build=lambda: attend,
        framework=chosen.framework,
        head_dim=SPEC.head_dim,
        dtypes=status(name).dtypes,
        fresh=False,
        step=lambda: step,
        versions={"rotary-spec": rs.__version__, name: str(status(name).version)},
        about=f"{type(chosen).__name__}.linear_attention on {device or status(name).devices[0]}",
    )
    return Listed(target, SPEC, {})
