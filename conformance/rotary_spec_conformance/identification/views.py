"""A target seen as another one, which a spec describes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rotary_spec_conformance.probe import on_every_axis
from rotary_spec_conformance.target import Rotary, Target


def along_diagonal(target: Target) -> Target:
    """The target as a text model calls it: every axis at the same position."""

    def build() -> Rotary:
        inner = target.build()

        def rotate(x: Any, positions: Any) -> Any:
            ids = on_every_axis(target.framework.to_numpy(positions), target.axes)
            return inner(x, target.framework.asarray(ids, "int64"))

        return rotate

    return replace(target, build=build, pair=None, axes=None, coordinates=False)


def between_permuted_lanes(target: Target, permutation: tuple[int, ...]) -> Target:
    """The target between permuted lanes, where its pairs stand in the half layout."""
    back = [permutation.index(lane) for lane in range(len(permutation))]

    def build() -> Rotary:
        inner = target.build()

        def rotate(x: Any, positions: Any) -> Any:
            framework = target.framework
            y = inner(framework.take(x, back), positions)
            return framework.take(y, list(permutation))

        return rotate

    return replace(target, build=build, pair=None)
