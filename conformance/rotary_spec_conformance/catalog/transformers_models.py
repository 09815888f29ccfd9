"""Rotary embeddings of Hugging Face transformers, through transformers' own code."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rotary_spec as rs
from rotary_spec_backends.frameworks import TorchFramework
from rotary_spec_conformance.adapt import adapt
from rotary_spec_conformance.target import Rotary, Target

# Real head sizes, everything else as small as the classes allow: weights do not matter here.
_LLAMA = {"hidden_size": 256, "num_attention_heads": 2, "num_key_value_heads": 2,
          "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 8}  # fmt: skip
_GPT_NEOX = {"hidden_size": 192, "num_attention_heads": 2, "intermediate_size": 8,
             "num_hidden_layers": 1, "vocab_size": 8}  # fmt: skip
_GPTJ = {"n_embd": 256, "n_head": 1, "rotary_dim": 64, "n_positions": 2048}
_ROFORMER = {"hidden_size": 64, "num_attention_heads": 1, "max_position_embeddings": 1536}


def llama(config: str | None = None) -> tuple[Target, rs.RotarySpec]:
    """Llama's rotary module, taken from a model with random weights, and its apply function."""
    from transformers import LlamaConfig, LlamaModel
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    made = _config(LlamaConfig, _LLAMA, config)
    return _module_and_apply("llama", LlamaModel, made, apply_rotary_pos_emb)


def gpt_neox(config: str | None = None) -> tuple[Target, rs.RotarySpec]:
    """GPT-NeoX's: the first quarter of each head is rotated."""
    from transformers import GPTNeoXConfig, GPTNeoXModel
    from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb

    made = _config(GPTNeoXConfig, _GPT_NEOX, config)
    return _module_and_apply("gpt_neox", GPTNeoXModel, made, apply_rotary_pos_emb)


def gptj(config: str | None = None) -> tuple[Target, rs.RotarySpec]:
    """GPT-J's attention with identity projections, stopped where queries meet keys.

    Its rotation is not a function of its own: the attention slices, rotates and joins. Heads are
    folded into the batch, because the number of heads is fixed by the weights.
    """
    import torch
    from transformers import GPTJConfig
    from transformers.models.gptj.modeling_gptj import GPTJAttention

    made = _config(GPTJConfig, _GPTJ, config)
    made.n_embd, made.n_head = made.n_embd // made.n_head, 1
    spec = rs.from_hf_config(made)
    attention = GPTJAttention(made, layer_idx=0)
    with torch.no_grad():
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight.copy_(torch.eye(spec.head_dim))

    def build() -> Rotary:
        modules: dict[Any, Any] = {}

        def rotate(x: Any, positions: Any) -> Any:
            module = modules.setdefault(x.dtype, deepcopy(attention).to(x.dtype))
            taken: list[Any] = []

            def take(query: Any, key: Any, value: Any, mask: Any = None) -> tuple[Any, None]:
                taken.append(query)
                return torch.zeros_like(query), None

            module._attn = take
            folded = x.reshape(-1, *x.shape[2:])
            ids = positions.expand(x.shape[0], -1).repeat_interleave(x.shape[1], dim=0)
            module(folded, position_ids=ids)
            return taken[0].reshape(x.shape)

        return rotate

    return _target("gptj", build, spec, GPTJAttention, made.n_positions), spec


def roformer(config: str | None = None) -> tuple[Target, rs.RotarySpec]:
    """RoFormer's table and apply function; the table has the dtype of the model, as its weights."""
    import torch
    from transformers import RoFormerConfig
    from transformers.models.roformer import modeling_roformer as code

    made = _config(RoFormerConfig, _ROFORMER, config)
    spec = rs.from_hf_config(made)
    table = code.RoFormerSinusoidalPositionalEmbedding(made.max_position_embeddings, spec.head_dim)
    with torch.no_grad():
        table.weight.copy_(table.create_weight())
    apply = code.RoFormerSelfAttention.apply_rotary_position_embeddings

    def build() -> Rotary:
        tables: dict[Any, Any] = {}

        def rotate(x: Any, positions: Any) -> Any:
            module = tables.setdefault(x.dtype, deepcopy(table).to(x.dtype))
            rows = module(x.shape[:-1], position_ids=positions)
            rows = rows[None, None] if positions.ndim == 1 else rows[:, None]
            return apply(rows, x, x)[0]

        return rotate

    end = made.max_position_embeddings
    return _target("roformer", build, spec, code.RoFormerSelfAttention, end), spec


def _config(cls: Any, defaults: dict[str, Any], path: str | None) -> Any:
    """A config from a file, or from the defaults; a file keeps only what it says."""
    if path is None:
        return cls(**defaults)
    rs.from_hf_config(path)  # a file that cannot be read, or is no config, is refused by name
    return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))


def _module_and_apply(
    name: str, model: Any, config: Any, apply: Callable[..., Any]
) -> tuple[Target, rs.RotarySpec]:
    spec = rs.from_hf_config(config)
    small = deepcopy(config)
    small.num_hidden_layers, small.vocab_size, small.intermediate_size = 1, 8, 8
    small.pad_token_id = None
    rotary = model(small).rotary_emb
    target = adapt(
        rotary,
        spec=spec,
        shape="tables",
        apply=apply,
        framework=TorchFramework(),
        name=f"transformers:{name}",
        versions=_versions(),
        about=f"{type(rotary).__name__} with apply_rotary_pos_emb",
    )
    return target, spec


def _target(
    name: str, build: Callable[[], Rotary], spec: rs.RotarySpec, cls: type, end: int
) -> Target:
    return Target(
        name=f"transformers:{name}",
        build=build,
        framework=TorchFramework(),
        head_dim=spec.head_dim,
        max_position=end,
        row_positions=True,
        versions=_versions(),
        about=f"{cls.__name__}, {end} positions",
    )


def _versions() -> dict[str, str]:
    return {"transformers": version("transformers"), "torch": version("torch")}
