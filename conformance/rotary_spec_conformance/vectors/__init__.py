"""Golden vectors: inputs and exact results for implementations in any language.

`load` reads them, `export` writes them for other languages, `verify` judges what came back. They
are computed by ``rotary_spec_conformance.vectors.generate``, which shares no formula with
``rotary_spec``.
"""

from __future__ import annotations

from rotary_spec_conformance.vectors.exporting import export
from rotary_spec_conformance.vectors.findings import Problem, TensorResult, Verification
from rotary_spec_conformance.vectors.golden import Case, Vectors, load
from rotary_spec_conformance.vectors.verification import verify

__all__ = [
    "Case",
    "Problem",
    "TensorResult",
    "Vectors",
    "Verification",
    "export",
    "load",
    "verify",
]
