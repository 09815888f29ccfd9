"""Rotary embeddings on several axes: right ones in the styles of models, and broken ones.

Written from what the models' code does, sharing nothing with the library. For the faulty ones see
`zoo_broken`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import rotary_spec as rs
from rotary_spec import Sections
from tests.conformance.zoo_parts import Broken, faults_into

BROKEN: dict[str, Broken] = {}
fault = faults_into(BROKEN)

CHUNKED = rs.RotarySpec(24, layout="half", sections=(4, 5, 3))
INTERLEAVED = rs.RotarySpec(24, layout="half", sections=Sections((4, 4, 4), "interleaved"))
SATURATED = rs.RotarySpec(24, layout="half", sections=Sections((6, 3, 3), "interleaved"))
ERNIE = rs.RotarySpec(24, base=5e5, sections=Sections((4, 4, 4), "spatial_first"))
VISION = rs.RotarySpec(24, layout="half", sections=Sections((6, 6), frequencies="restart"))
PIXTRAL = rs.RotarySpec(24, sections=Sections((6, 6), frequencies="strided"))
FLUX = rs.RotarySpec(24, sections=Sections((2, 5, 5), frequencies="restart"))
WITHIN = rs.RotarySpec(
    24,
    base=100.0,
    layout="half",
    sections=Sections((6, 6), frequencies="restart", pairing="within"),
)
_PERIODS = 2 * math.pi / 100.0 ** (np.arange(6) / 6)
DINO = rs.RotarySpec(
    24, layout="half", sections=(6, 6), schedule=rs.Explicit(tuple(_PERIODS.tolist()) * 2)
)


def theta(dim: int, base: float = 10_000.0) -> torch.Tensor:
    return base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)


def by_rows(angle: torch.Tensor) -> torch.Tensor:
    """Angles of (seq, pairs) or (batch, seq, pairs) beside (batch, heads, seq, pairs)."""
    return angle if angle.ndim == 2 else angle[:, None]


def halves(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    a, b = x.float().chunk(2, -1)
    cos, sin = by_rows(angle).cos().float(), by_rows(angle).sin().float()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def neighbours(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    a, b = x.float()[..., 0::2], x.float()[..., 1::2]
    cos, sin = by_rows(angle).cos().float(), by_rows(angle).sin().float()
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2).to(x.dtype)


def every_axis(positions: torch.Tensor, dim: int = 24, base: float = 10_000.0) -> torch.Tensor:
    """Angles of all pairs on every axis, (axes, ..., pairs)."""
    return positions[..., None].double() * theta(dim, base)


def chunks(angle: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """The first pairs from axis 0, the next from axis 1, ..."""
    return torch.cat([part[i] for i, part in enumerate(angle.split(sizes, -1))], -1)


# Right ones -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Right:
    implementation: Any
    spec: rs.RotarySpec
    options: dict[str, Any] = field(default_factory=dict)


RIGHT: dict[str, Right] = {}


def meets(spec: rs.RotarySpec, **options: Any) -> Any:
    def enter(implementation: Any) -> Any:
        RIGHT[implementation.__name__] = Right(implementation, spec, options)
        return implementation

    return enter


def apply_tables(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Any:
    """Transformers' apply_rotary_pos_emb, in float32."""

    def turn(x: torch.Tensor) -> torch.Tensor:
        a, b = x.float().chunk(2, -1)
        return (x.float() * cos[:, None] + torch.cat([-b, a], -1) * sin[:, None]).to(x.dtype)

    return turn(q), turn(k)


@meets(CHUNKED, apply=apply_tables, factory=True)
class QwenTwoText(torch.nn.Module):
    """Tables of full width for each axis, whose sections are cut out after cos and sin."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inv_freq", theta(24).float(), persistent=False)

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        frequencies = self.inv_freq[None, None, :, None].expand(3, position_ids.shape[1], -1, 1)
        angle = (frequencies @ position_ids[:, :, None].float()).transpose(2, 3)
        angle = torch.cat([angle, angle], -1)
        sections = (4, 5, 3) * 2
        return tuple(
            torch.cat([part[i % 3] for i, part in enumerate(t.split(sections, -1))], -1)
            for t in (angle.cos(), angle.sin())
        )


def _overwritten(positions: torch.Tensor, sizes: tuple[int, int, int]) -> torch.Tensor:
    every = every_axis(positions)
    angle = every[0].clone()
    for axis in (1, 2):
        place = slice(axis, 3 * sizes[axis], 3)
        angle[..., place] = every[axis][..., place]
    return angle


@meets(INTERLEAVED, row_positions=True)
def qwen_three_text(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return halves(x, _overwritten(positions, (4, 4, 4)))


@meets(SATURATED, row_positions=True)
def qwen_three_text_where_time_takes_the_rest(
    x: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    return halves(x, _overwritten(positions, (6, 3, 3)))


def _ernie(positions: torch.Tensor, time: int = 0, row: int = 1, column: int = 2) -> torch.Tensor:
    """Frequencies of even and odd places for rows and columns, interleaved again, then time."""
    inv_freq = theta(24, 5e5)
    m = positions[..., None].double()
    rows, columns = m[row] * inv_freq[:8:2], m[column] * inv_freq[1:8:2]
    return torch.cat([torch.stack([rows, columns], -1).flatten(-2), m[time] * inv_freq[8:]], -1)


@meets(ERNIE, row_positions=True)
def ernie_text(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return neighbours(x, _ernie(positions))


@meets(VISION, axis_order="last")
def qwen_two_vision(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Positions of shape (patches, 2), the same frequencies for rows and columns."""
    return halves(x, (positions[..., None].double() * theta(12)).flatten(-2))


@meets(PIXTRAL, axis_order="last", row_positions=True)
def pixtral_vision(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The even frequencies for rows, the odd ones for columns, in complex numbers."""
    inv_freq = theta(24)
    angle = torch.cat([positions[..., i, None].double() * inv_freq[i::2] for i in (0, 1)], -1)
    table = by_rows(torch.polar(torch.ones_like(angle), angle))
    turned = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous()) * table
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


@meets(FLUX, axis_order="last", coordinates=True, dtypes=("float32", "bfloat16"))
def flux_transformer(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Ids of shape (seq, 3); 2 x 2 matrices, one axis after the other."""
    angle = torch.cat(
        [positions[..., i, None].double() * theta(dim) for i, dim in enumerate((4, 10, 10))], -1
    )
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2)).float()
    pairs = x.float().unflatten(-1, (-1, 1, 2))
    return (matrix[..., 0] * pairs[..., 0] + matrix[..., 1] * pairs[..., 1]).flatten(-2).to(x.dtype)


@meets(WITHIN, axis_order="last", row_positions=True)
def gemma_four_vision(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Each axis turns a half of the head by itself."""
    parts = [
        halves(part, positions[..., i, None].double() * theta(12, 100.0))
        for i, part in enumerate(x.chunk(2, -1))
    ]
    return torch.cat(parts, -1)


@meets(DINO, axis_order="last", coordinates=True)
def dino_three_vision(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """2 pi times patch centres, over periods."""
    angle = 2 * math.pi * positions[..., None].double() / 100.0 ** (torch.arange(6).double() / 6)
    return halves(x, angle.flatten(-2))


@meets(FLUX, coordinates=True)
def numpy_axis_by_axis(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    y, first = x.astype(np.float64), 0
    for coordinate, pairs in zip(positions, (2, 5, 5), strict=True):
        for j in range(pairs):
            angle = coordinate * 10_000.0 ** (-j / pairs)
            lanes = y[..., first : first + 2] @ np.eye(2)  # a copy
            cos, sin = np.cos(angle), np.sin(angle)
            y[..., first] = lanes[..., 0] * cos - lanes[..., 1] * sin
            y[..., first + 1] = lanes[..., 1] * cos + lanes[..., 0] * sin
            first += 2
    return y.astype(x.dtype)


def numpy_given_tables(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """cos and sin of full width, each block of lanes by itself."""
    first, second = np.split(x.reshape(*x.shape[:-1], 2, 12), 2, axis=-1)
    turned = np.concatenate([-second, first], -1).reshape(x.shape)
    return (x * cos + turned * sin).astype(x.dtype)


meets(WITHIN)(numpy_given_tables)


# Broken ones ----------------------------------------------------------------------------------


@fault("AXIS-1", "axes 1 and 2 are exchanged", CHUNKED, axes=3, row_positions=True)
def height_and_width_swapped(x, positions):
    return halves(x, chunks(every_axis(positions[[0, 2, 1]]), (4, 5, 3)))


@fault("AXIS-1", "axes 0 and 2 are exchanged", CHUNKED, axes=3, row_positions=True)
def axes_in_the_opposite_order(x, positions):
    return halves(x, chunks(every_axis(positions.flip(0)), (4, 5, 3)))


@fault("AXIS-1", "taken in the order 1, 2, 0", CHUNKED, axes=3, row_positions=True)
def time_expected_last(x, positions):
    """Ids of (h, w, t) in a model that stacks (t, h, w)."""
    return halves(x, chunks(every_axis(positions.roll(-1, 0)), (4, 5, 3)))


@fault("AXIS-1", "this is the chunked order", INTERLEAVED, axes=3, row_positions=True)
def chunked_for_interleaved(x, positions):
    return halves(x, chunks(every_axis(positions), (4, 4, 4)))


@fault("AXIS-1", "this is the interleaved order", CHUNKED, axes=3, row_positions=True)
def interleaved_for_chunked(x, positions):
    return halves(x, _overwritten(positions, (4, 4, 4)))


@fault("AXIS-1", "the sections are (5, 4, 3)", CHUNKED, axes=3, row_positions=True)
def sections_off_by_one(x, positions):
    return halves(x, chunks(every_axis(positions), (5, 4, 3)))


@fault("AXIS-1", "axis 0 turns every pair", CHUNKED, axes=3, row_positions=True)
def only_the_first_axis_used(x, positions):
    """The text path of a multimodal model."""
    return halves(x, every_axis(positions)[0])


@fault("AXIS-1", "axes 1 and 2 are exchanged", ERNIE, axes=3, row_positions=True)
def columns_before_rows_in_ernies_order(x, positions):
    return neighbours(x, _ernie(positions, row=2, column=1))


@fault("AXIS-1", "turns with axes 0 and 1", VISION, axes=2)
def axes_added_up(x, positions):
    """One id per patch made of two: half of each, so that text stands where it stood."""
    mean = positions.double().mean(0)
    return halves(x, torch.cat([mean[:, None] * theta(12)] * 2, -1))


@fault("AXIS-1", "the sections are (4, 4, 4)", SATURATED, axes=3, row_positions=True)
def sections_taken_for_strides_without_an_end(x, positions):
    """Qwen3-VL's slice without its stop: the spatial axes go on to the last pair."""
    every = every_axis(positions)
    angle = every[0].clone()
    for axis in (1, 2):
        angle[..., axis::3] = every[axis][..., axis::3]
    return halves(x, angle)


@fault("FREQ-1", "shared between the axes", VISION, axes=2)
def frequencies_do_not_start_anew(x, positions):
    return halves(x, chunks(every_axis(positions), (6, 6)))


@fault("FREQ-1", "restart between the axes", PIXTRAL, axes=2)
def frequencies_start_anew_for_every_axis(x, positions):
    return neighbours(x, (positions[..., None].double() * theta(12)).transpose(0, 1).flatten(-2))


@fault("ROT-2", "across all rotated lanes", WITHIN, axes=2)
def pairs_across_the_axes(x, positions):
    return halves(x, torch.cat([m[:, None].double() * theta(12, 100.0) for m in positions], -1))


@fault("ROT-2", "within the lanes of each axis", VISION, axes=2)
def pairs_within_the_axes(x, positions):
    parts = zip(x.chunk(2, -1), positions, strict=True)
    return torch.cat([halves(part, m[:, None].double() * theta(12)) for part, m in parts], -1)


@fault("POS-2", "ids of one batch row", CHUNKED, axes=3, row_positions=True)
def spatial_ids_of_the_first_row(x, positions):
    positions = positions.clone()
    if positions.ndim == 3:
        positions[1:] = positions[1:, :1]
    return halves(x, chunks(every_axis(positions), (4, 5, 3)))


@fault("AXIS-2", "its positions on axis 0 alone", CHUNKED, axes=3, row_positions=True)
def a_batch_is_text_where_its_first_row_is(x, positions):
    """A fast path for text that looks at one row of the batch."""
    first = positions[:, 0] if positions.ndim == 3 else positions
    if bool((first == first[0]).all()):
        return halves(x, every_axis(positions)[0])
    return halves(x, chunks(every_axis(positions), (4, 5, 3)))


@fault("AXIS-3", "rounded down to integers", DINO, axes=2, coordinates=True)
def coordinates_cut_to_integers(x, positions):
    m = positions.double().floor()
    return halves(x, (m[..., None] * torch.tensor(_PERIODS)).transpose(0, 1).flatten(-2))


@fault("AXIS-3", "another angle", VISION, axes=2, coordinates=True)
def coordinates_in_half_precision(x, positions):
    """Integers up to 256 and the halves between them survive bfloat16; pixel centres do not."""
    if positions.is_floating_point():
        positions = positions.bfloat16()
    return halves(x, (positions[..., None].double() * theta(12)).transpose(0, 1).flatten(-2))
