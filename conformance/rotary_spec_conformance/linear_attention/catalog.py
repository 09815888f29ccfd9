"""Linear attentions by name, so that a table of what each computes is one command."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_conformance.catalog import Entry
from rotary_spec_conformance.linear_attention.target import LinearAttentionTarget


class Listed(NamedTuple):
    """A target, the spec it is held against, and what the check is told of it."""

    target: LinearAttentionTarget
    spec: rs.RotarySpec
    options: Mapping[str, Any]


_OWN = [
    Entry("linear:reference", "rotary_spec.linear_attention", "numpy", "own:reference"),
    *(Entry(f"linear:{name}", f"linear_attention of the {name} backend of this package",
            "rotary_spec_backends", "own:backend", (name,))
      for name in ("numpy", "torch", "jax", "cupy")),
]  # fmt: skip
_PEERS = [
    Entry("linear:katharopoulos", "causal linear attention of 2020 in PyTorch, without rotation",
          "torch", "peers:katharopoulos", install="torch"),
    Entry("linear:performer", "the same with positive random features (FAVOR+)",
          "torch", "peers:performer", install="torch"),
    Entry("linear:rotary-embedding-torch-before", "rotary-embedding-torch on q and k, then "
          "linear:katharopoulos", "rotary_embedding_torch", "peers:rotated_before"),
    Entry("linear:rotary-embedding-torch-after", "rotary-embedding-torch on the features of "
          "linear:katharopoulos", "rotary_embedding_torch", "peers:rotated_after"),
    Entry("linear:fla-naive", "flash-linear-attention's naive_chunk_linear_attn(normalize=True)",
          "fla", "peers:fla_naive", install="fla-core"),
    Entry("linear:fla-naive-rotated", "the same, given rotated features",
          "fla", "peers:fla_naive", (True,), install="fla-core"),
    Entry("linear:fla-triton", "its chunk_linear_attn(normalize=True), on CUDA, given rotated "
          "features", "fla", "peers:fla_triton", install="fla-core"),
]  # fmt: skip

LINEAR_CATALOG: dict[str, Entry] = {entry.name: entry for entry in [*_OWN, *_PEERS]}
"""Every entry by name."""


def names_of(name: str) -> list[str]:
    """The targets that a name stands for: itself, or all for "linear"; an empty list if none."""
    return [name] if name in LINEAR_CATALOG else list(LINEAR_CATALOG) if name == "linear" else []


def load(name: str, device: str | None = None) -> Listed:
    """Make a target of the catalog.

    Raises
    ------
    TargetError
        If its library is not installed, or it takes no device.
    BackendUnavailable
        If it cannot be used here.
    """
    entry = LINEAR_CATALOG[name]
    if find_spec(entry.module) is None:
        raise TargetError(f"{name}: {entry.module} is not installed; pip install {entry.install}")
    room, _, function = entry.maker.partition(":")
    maker = getattr(import_module(f"rotary_spec_conformance.linear_attention.{room}"), function)
    if device is not None and entry.maker != "own:backend":
        raise TargetError(f"{name} runs on its library's default device; leave device out")
    made: Listed = maker(*entry.arguments, *([] if device is None else [device]))
    return made
