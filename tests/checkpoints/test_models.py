"""Models of transformers on disk: converted, they give what they gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rotary_spec.checkpoints import convert_file
from tests.checkpoint_files import (
    HALF,
)


def interleaved(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> Any:
    """What stands in for transformers' function: neighbours turned, the rest passed through."""
    import torch

    pairs = cos.shape[-1] // 2
    cos, sin = (table.unsqueeze(unsqueeze_dim)[..., :pairs] for table in (cos, sin))

    def turn(x: Any) -> Any:
        first, second = x[..., 0 : 2 * pairs : 2], x[..., 1 : 2 * pairs : 2]
        turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1)
        return torch.cat([turned.flatten(-2), x[..., 2 * pairs :]], dim=-1)

    return turn(q), turn(k)


MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Llama": ({"num_key_value_heads": 2, "attention_bias": True}, {}),
    "Qwen3": ({"num_key_value_heads": 2, "head_dim": 16}, {}),
    "Phi3": (
        {"num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 1},
        {"qkv": ["*.qkv_proj.*"], "qkv_packing": "concatenated", "heads": 4, "kv_heads": 2},
    ),
    "GPTNeoX": (
        {"rotary_pct": 0.25},
        {"qkv": ["*.query_key_value.*"], "qkv_packing": "per-head", "rotary_dim": 4},
    ),
    "Falcon": (
        {"num_kv_heads": 2, "new_decoder_architecture": True, "bias": True, "alibi": False},
        {
            "qkv": ["*.query_key_value.*"], "qkv_packing": "per-group", "heads": 4, "kv_heads": 2,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", MODELS)
def test_models_of_transformers(
    family: str, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model on disk, converted: its own code with neighbours turned gives what it gave."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    library = pytest.importorskip("safetensors.torch")
    config_fields, options = MODELS[family]
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 50}
    config = getattr(transformers, f"{family}Config")(
        **sizes, intermediate_size=64, **config_fields
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}Model")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too, which begin as ones and zeros
            parameter.normal_(0.0 if parameter.ndim > 1 else 1.0, 0.2)
    library.save_file(model.state_dict(), source)
    convert_file(source, out, **{**HALF, "head_dim": 16}, **options)

    def hidden() -> Any:
        with torch.no_grad():
            return model(torch.arange(40).reshape(2, 20)).last_hidden_state

    before = hidden()
    module = getattr(transformers, f"{family}Model").__module__
    monkeypatch.setattr(f"{module}.apply_rotary_pos_emb", interleaved)
    wrong = hidden()
    model.load_state_dict(library.load_file(out))
    torch.testing.assert_close(hidden(), before, rtol=0, atol=2e-5)
    assert (wrong - before).abs().max() > 1e-2  # the weights and the rotation must change together
