"""One rotary embedding of transformers by its name, for these tests."""

from __future__ import annotations

from typing import Any

from rotary_spec_conformance.catalog import transformers_any as catalog
from rotary_spec_conformance.catalog.transformers_build import Built


def built(name: str, config: Any = None) -> Built:
    """ "gemma3_text:sliding_attention" or "llama"; an `Unbuilt` fails the test."""
    model_type, _, part = name.partition(":")
    made = catalog.build(model_type, config)
    one = next(one for one in made if not part or one.name.endswith(f":{part}"))
    assert isinstance(one, Built), one
    return one
