"""Broken variants of examples/vectors_python.py: one step of the program is wrong in each.

``bears(case)`` says which cases a fault shows in: they must fail, and no others.
"""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np

import rotary_spec as rs
from tests.vectors.breaking import (
    Fault,
    at_positions,
    axes_changed,
    crossed,
    every,
    float32_angles,
    inverted_llama3,
    kept_lanes,
    magnified,
    misread,
    moved,
    narrow_tables,
    narrowed,
    of_kind,
    other_end,
    over_head_dim,
    over_rotated_part,
    partial,
    scaled_tables,
    schedule,
    through_bfloat16,
    truncated,
    turning,
    with_sections,
)

SWAP = {"interleaved": "half", "half": "interleaved"}
FAULTS: dict[str, Fault] = {
    "layouts swapped": Fault(
        {"lanes": lambda right, this, spec, layout: right(spec, SWAP[layout])},
        lambda c: c.spec.pairs > 1,
        ("y", "dx"),
    ),
    "output layout ignored": Fault(
        {"output_lanes": lambda right, this, spec: this.input_lanes(spec)}, crossed, ("y", "dx")
    ),
    "wrong sign": Fault({"sign": lambda right, this, spec: -right(spec)}, every),
    "inverse ignored": Fault({"sign": lambda right, this, spec: 1.0}, lambda c: c.spec.inverse),
    "positions from 1": Fault(at_positions(lambda p: p + 1), every),
    "positions in float32": Fault(at_positions(narrowed(np.float32)), moved(narrowed(np.float32))),
    "positions in bfloat16": Fault(
        at_positions(narrowed(ml_dtypes.bfloat16)), moved(narrowed(ml_dtypes.bfloat16))
    ),
    "positions modulo 2048": Fault(at_positions(lambda p: p % 2048), moved(lambda p: p % 2048)),
    "negative positions made positive": Fault(at_positions(np.abs), moved(np.abs)),
    "positions in uint32": Fault(
        at_positions(lambda p: p % 2**32 if p.dtype.kind == "i" else p),
        lambda c: c["positions"].dtype.kind == "i" and bool(np.any(c["positions"] < 0)),
    ),
    "coordinates rounded down": Fault(at_positions(np.floor), moved(np.floor)),
    "positions of the first row": Fault(
        at_positions(lambda p: np.broadcast_to(p[:, :1], p.shape) if p.ndim > 2 else p),
        lambda c: c["positions"].ndim > (1 if c.spec.sections is None else 2),
    ),
    "float32 angles": Fault(
        {"angles": float32_angles}, lambda c: turning(c) and c.spec.pairs > 1
    ),  # one pair turns by m radians, which float32 holds
    "phases in 32 bits": Fault(
        {"turns": lambda right, this, case: right(case) >> np.uint64(32) << np.uint64(32)}, turning
    ),
    "another base": Fault(
        misread(lambda s: replace(s, base=s.base * 1.01)),
        lambda c: c.spec.pairs > 1 and not isinstance(c.spec.schedule, rs.Explicit),
    ),
    "exponent over head_dim": Fault(misread(over_head_dim), partial),
    "linear factor twice": Fault(
        schedule(rs.Linear, lambda s, spec: rs.Linear(s.factor**2)), of_kind(rs.Linear)
    ),
    "linear factor ignored": Fault(
        schedule(rs.Linear, lambda s, spec: rs.Default()), of_kind(rs.Linear)
    ),
    "llama3 ramp inverted": Fault(schedule(rs.Llama3, inverted_llama3), of_kind(rs.Llama3)),
    "llama3 low and high factors alike": Fault(
        schedule(rs.Llama3, lambda s, spec: replace(s, low_freq_factor=s.high_freq_factor)),
        of_kind(rs.Llama3),
    ),
    "ntk without its exponent": Fault(
        misread(
            lambda s: (
                replace(s, base=s.base * s.schedule.factor, schedule=rs.Default())
                if isinstance(s.schedule, rs.Ntk)
                else s
            )
        ),
        of_kind(rs.Ntk),
    ),
    "dynamic growth ignored": Fault(
        schedule(rs.DynamicNtk, lambda s, spec: rs.Default()),
        lambda c: isinstance(c.spec.schedule, rs.DynamicNtk) and (c.seq_len or 0) > 2048,
    ),
    "yarn never truncated": Fault(
        schedule(rs.Yarn, lambda s, spec: replace(s, truncate=False)),
        lambda c: isinstance(c.spec.schedule, rs.Yarn) and c.spec.schedule.truncate,
    ),
    "yarn always truncated": Fault(
        schedule(rs.Yarn, lambda s, spec: replace(s, truncate=True)),
        lambda c: isinstance(c.spec.schedule, rs.Yarn) and not c.spec.schedule.truncate,
    ),
    "yarn magnitude ignored": Fault(
        {"magnitude": lambda right, this, case: case["spec"]["attention_factor"] or 1.0},
        lambda c: magnified(c) and c.spec.attention_factor is None,
    ),
    "longrope lists exchanged": Fault(
        schedule(
            rs.LongRope,
            lambda s, spec: replace(s, short_factor=s.long_factor, long_factor=s.short_factor),
        ),
        of_kind(rs.LongRope),
    ),
    "longrope switches at L": Fault(
        schedule(
            rs.LongRope,
            lambda s, spec: replace(
                s, original_max_position_embeddings=s.original_max_position_embeddings - 1
            ),
        ),
        lambda c: isinstance(c.spec.schedule, rs.LongRope) and c.seq_len == 4096,
    ),
    "proportional exponent over the rotated part": Fault(
        schedule(rs.Proportional, over_rotated_part), of_kind(rs.Proportional)
    ),
    "magnitude twice": Fault({"table": scaled_tables(1)}, magnified),
    "magnitude forgotten": Fault({"table": scaled_tables(-1)}, magnified),
    "other end of the head rotated": Fault(
        {"lanes": other_end},
        lambda c: c.spec.head_dim - c.spec.rotary_dim != 2 * c.spec.rotary_start,
        ("y", "dx"),
    ),
    "copied lanes rounded": Fault(
        {"outputs": kept_lanes(lambda y, a: y.astype(ml_dtypes.bfloat16))}, partial, ("y", "dx")
    ),
    "copied lanes scaled": Fault(
        {"outputs": kept_lanes(lambda y, a: y * a)},
        lambda c: partial(c) and magnified(c),
        ("y", "dx"),
    ),
    "bfloat16 truncated": Fault({"rounded": truncated}, every, ("y_bfloat16", "dx_bfloat16")),
    "float16 by way of bfloat16": Fault(
        {"rounded": through_bfloat16}, every, ("y_float16", "dx_float16")
    ),
    "tables in bfloat16": Fault({"table": narrow_tables}, turning),
    "gradient rotates forwards": Fault(
        {
            "rotate_back": lambda right, this, g, cos, sin, reads, writes: this.rotate(
                g, cos, sin, writes, reads
            )
        },
        turning,
        ("dx",),
    ),
    "gradient with layouts not exchanged": Fault(
        {
            "rotate_back": lambda right, this, g, cos, sin, reads, writes: this.rotate(
                g, cos, -sin, reads, writes
            )
        },
        crossed,
        ("dx",),
    ),
    "axes in the wrong order": Fault(
        at_positions(lambda p: p[::-1]), lambda c: c.spec.sections is not None
    ),
    "every order taken for chunked": Fault(
        {"axes": axes_changed(lambda s: {**s, "order": "chunked"})},
        lambda c: c.spec.sections is not None and c.spec.sections.order != "chunked",
    ),
    "frequencies do not restart": Fault(
        misread(
            lambda s: (
                replace(s, sections=replace(s.sections, frequencies="shared"))
                if s.sections and s.sections.frequencies == "restart"
                else s
            )
        ),
        with_sections(frequencies="restart"),
    ),
    "strided frequencies shared": Fault(
        misread(
            lambda s: (
                replace(s, sections=replace(s.sections, frequencies="shared"))
                if s.sections and s.sections.frequencies == "strided"
                else s
            )
        ),
        with_sections(frequencies="strided"),
    ),
    "pairing across axes": Fault(
        {"blocks": lambda right, this, spec: [spec["rotary_dim"] // 2]},
        with_sections(pairing="within"),
        ("y", "dx"),
    ),
}
