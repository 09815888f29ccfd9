"""lucidrains' rotary-embedding-torch."""

from __future__ import annotations

from importlib.metadata import version

import rotary_spec as rs
from rotary_spec_backends.frameworks import TorchFramework
from rotary_spec_conformance.adapt import adapt
from rotary_spec_conformance.target import Target


def rotate_queries_or_keys() -> tuple[Target, rs.RotarySpec]:
    """A `RotaryEmbedding` with its default cache; the offset gives the first row's position."""
    from rotary_embedding_torch import RotaryEmbedding

    spec = rs.RotarySpec(head_dim=64)

    class Rotate(RotaryEmbedding):  # type: ignore[misc]
        """The module with the method under test as its call."""

        def __call__(self, x, offset):  # type: ignore[no-untyped-def]
            return self.rotate_queries_or_keys(x, offset=offset)

    target = adapt(
        lambda: Rotate(dim=spec.head_dim),
        factory=True,
        spec=spec,
        shape="x-offset",
        framework=TorchFramework(),
        name="rotary-embedding-torch",
        versions={p: version(p) for p in ("rotary-embedding-torch", "torch")},
        about="RotaryEmbedding.rotate_queries_or_keys(x, offset=)",
    )
    return target, spec
