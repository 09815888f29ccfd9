"""`survey`: what does every rotary embedding of a library do, and is it what its config says?

Today's library is Hugging Face transformers: `catalog.transformers_any` builds the rotary embedding
of every model type, `identify` says what each one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import rotary_spec as rs
from rotary_spec import RotarySpecError
from rotary_spec_conformance.catalog import transformers_any
from rotary_spec_conformance.catalog.transformers_build import Built, Unbuilt
from rotary_spec_conformance.catalog.transformers_claims import on_its_axes, verdict
from rotary_spec_conformance.identification.identify import identify
from rotary_spec_conformance.identification.result import Identification
from rotary_spec_conformance.probe import on_every_axis


@dataclass(frozen=True)
class Row:
    """One rotary embedding, as measured.

    Attributes
    ----------
    target : str
        Its name in the catalog.
    model_type : str
    code : str
        Classes and functions that were run.
    status : {"identified", "not rotary", "not built", "not identified"}
        The last where measuring it failed.
    layout : str
        "half", "interleaved", "interleaved -> half" where the output's differs, "permuted".
    direction : {"+", "-", ""}
        Sign of the angle.
    rotated : str
        Lanes that turn, "64 of 128".
    axes : str
        Pairs per axis, where positions are on several: "16+24+24", with what is not the default of
        `rotary_spec.Sections`.
    base : float or None
    schedule : str
    attention_factor : float or None
    table_dtype : str
        Dtype of cos for a bfloat16 input: what the tables are rounded to.
    precision : str
        "exact", "float32" or "low": the angles of a float32 input.
    trusted_to : int or None
        Last position whose angles are right to 2^-8 rad.
    conforms : str
        To its own config: "yes", "no: why" or "config says nothing".
    findings : list of str
    reason : str
        Why it was not identified.
    """

    target: str
    model_type: str
    code: str
    status: str
    layout: str = ""
    direction: str = ""
    rotated: str = ""
    axes: str = ""
    base: float | None = None
    schedule: str = ""
    attention_factor: float | None = None
    table_dtype: str = ""
    precision: str = ""
    trusted_to: int | None = None
    conforms: str = ""
    findings: tuple[str, ...] = ()
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The row in JSON types."""
        return {**asdict(self), "findings": list(self.findings)}


def survey(
    progress: Callable[[str, int, int], None] | None = None,
    model_types: Sequence[str] | None = None,
) -> list[Row]:
    """Identify the rotary embeddings of transformers and hold each against its own config.

    Each is built from the default config of its model type. What cannot be built or identified
    is a row with the reason.

    Parameters
    ----------
    progress : callable or None
        Called as ``progress(model_type, done, total)`` before each model type.
    model_types : sequence of str or None
        None: every type whose code has a rotary embedding, `transformers_any.model_types`.

    Returns
    -------
    list of Row

    Raises
    ------
    TargetError
        If transformers is not installed, or a given type is none of its.
    """
    chosen = transformers_any.model_types() if model_types is None else list(model_types)
    rows: list[Row] = []
    for number, model_type in enumerate(chosen):
        if progress is not None:
            progress(model_type, number, len(chosen))
        rows += [_row(model_type, one) for one in transformers_any.build(model_type)]
    return rows


def _row(model_type: str, one: Built | Unbuilt) -> Row:
    if isinstance(one, Unbuilt):
        return Row(one.name, model_type, one.code, "not built", reason=one.reason)
    one = on_its_axes(one)
    try:
        found = identify(one.target)
        conforms = verdict(one, found)
    except (RotarySpecError, ArithmeticError) as error:  # of one row: the others stand
        reason = f"{type(error).__name__}: {error}"
        return Row(one.name, model_type, one.code, "not identified", reason=reason)
    if not found.is_rotary:
        return Row(
            one.name, model_type, one.code, "not rotary", table_dtype=_table_dtype(one),
            conforms=conforms, findings=tuple(found.findings), reason=found.reason,
        )  # fmt: skip
    return Row(
        target=one.name,
        model_type=model_type,
        code=one.code,
        status="identified",
        layout=_layout(found),
        direction="-" if found.inverse else "+",
        rotated=_rotated(found.rotated, one.target.head_dim),
        axes=_axes(found.closest),
        base=found.base,
        schedule=_schedule(found.schedule),
        attention_factor=found.attention_factor,
        table_dtype=_table_dtype(one),
        precision=found.precision or "",
        trusted_to=found.trusted_to,
        conforms=conforms,
        findings=tuple(found.findings),
    )


def _layout(found: Identification) -> str:
    if found.output_layout == found.layout:
        return str(found.layout)
    return f"{found.layout} -> {found.output_layout}"


def _rotated(lanes: tuple[int, ...], head_dim: int) -> str:
    """How many lanes turn, and where, if not the first ones."""
    text = f"{len(lanes)} of {head_dim}"
    if any(after - before != 1 for before, after in pairwise(lanes)):
        return f"{text}, apart"
    if lanes[0] == 0:
        return text
    return f"last {text}" if lanes[-1] == head_dim - 1 else f"{text}, from {lanes[0]}"


def _axes(spec: rs.RotarySpec | None) -> str:
    """Pairs per axis, and the fields of the sections that are not their defaults."""
    if spec is None or spec.sections is None:
        return ""
    said = (
        getattr(spec.sections, field.name)
        for field in fields(spec.sections)[1:]
        if getattr(spec.sections, field.name) != field.default
    )
    return ", ".join(["+".join(map(str, spec.sections.sizes)), *said])


def _schedule(schedule: rs.Schedule | None) -> str:
    """The rope_type with the parameters that are not its defaults."""
    if schedule is None:
        return ""
    if isinstance(schedule, rs.Explicit):
        return "explicit"
    said = ", ".join(
        f"{field.name}={getattr(schedule, field.name)}"
        for field in fields(schedule)
        if getattr(schedule, field.name) != field.default
    )
    return f"{schedule.rope_type}({said})" if said else schedule.rope_type


def _table_dtype(one: Built) -> str:
    """Dtype of the first table that the module gives for a bfloat16 input."""
    if one.call is None or one.call.module is None:
        return ""
    framework = one.target.framework
    x = framework.asarray([[[[1.0] * one.target.head_dim] * 2]], "bfloat16")
    rows = on_every_axis([[0, 1]], one.target.axes)
    ids = None if one.call.ids == "implied" else framework.asarray(rows, "int64")
    return framework.dtype_of(one.call.tables(x, ids)[0])
