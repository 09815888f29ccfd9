"""Rotary embeddings with one known fault each, and the clause that must name it.

Each is the shortest code that has the fault; the rest of it is right. Angles are float64, so that
nothing but the fault can be seen. References are to bug classes seen in real libraries.
"""

from __future__ import annotations

from tests.conformance import (
    zoo_axes,
    zoo_manners,
    zoo_precision,
    zoo_rotation,
    zoo_rows,
    zoo_state,
)  # fmt: skip
from tests.conformance.zoo_parts import Broken

BROKEN: dict[str, Broken] = {}
for _module in (zoo_rotation, zoo_precision, zoo_rows, zoo_state, zoo_manners, zoo_axes):
    assert not BROKEN.keys() & _module.BROKEN.keys()
    BROKEN |= _module.BROKEN
