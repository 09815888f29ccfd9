"""The generic adapter: any model type of transformers, and what each is known to do."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec.huggingface import families

pytest.importorskip("torch")
pytest.importorskip("transformers")

from rotary_spec_conformance.catalog import transformers_any as catalog
from rotary_spec_conformance.catalog.transformers_build import Built, Unbuilt
from rotary_spec_conformance.catalog.transformers_claims import verdict
from rotary_spec_conformance.catalog.transformers_source import models_folder
from rotary_spec_conformance.identification.identify import identify
from tests.catalog.building import built


@dataclass(frozen=True)
class Known:
    """The documented convention of a model: what its code and its default config say."""

    name: str
    layout: str
    rotated: tuple[int, int]
    head_dim: int
    base: float | None
    output_layout: str = ""
    inverse: bool = False
    schedule: type[rs.Schedule] = rs.Default


KNOWN = [
    Known("llama", "half", (0, 128), 128, 1e4),
    Known("qwen2", "half", (0, 128), 128, 1e4),
    Known("qwen3_vl_text", "half", (0, 128), 128, 5e5),
    Known("gemma3_text:sliding_attention", "half", (0, 256), 256, 1e4),
    Known("gemma3_text:full_attention", "half", (0, 256), 256, 1e6),
    Known("modernbert:sliding_attention", "half", (0, 64), 64, 1e4),
    Known("modernbert:full_attention", "half", (0, 64), 64, 16e4),
    Known("gpt_oss", "half", (0, 64), 64, 15e4, schedule=rs.Yarn),
    Known("gpt_neox", "half", (0, 24), 96, 1e4),
    Known("phi", "half", (0, 32), 64, 1e4),
    Known("esm", "half", (0, 64), 64, 1e4),
    Known("nanochat", "half", (0, 128), 128, 1e4, inverse=True),
    Known("apertus", "half", (0, 128), 128, 12e6, schedule=rs.Llama3),
    Known("glm", "interleaved", (0, 64), 128, 1e4),
    Known("codegen", "interleaved", (0, 64), 256, 1e4),
    Known("gptj", "interleaved", (0, 64), 256, 1e4),
    Known("roformer", "interleaved", (0, 64), 64, 1e4),
    Known("cohere", "interleaved", (0, 128), 128, 5e5),
    Known("ernie4_5", "interleaved", (0, 128), 128, 5e5),
    Known("llama4_text", "interleaved", (0, 128), 128, 5e5),
    Known("deepseek_v2", "interleaved", (0, 64), 64, 1e4),
    Known("deepseek_v3", "interleaved", (0, 64), 64, 1e4, output_layout="half"),
    Known("deepseek_v4:main", "interleaved", (448, 512), 512, 1e4),
    Known("deepseek_v4:compress", "interleaved", (448, 512), 512, 16e4),
    Known("wav2vec2-conformer", "half", (0, 64), 64, 1e4),
    Known("qwen2_vl_vision", "half", (0, 80), 80, None, schedule=rs.Explicit),
]


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_known_conventions(known: Known) -> None:
    one = built(known.name)
    found = identify(one.target, verify=False)
    assert found.is_rotary, found.reason
    assert found.layout == known.layout
    assert found.output_layout == (known.output_layout or known.layout)
    assert found.inverse is known.inverse
    assert found.rotated == tuple(range(*known.rotated))
    assert one.target.head_dim == known.head_dim
    assert isinstance(found.schedule, known.schedule)
    if known.base is not None:
        assert found.base == pytest.approx(known.base, rel=1e-6)
    assert verdict(one, found) in ("yes", "config says nothing")


def test_proportional_lanes_lie_apart() -> None:
    one = built("gemma4_text:full_attention")
    found = identify(one.target, verify=False)
    assert one.target.head_dim == 512
    assert found.rotated == (*range(64), *range(256, 320))
    assert isinstance(found.schedule, rs.Proportional)
    assert verdict(one, found) == "yes"


def test_vjepa2_is_no_rotation() -> None:
    one = built("vjepa2")
    found = identify(one.target)
    assert not found.is_rotary
    assert "not by a rotation" in found.reason
    assert verdict(one, found) == "no: it is not rotary"


def test_two_functions_are_two_targets() -> None:
    """DeepSeek-V3.2 rotates its heads in one layout and its indexer in another."""
    layouts = {
        one.name: identify(one.target, verify=False).layout
        for one in catalog.build("deepseek_v32")
        if isinstance(one, Built)
    }
    assert layouts == {
        "transformers:deepseek_v32:apply_rotary_pos_emb": "half",
        "transformers:deepseek_v32:apply_rotary_pos_emb_interleave": "interleaved",
    }


def test_every_set_of_conventions_is_measured() -> None:
    """`families` keeps sets of model types by hand; the code itself has the last word."""
    half_of_head = {"glm4v_text": {"rope_parameters": {
        "rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.5}}}  # fmt: skip
    types = families.INTERLEAVED | families.INTERLEAVED_TO_HALF | families.INVERSE
    for model_type in sorted((types | families.LAST_LANES) - {"llama4", "llama4_vision_model"}):
        one = catalog.build(model_type, half_of_head.get(model_type))[-1]
        assert isinstance(one, Built), one
        found = identify(one.target, verify=False).closest
        assert found is not None
        layout = "interleaved" if model_type in types - families.INVERSE else "half"
        assert found.layout == layout, model_type
        to_half = model_type in families.INTERLEAVED_TO_HALF
        assert found.output_layout == ("half" if to_half else None), model_type
        assert found.inverse is (model_type in families.INVERSE), model_type
        assert (found.rotary_start > 0) is (model_type in families.LAST_LANES), model_type


class TestModelTypes:
    def test_there_are_many(self) -> None:
        types = catalog.model_types()
        assert len(types) >= 120
        assert types == sorted(set(types))
        assert not {"bert", "gpt2", "gemma3", "llava"} & set(types)

    def test_none_is_missing(self) -> None:
        """Against a plain search: every folder with a rotary class has a model type."""
        pattern = re.compile(r"^class \w*(Rotary|Rope|RoPE)\w*Embedding\b", re.MULTILINE)
        folders = {
            path.parent.name
            for path in models_folder().glob("*/modeling_*.py")
            if pattern.search(path.read_text(encoding="utf-8"))
        }
        found = {catalog.folder_of(model_type) for model_type in catalog.model_types()}
        assert len(folders) >= 120
        assert folders <= found

    def test_rotation_that_the_default_config_turns_off_has_a_row(self) -> None:
        [one] = catalog.build("zamba2")
        assert isinstance(one, Built)
        assert one.config.use_mem_rope is False

    def test_a_wrapper_stands_for_its_parts(self) -> None:
        names = [target.name for target, _ in catalog.targets("gemma3")]
        assert names == [
            "transformers:gemma3_text:full_attention",
            "transformers:gemma3_text:sliding_attention",
        ]

    @pytest.mark.parametrize(
        ("model_type", "said"),
        [
            ("bert", "transformers:bert has no rotary embedding"),
            ("llamma", "'llamma' is not a model type"),
            ("dinov3_vit", "made from pixel_values, not from position ids"),
            ("jamba", "called nowhere"),
            ("lightglue", "tables come from elsewhere"),
            ("llama4_vision_model", "no row per position"),
        ],
    )
    def test_the_others_say_why(self, model_type: str, said: str) -> None:
        with pytest.raises(TargetError, match=said):
            catalog.targets(model_type)


class TestTargets:
    """What the adapter promises about a target, beside its numbers."""

    def test_rows_of_a_batch_have_their_own_positions(self) -> None:
        target = built("pixtral").target  # flat ids of two axes
        assert target.row_positions
        x = np.random.default_rng(0).standard_normal((1, 2, 3, target.head_dim))
        ids = np.array([[4, 0, 9], [0, 9, 4]])
        framework = target.framework
        rotate = target.build()
        both = rotate(
            framework.asarray(np.concatenate([x, x]), "float32"), framework.asarray(ids, "int64")
        )
        for row in range(2):
            alone = rotate(framework.asarray(x, "float32"), framework.asarray(ids[row], "int64"))
            assert np.array_equal(framework.to_numpy(both)[row], framework.to_numpy(alone)[0])

    def test_q_and_k_may_differ_in_heads(self) -> None:
        target = built("llama4_text").target
        assert target.pair is not None
        framework = target.framework
        q = framework.asarray(np.ones((2, 4, 3, target.head_dim)), "float32")
        k = framework.asarray(np.ones((2, 1, 3, target.head_dim)), "float32")
        ids = framework.asarray(np.arange(3), "int64")
        rotated = target.pair()(q, k, ids)
        assert [tuple(t.shape) for t in rotated] == [tuple(q.shape), tuple(k.shape)]
        assert np.array_equal(framework.to_numpy(rotated[0])[:, :1], framework.to_numpy(rotated[1]))

    def test_each_build_is_new(self) -> None:
        one = built("wav2vec2-conformer")  # its module caches tables
        x = one.target.framework.asarray(np.ones((1, 1, 4, 64)), "bfloat16")
        first, second = one.target.build(), one.target.build()
        first(x, None)
        y = second(one.target.framework.asarray(np.ones((1, 1, 4, 64)), "float32"), None)
        fresh = one.target.build()(
            one.target.framework.asarray(np.ones((1, 1, 4, 64)), "float32"), None
        )
        assert np.array_equal(y.numpy(), fresh.numpy())

    def test_the_unbuilt_keep_their_names(self) -> None:
        one = catalog.build("jamba")[0]
        assert isinstance(one, Unbuilt)
        assert one.name == "transformers:jamba"
