"""Targets for libraries people use, by name. A library is imported when its target is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_conformance.target import Target


@dataclass(frozen=True)
class Entry:
    """A target of the catalog.

    Attributes
    ----------
    name : str
        "library:what", or the library alone where it has one implementation.
    about : str
        What is called.
    module : str
        Module that must be importable.
    maker : str
        Function of this package that makes the target and the spec it claims to follow.
    arguments : tuple
        First arguments of the maker.
    configurable : bool
        Whether it can be built from a Hugging Face config.
    """

    name: str
    about: str
    module: str
    maker: str
    arguments: tuple[Any, ...] = ()
    configurable: bool = False


_PEERS = [
    Entry("transformers:llama", "LlamaModel.rotary_emb with apply_rotary_pos_emb",
          "transformers", "transformers_models:llama", configurable=True),
    Entry("transformers:gpt_neox", "GPTNeoXModel.rotary_emb with apply_rotary_pos_emb",
          "transformers", "transformers_models:gpt_neox", configurable=True),
    Entry("transformers:gptj", "GPTJAttention, its queries taken before the scores",
          "transformers", "transformers_models:gptj", configurable=True),
    Entry("transformers:roformer", "RoFormerSelfAttention.apply_rotary_position_embeddings",
          "transformers", "transformers_models:roformer", configurable=True),
    Entry("rotary-embedding-torch", "RotaryEmbedding.rotate_queries_or_keys",
          "rotary_embedding_torch", "rotary_embedding_torch_module:rotate_queries_or_keys"),
    *(Entry(f"onnx:{layout}", "RotaryEmbedding, opset 23, in onnx's reference evaluator",
            "onnx", "onnx_operator:rotary_embedding", (layout,))
      for layout in ("half", "interleaved")),
    *(Entry(f"mlx:{layout}", "mlx.core.fast.rope", "mlx", "mlx_fast:rope", (layout,))
      for layout in ("half", "interleaved")),
]  # fmt: skip
_OWN = [
    Entry(f"rotary-spec:{name}", f"the {name} backend of this package", "rotary_spec_backends",
          "own_backends:backend", (name,))
    for name in ("numpy", "torch", "jax", "cupy")
]  # fmt: skip

CATALOG: dict[str, Entry] = {entry.name: entry for entry in [*_PEERS, *_OWN]}
"""Every entry by name."""


def names_of(name: str) -> list[str]:
    """The entries that a name stands for: itself, or all of a family such as "rotary-spec".

    An empty list where there is none.
    """
    if name in CATALOG:
        return [name]
    return [entry for entry in CATALOG if entry.partition(":")[0] == name]


def load(
    name: str, *, config: str | None = None, device: str | None = None
) -> tuple[Target, rs.RotarySpec]:
    """Make a target of the catalog, and the spec that it claims to follow.

    Parameters
    ----------
    name : str
        A key of `CATALOG`.
    config : path or None
        Hugging Face ``config.json`` to build the model from; None: a default of its own.
    device : str or None
        For this package's own backends.

    Raises
    ------
    TargetError
        If the name is unknown, its library is not installed, or the entry takes no config or
        device.
    """
    if name not in CATALOG:
        raise TargetError(f"{name!r} is not in the catalog; known: {', '.join(CATALOG)}")
    entry = CATALOG[name]
    if find_spec(entry.module) is None:
        raise TargetError(
            f"{name}: {entry.module} is not installed; pip install 'rotary-spec[peers]'"
        )
    if config is not None and not entry.configurable:
        raise TargetError(f"{name} is not built from a config; leave it out")
    if device is not None and entry not in _OWN:
        raise TargetError(f"{name} runs on its library's default device; leave device out")
    module, _, function = entry.maker.partition(":")
    maker = getattr(import_module(f"rotary_spec_conformance.catalog.{module}"), function)
    options: dict[str, Any] = {}
    if entry.configurable:
        options["config"] = config
    if entry in _OWN:
        options["device"] = device
    made: tuple[Target, rs.RotarySpec] = maker(*entry.arguments, **options)
    return made
