"""Which cases there are: specs, positions and shapes. `generate` computes them.

A case costs about 44 bytes per lane and row, so heads are narrow except where width is the point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import rotary_spec as rs
from rotary_spec import RotarySpec, Schedule, Sections


@dataclass(frozen=True)
class Definition:
    """A case before it is computed.

    Attributes
    ----------
    id : str
        Lower-case words; the prefix of the case's tensors.
    spec : RotarySpec
    positions : nested list of int or float
        Shape (seq,), with sections (axes, seq); broadcasts against ``rows``.
    rows : tuple of int
        x.shape[:-1].
    seq_len : int or None
    """

    id: str
    spec: RotarySpec
    positions: Any
    rows: tuple[int, ...]
    seq_len: int | None = None


CROSSINGS: dict[str, dict[str, Any]] = {
    "interleaved": {"layout": "interleaved"},
    "half": {"layout": "half"},
    "to-half": {"layout": "interleaved", "output_layout": "half"},
    "to-interleaved": {"layout": "half", "output_layout": "interleaved"},
}
LAYOUTS = {name: CROSSINGS[name] for name in ("interleaved", "half")}
POSITIONS = {
    "small": [0, 1, 2, 3, 4, 5, 6, 7],
    "2p8": [255, 256, 257, 258, 259],  # where bfloat16 stops holding integers
    "2p11": [2047, 2048, 2049, 2051],  # and float16
    "2p15": [32767, 32768, 32769, 65535, 65536],
    "2p17": [131071, 131072, 131073, 131075],
    "2p20": [1048575, 1048576, 1048577],
    "2p24": [16777215, 16777216, 16777217, 16777219],  # and float32
    "2p31": [2147483647, 2147483646, 2147483519],
    "negative": [-1, -2, -7, -257, -131073, -16777217, -2147483648],
}
MIXED = [0, 1, 7, 257, 131073, -5]


def definitions() -> Iterator[Definition]:
    """Every case, in the order of the files."""
    for family in (_widths, _positions, _schedules, _partial, _signs, _shapes, _axes, _models):
        yield from family()


def _case(
    name: str, spec: RotarySpec, positions: Any = MIXED, seq_len: int | None = None, **other: Any
) -> Definition:
    row = positions if spec.sections is None else positions[0]
    return Definition(name, spec, positions, other.get("rows") or (len(row),), seq_len)


def _widths() -> Iterator[Definition]:
    for head_dim in (2, 4, 6, 8, 16, 32, 64, 80, 128, 256):
        ids = MIXED if head_dim <= 32 else [0, 5, 131073]
        for name, layouts in CROSSINGS.items():
            yield _case(f"width-{head_dim}-{name}", RotarySpec(head_dim, **layouts), ids)


def _positions() -> Iterator[Definition]:
    for at, ids in POSITIONS.items():
        for name, layouts in LAYOUTS.items():
            yield _case(f"position-{at}-{name}", RotarySpec(8, **layouts), ids)
            spec = RotarySpec(12, base=5e5, rotary_dim=8, rotary_start=4, **layouts)
            yield _case(f"position-{at}-{name}-last", spec, ids)


_LONG_LISTS: dict[str, Any] = {
    "short_factor": (1.0, 1.05, 1.2, 1.5, 2.0, 2.75, 3.5, 4.0),
    "long_factor": (1.0, 1.25, 2.5, 6.0, 14.0, 30.0, 48.0, 64.0),
}
SCHEDULES: dict[str, tuple[Schedule, dict[str, Any]]] = {
    "default-base-1e6": (rs.Default(), {"base": 1e6}),
    "default-base-150": (rs.Default(), {"base": 150.0}),
    "default-base-below-1": (rs.Default(), {"base": 0.5}),
    "linear-4": (rs.Linear(4.0), {}),
    "linear-2p5": (rs.Linear(2.5), {"base": 1e6}),
    "llama3-8": (rs.Llama3(8.0, 1.0, 4.0, 8192), {"base": 5e5}),
    "llama3-32": (rs.Llama3(32.0, 1.0, 4.0, 8192), {"base": 5e5}),
    "llama3-short": (rs.Llama3(4.0, 1.0, 32.0, 256), {}),
    "ntk-8": (rs.Ntk(8.0), {}),
    "dynamic-within": (rs.DynamicNtk(2.0, 2048), {"seq_len": 2048}),
    "dynamic-one-beyond": (rs.DynamicNtk(2.0, 2048), {"seq_len": 2049}),
    "dynamic-beyond": (rs.DynamicNtk(2.0, 2048), {"seq_len": 32768}),
    "dynamic-no-length": (rs.DynamicNtk(4.0, 2048), {}),
    "yarn-4": (rs.Yarn(4.0, 32768), {"base": 1e6}),
    "yarn-16-short": (rs.Yarn(16.0, 256), {}),
    "yarn-untruncated": (rs.Yarn(32.0, 4096, truncate=False), {"base": 15e4}),
    "yarn-betas": (rs.Yarn(8.0, 2048, beta_fast=16.0, beta_slow=2.0), {}),
    "yarn-attention-factor": (rs.Yarn(4.0, 4096, attention_factor=1.5), {}),
    "yarn-mscale": (rs.Yarn(40.0, 4096, mscale=0.707, mscale_all_dim=1.0), {}),
    "yarn-mscale-equal": (rs.Yarn(40.0, 4096, mscale=1.0, mscale_all_dim=1.0), {}),
    "longrope-at-switch": (
        rs.LongRope(**_LONG_LISTS, original_max_position_embeddings=4096, factor=32.0),
        {"seq_len": 4096},
    ),
    "longrope-past-switch": (
        rs.LongRope(**_LONG_LISTS, original_max_position_embeddings=4096, factor=32.0),
        {"seq_len": 4097},
    ),
    "longrope-no-length": (
        rs.LongRope(**_LONG_LISTS, original_max_position_embeddings=4096, attention_factor=1.25),
        {},
    ),
    "proportional-quarter": (rs.Proportional(0.25), {"base": 1e6}),
    "proportional-half": (rs.Proportional(0.5, factor=8.0), {}),
    "explicit": (rs.Explicit((1.0, 0.75, 0.5, 0.1, 0.01, 1e-3, 1e-6, 0.0)), {}),
}


def _schedules() -> Iterator[Definition]:
    for scheme, (schedule, fields) in SCHEDULES.items():
        given = {key: value for key, value in fields.items() if key != "seq_len"}
        for name, layouts in LAYOUTS.items():
            spec = RotarySpec(16, schedule=schedule, **given, **layouts)
            yield _case(f"{scheme}-{name}", spec, seq_len=fields.get("seq_len"))


def _partial() -> Iterator[Definition]:
    for end, start in {"first": 0, "middle": 3, "last": 8}.items():
        for name, layouts in CROSSINGS.items():
            spec = RotarySpec(14, rotary_dim=6, rotary_start=start, **layouts)
            yield _case(f"partial-{end}-{name}", spec)
        for scheme in ("linear-4", "llama3-short"):
            schedule = SCHEDULES[scheme][0]
            spec = RotarySpec(14, rotary_dim=6, rotary_start=start, schedule=schedule)
            yield _case(f"partial-{end}-{scheme}", spec)


def _signs() -> Iterator[Definition]:
    for name, layouts in CROSSINGS.items():
        plain = RotarySpec(8, **layouts)
        yield _case(f"inverse-{name}", replace(plain, inverse=True))
        for factor, label in ((0.5, "half"), (1.2, "1p2"), (2.0, "2")):
            spec = replace(plain, attention_factor=factor, rotary_dim=6)
            yield _case(f"magnitude-{label}-{name}", spec)
    everything = RotarySpec(
        16, base=5e5, layout="half", output_layout="interleaved", rotary_dim=12, rotary_start=2,
        schedule=rs.Llama3(8.0, 1.0, 4.0, 8192), attention_factor=1.3, inverse=True,
    )  # fmt: skip
    yield _case("everything-at-once", everything)
    yield _case("everything-far", everything, POSITIONS["2p24"])


def _shapes() -> Iterator[Definition]:
    for name, layouts in LAYOUTS.items():
        spec = RotarySpec(6, **layouts)
        yield _case(f"per-row-{name}", spec, [[[0, 1, 2]], [[7, 257, -3]]], rows=(2, 2, 3))
        yield _case(f"shared-row-{name}", spec, [3, 131073], rows=(2, 2, 2))
        yield _case(f"one-position-{name}", spec, [4097], rows=(1,))


_GRID = [
    [0, 1, 2, 300, 300, -4],
    [0, 5, 2, 301, 16, 3],
    [0, 3, 7, 302, 131073, -9],
    [1, 0, 2, 4, 6, 8],
]
# Pixel centres, [-1, 1], thirds in float32, and a large one: each is exact in float32.
_COORDINATES = [
    [0.5, 1.5, -0.75, 0.3333333432674408, 100.25, 4096.5],
    [2.5, 0.5, 0.25, 0.6666666865348816, -31.5, 0.125],
    [0.0, 3.5, -0.984375, 0.10000000149011612, 7.75, -1000.125],
]
_ORDERS: dict[str, tuple[int, Sections]] = {
    "chunked-two": (12, Sections((4, 2))),
    "chunked-three": (16, Sections((2, 3, 3))),
    "chunked-four": (16, Sections((3, 2, 2, 1))),
    "chunked-restart": (12, Sections((4, 2), frequencies="restart")),
    "chunked-restart-three": (16, Sections((2, 3, 3), frequencies="restart")),
    "chunked-strided": (16, Sections((4, 4), frequencies="strided")),
    "chunked-strided-three": (12, Sections((2, 2, 2), frequencies="strided")),
    "interleaved": (16, Sections((4, 2, 2), order="interleaved")),
    "interleaved-equal": (12, Sections((2, 2, 2), order="interleaved")),
    "interleaved-restart": (8, Sections((2, 1, 1), order="interleaved", frequencies="restart")),
    "spatial-first": (16, Sections((4, 2, 2), order="spatial_first")),
    "spatial-first-restart": (8, Sections((2, 1, 1), "spatial_first", "restart")),
}  # fmt: skip


def _axes() -> Iterator[Definition]:
    for scheme, (head_dim, sections) in _ORDERS.items():
        for name, layouts in CROSSINGS.items():
            spec = RotarySpec(head_dim, sections=sections, **layouts)
            yield _case(f"axes-{scheme}-{name}", spec, _GRID[: sections.axes])
    for name in ("half", "to-half", "to-interleaved"):
        for frequencies in ("shared", "restart"):
            within = Sections((2, 3), frequencies=frequencies, pairing="within")
            spec = RotarySpec(12, rotary_dim=10, sections=within, **CROSSINGS[name])
            yield _case(f"axes-within-{frequencies}-{name}", spec, _GRID[:2])
    for scheme in ("chunked-three", "chunked-restart", "chunked-strided", "interleaved"):
        head_dim, sections = _ORDERS[scheme]
        spec = RotarySpec(head_dim, base=100.0, layout="half", sections=sections)
        yield _case(f"coordinates-{scheme}", spec, _COORDINATES[: sections.axes])
    within = Sections((2, 2), frequencies="restart", pairing="within")
    spec = RotarySpec(8, layout="half", sections=within)
    yield _case("coordinates-within", spec, _COORDINATES[:2])
    # [-1, 1] times 2 pi and more, as in DINOv3
    fast = rs.Explicit((6.283185307179586, 12.566370614359172, 3.5, 25.0))
    spec = RotarySpec(8, layout="half", sections=Sections((2, 2)), schedule=fast, inverse=True)
    yield _case("coordinates-fast", spec, _COORDINATES[:2])
    linear = RotarySpec(
        12, sections=Sections((2, 2)), rotary_dim=8, rotary_start=4, schedule=rs.Linear(4.0)
    )
    yield _case("axes-linear-last", linear, _GRID[:2])
    grid = [[[[0, 1]], [[5, 6]]], [[[2, 3]], [[9, 257]]]]
    yield _case("axes-per-row", RotarySpec(8, sections=Sections((2, 2))), grid, rows=(2, 2, 2))


def _models() -> Iterator[Definition]:
    """Shapes of published models; the two LongRoPE lists are made up."""
    half: dict[str, Any] = {"layout": "half"}
    ids = [1, 4095, 131071]
    llama = rs.Llama3(8.0, 1.0, 4.0, 8192)
    yield _case("model-llama-2", RotarySpec(128, **half), ids)
    yield _case("model-llama-3.1", RotarySpec(128, base=5e5, schedule=llama, **half), ids)
    yield _case("model-llama-3.1-meta", RotarySpec(128, base=5e5, schedule=llama), ids)
    yield _case("model-gpt-j", RotarySpec(256, rotary_dim=64), ids)
    yield _case("model-gpt-neox", RotarySpec(96, rotary_dim=24, **half), ids)
    yield _case("model-chatglm", RotarySpec(128, rotary_dim=64), ids)
    yarn = rs.Yarn(40.0, 4096, mscale=1.0, mscale_all_dim=1.0)
    spec = RotarySpec(192, rotary_dim=64, rotary_start=128, schedule=yarn, output_layout="half")
    yield _case("model-deepseek-v3", spec, ids)
    untruncated = rs.Yarn(32.0, 4096, truncate=False)
    yield _case("model-gpt-oss", RotarySpec(64, base=15e4, schedule=untruncated, **half), ids)
    yield _case(
        "model-qwen2.5-yarn", RotarySpec(128, base=1e6, schedule=rs.Yarn(4.0, 32768), **half), ids
    )
    lists: dict[str, Any] = {
        "short_factor": tuple(1 + i / 32 for i in range(48)),
        "long_factor": tuple(1 + i * i / 36 for i in range(48)),
    }
    phi = rs.LongRope(**lists, original_max_position_embeddings=4096, factor=32.0)
    for label, length in {"short": 4096, "long": 4097}.items():
        yield _case(f"model-phi-3-{label}", RotarySpec(96, schedule=phi, **half), ids, length)
    mrope = [[1, 4095, 4100], [1, 4095, 4107], [1, 4095, 4121]]
    spec = RotarySpec(128, base=1e6, sections=Sections((16, 24, 24)), **half)
    yield _case("model-qwen2-vl", spec, mrope)
    interleaved = Sections((24, 20, 20), order="interleaved")
    spec = RotarySpec(128, base=5e6, sections=interleaved, **half)
    yield _case("model-qwen3-vl", spec, mrope)
    ernie = Sections((20, 22, 22), order="spatial_first")
    yield _case("model-ernie-4.5-vl", RotarySpec(128, base=5e5, sections=ernie), mrope)
    rows = Sections((20, 20), frequencies="restart")
    yield _case("model-qwen2-vl-vision", RotarySpec(80, sections=rows, **half), mrope[1:])
    pixtral = Sections((16, 16), frequencies="strided")
    yield _case("model-pixtral", RotarySpec(64, sections=pixtral, **half), mrope[1:])
    flux = Sections((8, 28, 28), frequencies="restart")
    yield _case("model-flux", RotarySpec(128, sections=flux), mrope)
    proportional = rs.Proportional(0.25)
    yield _case(
        "model-gemma-4-global", RotarySpec(256, base=1e6, schedule=proportional, **half), ids
    )
