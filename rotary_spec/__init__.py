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
    DenominatorError,
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
    from rotary_spec import decay as decay
    from rotary_spec import encodings as encodings
    from rotary_spec.feature_maps import FeatureMap, favor
    from rotary_spec.huggingface import from_hf_config, hf_softmax_factor, to_hf_config
    from rotary_spec.linear_attention_definition import linear_attention
    from rotary_spec.linear_attention_recurrence import (
        LinearAttentionState,
        linear_attention_state,
        linear_attention_step,
    )
    from rotary_spec.scaling import (
        DynamicNtk,
        Explicit,
        Linear,
        Llama3,
        Ntk,
        Proportional,
    )
    from rotary_spec.sections import Sections
    from rotary_spec.softmax_attention import attention
    from rotary_spec.weights import convert_projection
    from rotary_spec.yarn import LongRope, Yarn

    backends, bench = rotary_spec_backends, rotary_spec_bench
    conformance = rotary_spec_conformance

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "CheckpointError",
    "Default",
    "DenominatorError",
    "DtypeError",
    "DynamicNtk",
    "Explicit",
    "FeatureMap",
    "Linear",
    "LinearAttentionState",
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
    "attention",
    "attention_factor",
    "convert_projection",
    "cos_sin",
    "favor",
    "frequencies",
    "from_hf_config",
    "hf_softmax_factor",
    "linear_attention",
    "linear_attention_state",
    "linear_attention_step",
    "phases",
    "rotate",
    "rotate_complex",
    "rotation_matrix",
    "to_hf_config",
    "turns",
]

# Imported when first asked for, so that `import rotary_spec` costs NumPy and little more.
_MODULES = {
    "decay": "rotary_spec.decay",
    "encodings": "rotary_spec.encodings",
    "backends": "rotary_spec_backends",
    "conformance": "rotary_spec_conformance",
    "bench": "rotary_spec_bench",
}
_LAZY = {
    "attention": "rotary_spec.softmax_attention",
    "convert_projection": "rotary_spec.weights",
    "Sections": "rotary_spec.sections",
    **dict.fromkeys(
        ("from_hf_config", "hf_softmax_factor", "to_hf_config"), "rotary_spec.huggingface"
    ),
    **dict.fromkeys(("FeatureMap", "favor"), "rotary_spec.feature_maps"),
    "linear_attention": "rotary_spec.linear_attention_definition",
    **dict.fromkeys(
        ("LinearAttentionState", "linear_attention_state", "linear_attention_step"),
        "rotary_spec.linear_attention_recurrence",
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
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rotary_spec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES, "__version__"])
