"""Rotary embeddings of transformers that live inside an attention class, which has to be run."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from importlib.metadata import version
from typing import Any

from rotary_spec.huggingface import one_hf_spec
from rotary_spec_backends.frameworks import TorchFramework
from rotary_spec_conformance.catalog.transformers_configs import read_config
from rotary_spec_conformance.target import Rotary, Target

# Real head sizes, everything else as small as the classes allow: weights do not matter here.
_GPTJ = {"n_embd": 256, "n_head": 1, "rotary_dim": 64, "n_positions": 2048}
_ROFORMER = {"hidden_size": 64, "num_attention_heads": 1, "max_position_embeddings": 1536}


def gptj(given: Any = None) -> tuple[Target, Any]:
    """GPT-J's attention with identity projections, stopped where queries meet keys.

    Its rotation is not a function of its own: the attention slices, rotates and joins. Heads are
    folded into the batch, because the number of heads is fixed by the weights.
    """
    import torch
    from transformers import GPTJConfig
    from transformers.models.gptj.modeling_gptj import GPTJAttention

    config = deepcopy(read_config(GPTJConfig, "gptj", _GPTJ if given is None else given))
    config.n_embd, config.n_head = config.n_embd // config.n_head, 1
    attention = GPTJAttention(config, layer_idx=0)
    with torch.no_grad():
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight.copy_(torch.eye(config.n_embd))

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

    return _target("gptj", build, config.n_embd, GPTJAttention, config.n_positions), config


def roformer(given: Any = None) -> tuple[Target, Any]:
    """RoFormer's table and apply function; the table has the dtype of the model, as its weights."""
    import torch
    from transformers import RoFormerConfig
    from transformers.models.roformer import modeling_roformer as code

    config = read_config(RoFormerConfig, "roformer", _ROFORMER if given is None else given)
    head_dim = one_hf_spec(config).head_dim
    table = code.RoFormerSinusoidalPositionalEmbedding(config.max_position_embeddings, head_dim)
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

    end = config.max_position_embeddings
    return _target("roformer", build, head_dim, code.RoFormerSelfAttention, end), config


def _target(name: str, build: Callable[[], Rotary], head_dim: int, cls: type, end: int) -> Target:
    return Target(
        name=f"transformers:{name}",
        build=build,
        framework=TorchFramework(),
        head_dim=head_dim,
        max_position=end,
        row_positions=True,
        versions={"transformers": version("transformers"), "torch": version("torch")},
        about=f"{cls.__name__}, {end} positions",
    )
