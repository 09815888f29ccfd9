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
    install : str
        What pip installs the library by.
    """

    name: str
    about: str
    module: str
    maker: str
    arguments: tuple[Any, ...] = ()
    configurable: bool = False
    install: str = "'rotary-spec[peers]'"


_PEERS = [
    *(Entry(f"transformers:{model_type}", about, "transformers", "transformers_any:load",
            (f"transformers:{model_type}",), configurable=True)
      for model_type, about in (
          ("llama", "LlamaRotaryEmbedding with apply_rotary_pos_emb"),
          ("gpt_neox", "GPTNeoXRotaryEmbedding with apply_rotary_pos_emb"),
          ("gptj", "GPTJAttention, its queries taken before the scores"),
          ("roformer", "RoFormerSelfAttention.apply_rotary_position_embeddings"))),
    Entry("rotary-embedding-torch", "RotaryEmbedding.rotate_queries_or_keys",
          "rotary_embedding_torch", "rotary_embedding_torch_module:rotate_queries_or_keys"),
    *(Entry(f"onnx:{layout}", "RotaryEmbedding, opset 23, in onnx's reference evaluator",
            "onnx", "onnx_operator:standard", (layout,))
      for layout in ("half", "interleaved")),
    *(Entry(f"onnxruntime:{layout}", "com.microsoft.RotaryEmbedding in ONNX Runtime",
            "onnxruntime", "onnx_operator:contributed", (layout,))
      for layout in ("half", "interleaved")),
    *(Entry(f"diffusers:{layout}", "get_1d_rotary_pos_embed with apply_rotary_emb",
            "diffusers", "diffusers_embeddings:one_dimensional", (layout,))
      for layout in ("half", "interleaved")),
    Entry("liger", "LigerRopeFunction, a Triton kernel", "liger_kernel", "liger_kernel_rope:rope",
          install="liger-kernel triton"),
    *(Entry(f"mlx:{layout}", "mlx.core.fast.rope", "mlx", "mlx_fast:rope", (layout,))
      for layout in ("half", "interleaved")),
]  # fmt: skip
_OWN = [
    Entry(f"rotary-spec:{name}", f"the {name} backend of this package", "rotary_spec_backends",
          "own_backends:backend", (name,))
    for name in ("numpy", "torch", "jax", "cupy")
]  # fmt: skip

CATALOG: dict[str, Entry] = {entry.name: entry for entry in [*_PEERS, *_OWN]}
"""Every entry by name. Beside them, ``transformers:<model type>`` names any model type."""

_ANY = "transformers:"


def is_listed(name: str) -> bool:
    """Whether `load` knows the name."""
    return name in CATALOG or name.startswith(_ANY)


def names_of(name: str) -> list[str]:
    """The targets that a name stands for: itself, or all of a family such as "rotary-spec".

    "transformers:gemma3_text" stands for one target per layer type. An empty list where there is
    none.
    """
    if name in CATALOG:
        return [name]
    if name.startswith(_ANY) and find_spec("transformers") is not None:
        from rotary_spec_conformance.catalog import transformers_any

        try:
            return transformers_any.names_of(name)
        except TargetError:  # which `load` will raise again, where it can be reported
            return [name]
    return [entry for entry in CATALOG if entry.partition(":")[0] == name]


def load(
    name: str, *, config: str | None = None, device: str | None = None
) -> tuple[Target, rs.RotarySpec]:
    """Make a target of the catalog, and the spec that it claims to follow.

    Parameters
    ----------
    name : str
        A key of `CATALOG`, or ``transformers:`` and a model type, with the part of it
        (``transformers:gemma3_text:sliding_attention``) where it has several.
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
    entry = CATALOG.get(name) or _entry_of_any(name)
    if entry is None:
        raise TargetError(
            f"{name!r} is not in the catalog; known: {', '.join(CATALOG)}, and {_ANY}MODEL_TYPE"
        )
    if find_spec(entry.module) is None:
        raise TargetError(f"{name}: {entry.module} is not installed; pip install {entry.install}")
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


def _entry_of_any(name: str) -> Entry | None:
    if not name.startswith(_ANY):
        return None
    about = "the model type's rotary module with its apply function"
    return Entry(name, about, "transformers", "transformers_any:load", (name,), configurable=True)
