"""What transformers' code does that a config does not say, by model type.

A config gives numbers. Which lanes form a pair, in which direction they turn, what is taken where
a key is missing, and which coordinate turns which pair is written in the model's code. Every table
here is held against the code of the installed release by a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from rotary_spec.sections import Order, Pairing, SectionFrequencies

INTERLEAVED = frozenset({
    "blt_global_transformer", "blt_local_decoder", "blt_local_encoder", "blt_patcher", "codegen",
    "cohere", "cohere2", "cohere2_moe", "deepseek_v2", "deepseek_v4", "edgetam_video", "ernie4_5",
    "ernie4_5_moe", "ernie4_5_vl_moe_text", "glm", "glm4", "glm4v_text", "glm_ocr_text", "gptj",
    "helium", "inkling2_vision", "llama4", "llama4_text", "llama4_vision_model", "moonshine",
    "moonshine_streaming", "openai_privacy_filter", "pe_audio_encoder", "pe_audio_video_encoder",
    "pe_video_encoder", "roformer", "sam2_video", "sam3_tracker_video", "sam3_vit_model",
})  # fmt: skip
"""Model types whose transformers code rotates neighbouring lanes."""

INTERLEAVED_TO_HALF = frozenset({
    "axk1", "axk2", "bailing_hybrid", "deepseek_v3", "deepseek_v32", "dots3_note_text",
    "glm4_moe_lite", "glm_moe_dsa", "longcat_flash", "mistral4", "mistral_large4_text", "youtu",
})  # fmt: skip
"""Model types whose code takes neighbouring lanes and gives halves: DeepSeek-V3 and its kin.

Those that have a ``rope_interleave`` do so where it is true."""

INVERSE = frozenset({"nanochat"})
"""Model types whose code rotates by -m theta."""

LAST_LANES = frozenset({"deepseek_v4"})
"""Model types whose code rotates the last lanes of a head, not the first."""

FIXED_BASE = frozenset({"codegen", "gptj", "roformer"})
"""Model types whose code has 10000 written in it."""

BASES = MappingProxyType({
    **dict.fromkeys(("dinov3_vit", "eomt_dinov3", "gemma4_vision"), 100.0),
    "nomic_bert": 1000.0,
    "musicflamingo": 1200.0,
    **dict.fromkeys(("jina_embeddings_v3", "pe_audio_encoder", "pe_audio_video_encoder",
                     "pe_video_encoder"), 20_000.0),
    "fuyu": 25_000.0,
    "helium": 100_000.0,
    **dict.fromkeys(("gpt_oss", "openai_privacy_filter"), 150_000.0),
    "gte": 160_000.0,
    **dict.fromkeys((
        "bitnet", "blt", "blt_global_transformer", "blt_local_decoder", "blt_local_encoder",
        "cohere", "csm", "csm_depth_decoder_model", "ernie4_5", "ernie4_5_moe",
        "ernie4_5_vl_moe_text", "evolla", "flex_olmo", "llama4_text", "mllama_text_model",
        "muse_glimmer_assistant", "olmo3", "paddleocr_vl_text", "qwen3_vl_moe_text",
        "qwen3_vl_text",
    ), 500_000.0),
    **dict.fromkeys((
        "cwm", "emu3_text_model", "lfm2", "lfm2_moe", "lfm3", "lfm3_vl_vision", "minimax",
        "mixtral", "phimoe", "qwen2_5_omni_talker", "qwen2_5_omni_text", "qwen2_5_vl_text",
        "qwen2_vl_text", "qwen3_omni_moe_text", "solar_open",
    ), 1_000_000.0),
    "smollm3": 2_000_000.0,
    **dict.fromkeys(("minimax_m2", "minimax_m3_vl_text"), 5_000_000.0),
    "longcat_flash": 10_000_000.0,
    "hy_v3": 11_158_840.0,
    "apertus": 12_000_000.0,
    "dots3_note_text": 80_000_000.0,
    "cosmos3_edge_text": 100_000_000.0,
})  # fmt: skip
"""The base where a config gives none, if it is not the paper's 10000."""

BASES_OF_LAYERS: Mapping[str, tuple[float, float | None]] = MappingProxyType({
    **dict.fromkeys(("gemma3_text", "gemma3n_text", "t5gemma2_decoder", "t5gemma2_text"),
                    (1_000_000.0, 10_000.0)),
    **dict.fromkeys(("modernbert", "modernbert-decoder"), (160_000.0, 10_000.0)),
    "olmo3": (500_000.0, None),
})  # fmt: skip
"""Full and sliding attention's base where a flat config gives none; None: the same for both.

These have a schedule per layer type, also where their config is of the flat spelling."""

SCALES_SLIDING = frozenset({"modernbert", "modernbert-decoder"})
"""Those of them whose flat ``rope_scaling`` is that of the sliding layers too."""

PARTS = MappingProxyType({
    "musicflamingo": 0.2,
    **dict.fromkeys(("gpt_neox", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "stablelm"),
                    0.25),
    **dict.fromkeys((
        "bamba", "dots3_note_audio_encoder", "glm", "glm4", "glm4_moe", "glm4v_moe_text",
        "glmasr_encoder", "nemotron", "nemotron3_5_transcribe_asr_audio",
        "nemotron3_5_transcribe_word_timestamp", "persimmon", "phi", "recurrent_gemma",
    ), 0.5),
    "moonshine_streaming": 0.8,
    "moonshine": 0.9,
    "efficientloftr": 4.0,
})  # fmt: skip
"""The rotated share of a head where a config gives none, if it is not the whole."""

HUNYUAN = frozenset({"hunyuan_v1_dense", "hunyuan_v1_moe", "hunyuan_vl_text"})
"""Model types in which ``alpha`` beside ``rope_type: dynamic`` means a fixed base (`Ntk`)."""

LONGROPE_NAMES = MappingProxyType({
    "phi3": ("su", "yarn"), "phi4_multimodal": ("su", "yarn"), "phimoe": ("su",),
})  # fmt: skip
"""Earlier names of ``rope_type: longrope``."""

TWO_MAGNITUDES = frozenset({"phimoe"})
"""Model types whose LongRoPE takes ``short_mscale`` and ``long_mscale`` for its magnitude."""

SOFTMAX_MSCALE = frozenset({
    "axk1", "axk2", "bailing_hybrid", "deepseek_v2", "deepseek_v3", "deepseek_v32",
    "glm4_moe_lite", "glm_moe_dsa", "hy_v4", "longcat_flash", "minicpm3", "mistral4",
    "mistral_large4_text", "youtu",
})  # fmt: skip
"""Model types whose softmax scale grows by m(factor, mscale_all_dim)^2."""


class Axes(NamedTuple):
    """How a model type deals its pairs out to the axes of its positions.

    ``sizes`` stands in for an absent ``mrope_section``, in the config's order; an empty one means
    equal sizes. ``number`` is the number of axes.
    """

    order: Order = "chunked"
    frequencies: SectionFrequencies = "shared"
    sizes: tuple[int, ...] = ()
    pairing: Pairing = "across"
    number: int = 3


_QWEN2, _QWEN3 = Axes(sizes=(16, 24, 24)), Axes("interleaved", sizes=(24, 20, 20))
_GLM, _QWEN35 = Axes(sizes=(8, 12, 12)), Axes("interleaved", sizes=(11, 11, 10))

MROPE = MappingProxyType({
    **dict.fromkeys(("paddleocr_vl_text", "qwen2_5_omni_talker", "qwen2_5_omni_text",
                     "qwen2_5_vl", "qwen2_5_vl_text", "qwen2_vl", "qwen2_vl_text"), _QWEN2),
    **dict.fromkeys(("glm4v_moe_text", "glm4v_text", "glm_image_text", "glm_ocr_text"), _GLM),
    **dict.fromkeys(("cohere_compass_text", "cosmos3_edge_text", "qwen3_omni_moe_text",
                     "qwen3_vl_moe_text", "qwen3_vl_text"), _QWEN3),
    **dict.fromkeys(("qwen3_5_moe_text", "qwen3_5_text", "qwen4_exp_text"), _QWEN35),
    "ernie4_5_vl_moe_text": Axes("spatial_first", sizes=(22, 22, 20)),
    "neomme": Axes("interleaved", number=2),  # (row, column); it has no mrope_section
})  # fmt: skip
"""Text models whose positions are (time, row, column).

Ernie's section counts row, column, time; every other one time, row, column."""

NO_ROTATION = MappingProxyType({
    "hunyuan_vl_text": "its code deals out lanes, not pairs: the two lanes of a pair turn by "
    "different positions, which is no rotation",
})  # fmt: skip
"""Model types whose code does with ``mrope_section`` what no spec can say, and why."""

_RESTART = Axes(frequencies="restart", number=2)
AXIAL = MappingProxyType({
    **dict.fromkeys((
        "cohere_compass_vision", "dots3_note_vision_encoder", "ernie4_5_vl_moe_vision",
        "exaone4_5_vision", "glm4v_moe_vision", "glm4v_vision", "glm5_next_vision",
        "glm_ocr_vision", "lfm3_vl_vision", "mlcd_vision_model", "muse_glimmer_vision",
        "muse_spark_vision", "paddleocr_vl_vision", "qwen2_5_omni_vision_encoder",
        "qwen2_5_vl_vision", "qwen2_vl_vision", "qwen3_5_moe_vision", "qwen3_5_vision",
        "qwen3_omni_moe_vision_encoder", "qwen3_vl_moe_vision", "qwen3_vl_vision",
        "qwen4_exp_vision", "sam3_vit_model", "video_llama_3_vision",
    ), _RESTART),
    # Positions are (row, column) times 2 pi, of patch centres in [-1, 1].
    "dinov3_vit": _RESTART,
    # Positions are (column, row).
    "inkling2_vision": _RESTART,
    "llama4_vision_model": _RESTART,
    "step3p5_vision": _RESTART,
    "kimi_k25_vision": Axes("interleaved", "restart", number=2),
    "pixtral": Axes(frequencies="strided", number=2),
    "gemma4_vision": Axes(frequencies="restart", pairing="within", number=2),
    # (time, row, column), over the 6 floor(head_dim / 6) first lanes.
    "minimax_m3_vl_vision": Axes(frequencies="restart"),
})  # fmt: skip
"""Vision models that rotate by (row, column), or by what is said here."""
