"""The vectors themselves: regenerated bit for bit, complete, and from formulas of their own."""

from __future__ import annotations

import ast
import doctest
import json
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rotary_spec as rs
from rotary_spec.frequencies import exact_frequencies
from rotary_spec_conformance import vectors
from rotary_spec_conformance.vectors import exact, golden, verification
from rotary_spec_conformance.vectors.arithmetic import Stream, rounded
from rotary_spec_conformance.vectors.generate import DATA, files
from rotary_spec_conformance.vectors.golden import FILES

CASES = vectors.load()
MANIFEST = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))


def test_regeneration_is_bit_identical() -> None:
    """All of it, from nothing: seconds. To write: the module's own command."""
    for name, content in files().items():
        assert (DATA / name).read_bytes() == content, f"{name}: regenerate, and look at the diff"


def test_the_manifest_fits_its_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((DATA / "manifest.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(MANIFEST, schema)
    for change in ({"extra": 1}, {"id": "With/slash"}, {"turns": [1]}, {"seq_len": "4"}):
        broken = {**MANIFEST, "cases": [{**MANIFEST["cases"][0], **change}] * 200}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_size_and_hash() -> None:
    data = (DATA / "vectors.safetensors").read_bytes()
    assert MANIFEST["sha256"] == sha256(data).hexdigest()
    assert sum((DATA / name).stat().st_size for name in FILES) < 5_000_000
    assert [entry["id"] for entry in MANIFEST["cases"]] == list(CASES)
    assert len(CASES) >= 200


def test_other_readers_read_it() -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    tensors = safetensors.load_file(DATA / "vectors.safetensors")
    case = CASES["model-llama-3.1"]
    for name in ("x_float32", "y_float16", "y_bfloat16", "positions"):
        found = tensors[f"{case.id}/{name}"]
        assert np.array_equal(found.to(torch.float64).numpy(), case[name])
    assert tensors[f"{case.id}/phases"].dtype == torch.uint64


@pytest.mark.parametrize("module", [golden, verification])
def test_docstring_examples(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_coverage() -> None:
    """What must be there, is."""
    cases = list(CASES.values())
    layouts = {(c.spec.layout, c.spec.output_layout) for c in cases}
    assert len(layouts) == 4
    assert {c.spec.schedule.rope_type for c in cases} == set(rs.Schedule.registry)
    sections = {c.spec.sections for c in cases if c.spec.sections}
    assert {s.order for s in sections} == {"chunked", "interleaved", "spatial_first"}
    assert {s.frequencies for s in sections} == {"shared", "restart", "strided"}
    assert {s.pairing for s in sections} == {"across", "within"}
    assert {s.axes for s in sections} >= {2, 3, 4}
    assert {c.spec.head_dim for c in cases} >= {2, 4, 64, 80, 96, 128, 256}
    assert {c.spec.inverse for c in cases} == {True, False}
    positions = {int(p) for c in cases for p in c["positions"].ravel()}
    edges = {0, 7, 255, 256, 257, 2047, 2048, 2049, 2**15, 2**17, 2**20}
    assert edges | {2**24 - 1, 2**24, 2**24 + 1, 2**31 - 1, -1, -(2**31)} <= positions
    ends = {
        "first" if s.rotary_start == 0 else "last" if s.rotary_start + s.rotary_dim == s.head_dim
        else "middle" for c in cases if (s := c.spec).rotary_dim < s.head_dim
    }  # fmt: skip
    assert ends == {"first", "middle", "last"}
    longrope = {c.seq_len for c in cases if isinstance(c.spec.schedule, rs.LongRope)}
    assert longrope >= {4096, 4097, None}  # both sides of the switch
    coordinates = [c["positions"] for c in cases if c["positions"].dtype == np.float64]
    assert len(coordinates) >= 5
    assert all(np.array_equal(p, p.astype(np.float32)) for p in coordinates)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_two_derivations_agree(case: vectors.Case) -> None:
    """The library's 50-digit decimals and mpmath, each with formulas of its own."""
    for theirs, ours in zip(exact_frequencies(case.spec, case.seq_len), case.frequencies):
        assert abs(theirs - Decimal(ours)) <= abs(theirs) * Decimal("1e-39")
    assert rs.turns(case.spec, case.seq_len) == case.turns
    assert np.array_equal(case["turns"], [f % 2**64 for f in case.turns])
    assert np.array_equal(rs.frequencies(case.spec, case.seq_len), case["inv_freq"])
    A = rs.attention_factor(case.spec, case.seq_len)  # noqa: N806 - its name in the paper
    assert abs(A - case.attention_factor) <= 4 * 2.0**-53 * A  # log, product, sum, quotient
    assert case.stored["positions"].dtype == ("I64" if "phases" in case.outputs else "F64")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("module", ["exact", "geometry", "arithmetic", "generate"])
def test_the_generator_is_independent(module: str) -> None:
    """It takes descriptions of specs from the library (in ``cases``), and no arithmetic."""
    for name in imported(DATA.parent / f"{module}.py"):
        assert not name.startswith("rotary_spec.")
        assert name.partition(".")[0] != "rotary_spec"


DTYPES: dict[str, Any] = {
    "float64": np.float64, "float32": np.float32, "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}  # fmt: skip


@given(st.integers(-(2**52), 2**52), st.sampled_from(list(DTYPES)))
def test_rounding(n: int, dtype: str) -> None:
    """Against the casts of NumPy and ml_dtypes; the values are exact in float64, and normal."""
    value = n * 2.0**-42 if abs(n) >= 2**28 else n * 2.0**-14
    k = 42 if abs(n) >= 2**28 else 14
    assert rounded(n, k, dtype)[0] == float(np.float64(value).astype(DTYPES[dtype]))


@pytest.mark.parametrize(("n", "result", "to_tie"), [(257, 256, 0), (259, 260, 0), (513, 512, 1)])
def test_ties(n: int, result: float, to_tie: int) -> None:
    assert rounded(n, 0, "bfloat16") == (result, to_tie)
    assert rounded(-n, 0, "bfloat16") == (-result, to_tie)


def test_the_stream_is_the_published_one() -> None:
    """splitmix64 from 1234567, and FNV-1a of the empty word and of "a"."""
    stream = Stream(1234567)
    assert [stream.next() for _ in range(3)] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423,
    ]  # fmt: skip
    assert Stream.named("").state == 0xCBF29CE484222325
    assert Stream.named("a").state == 0xAF63DC4C8601EC8C


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_inputs_are_of_their_dtype_and_size(dtype: str) -> None:
    drawn = np.concatenate([CASES[c][f"{x}_{dtype}"].ravel() for c in CASES for x in "xg"])
    size = np.abs(drawn.astype(np.float64))
    assert size.min() >= 0.25
    assert size.max() < 2
    bits = {"float32": 23, "float16": 10, "bfloat16": 7}[dtype]
    fraction, _ = np.frexp(size)
    assert not np.any(np.ldexp(fraction, bits + 1) % 1)
    assert np.any(np.ldexp(fraction, bits) % 1)  # the last bit is used


def arctan(inverse: int) -> Fraction:
    """Of 1 / inverse, to 300 bits."""
    terms = (Fraction((-1) ** k, (2 * k + 1) * inverse ** (2 * k + 1)) for k in range(140))
    return sum(terms, Fraction(0))


def test_cos_and_sin_have_no_error_of_their_own() -> None:
    """A far angle by Machin's formula and the power series in rationals, without mpmath."""
    turn = 8 * (4 * arctan(5) - arctan(239))
    angle = (2**31 - 1) * Fraction(0.1)
    angle -= turn * round(angle / turn)
    series = [Fraction(1)]
    while abs(series[-1]) > Fraction(1, 2**220):
        term = series[-1] * angle / len(series)
        series.append(Fraction(round(term * 2**300), 2**300))
    cos = sum((-1) ** (k // 2) * term for k, term in enumerate(series) if k % 2 == 0)
    sin = sum((-1) ** (k // 2) * term for k, term in enumerate(series) if k % 2)
    got = exact.cos_sin(Fraction(2**31 - 1), mpmath.mpf(0.1))
    assert abs(got[0] - cos * 2**exact.UNIT) < 1
    assert abs(got[1] - sin * 2**exact.UNIT) < 1
