"""The spec, native and fast: thin adapters onto NumPy, PyTorch, JAX and CuPy.

``select`` picks one at run time, ``for_array`` the one that an array belongs to, ``available``
lists them all. A framework is imported when its backend is first used.
"""

from __future__ import annotations

from rotary_spec import BackendUnavailable
from rotary_spec_backends.base import Backend, BackendStatus
from rotary_spec_backends.frameworks import FRAMEWORKS, Framework
from rotary_spec_backends.registry import (
    ENTRY_POINTS,
    ENVIRONMENT,
    available,
    for_array,
    select,
    status,
)

__all__ = [
    "Backend",
    "BackendStatus",
    "BackendUnavailable",
    "ENTRY_POINTS",
    "ENVIRONMENT",
    "FRAMEWORKS",
    "Framework",
    "available",
    "for_array",
    "select",
    "status",
]
