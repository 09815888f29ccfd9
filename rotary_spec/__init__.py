"""What a rotary position embedding is: the reference that everything else is held against.

Written against the Python Array API, so that one definition serves NumPy, PyTorch, JAX, CuPy,
Dask and array-api-strict arrays. Source of the formulas: RoFormer (Su et al., arXiv:2104.09864).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rotary_spec.errors import (
    BackendUnavailable,
    CheckpointError,
    DtypeError,
    PositionError,
    RotarySpecError,
    ShapeError,
    SpecError,
    TargetError,
    VectorsError,
)
from rotary_spec.frequencies import attention_factor, frequencies
from rotary_spec.phase import Phase, phases, turns
from rotary_spec.rotation import cos_sin, rotate, rotate_complex, rotation_matrix
from rotary_spec.schedules import Default, Schedule
from rotary_spec.spec import RotarySpec

if TYPE_CHECKING:
    import rotary_spec_backends
    import rotary_spec_bench
    import rotary_spec_conformance
    from rotary_spec.huggingface import from_hf_config, hf_softmax_factor, to_hf_config
    from rotary_spec.scaling import (
        DynamicNtk,
        Explicit,
        Linear,
        Llama3,
        Ntk,
        Proportional,
    )
    from rotary_spec.sections import Sections
    from rotary_spec.weights import convert_projection
    from rotary_spec.yarn import LongRope, Yarn

    backends, bench = rotary_spec_backends, rotary_spec_bench
    conformance = rotary_spec_conformance

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "CheckpointError",
    "Default",
    "DtypeError",
    "DynamicNtk",
    "Explicit",
    "Linear",
    "Llama3",
    "LongRope",
    "Ntk",
    "Phase",
    "PositionError",
    "Proportional",
    "RotarySpec",
    "RotarySpecError",
    "Schedule",
    "Sections",
    "ShapeError",
    "SpecError",
    "TargetError",
    "VectorsError",
    "Yarn",
    "attention_factor",
    "convert_projection",
    "cos_sin",
    "frequencies",
    "from_hf_config",
    "hf_softmax_factor",
    "phases",
    "rotate",
    "rotate_complex",
    "rotation_matrix",
    "to_hf_config",
    "turns",
]

# Imported when first asked for, so that `import rotary_spec` costs NumPy and little more.
_ROOMS = {
    "backends": "rotary_spec_backends",
    "conformance": "rotary_spec_conformance",
    "bench": "rotary_spec_bench",
}
_LAZY = {
    "convert_projection": "rotary_spec.weights",
    "Sections": "rotary_spec.sections",
    **dict.fromkeys(
        ("from_hf_config", "hf_softmax_factor", "to_hf_config"), "rotary_spec.huggingface"
    ),
    **dict.fromkeys(
        (
            "DynamicNtk",
            "Explicit",
            "Linear",
            "Llama3",
            "Ntk",
            "Proportional",
        ),
        "rotary_spec.scaling",
    ),
    **dict.fromkeys(("LongRope", "Yarn"), "rotary_spec.yarn"),
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(_ROOMS[name])
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rotary_spec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS, "__version__"])
