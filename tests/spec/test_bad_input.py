"""Every error is one of ours, and its text names the argument and what was given for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec_backends import select

SPEC = rs.RotarySpec(4)
X = np.zeros((2, 3, 5, 4))  # (batch, heads, seq, head_dim)
IDS = np.arange(5)


def spec(**fields: Any) -> Callable[[], Any]:
    return lambda: rs.RotarySpec(**{"head_dim": 8, **fields})


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (spec(head_dim=7), "head_dim must be even and positive, .* got 7"),
        (spec(head_dim=0), "head_dim .* got 0"),
        (spec(head_dim=-8), "head_dim .* got -8"),
        (spec(head_dim=8.0), r"head_dim must be an integer, got 8\.0 \(float\)"),
        (spec(head_dim=True), "head_dim must be an integer, got True"),
        (spec(head_dim="8"), "head_dim must be an integer, got '8'"),
        (spec(head_dim=None), "head_dim must be an integer, got None"),
        (spec(rotary_dim=3), "rotary_dim must be even and positive, .* got 3"),
        (spec(rotary_dim=0), "rotary_dim .* got 0"),
        (spec(rotary_dim=10), "rotary_dim must not exceed head_dim, got 10 > 8"),
        (spec(rotary_dim=4.0), r"rotary_dim must be an integer, got 4\.0"),
        (spec(rotary_dim=4, rotary_start=5), "rotary_start must lie in 0 .. .* = 4, got 5"),
        (spec(rotary_start=1), "rotary_start must lie in 0 .. .* = 0, got 1"),
        (spec(rotary_dim=4, rotary_start=-1), "rotary_start .* got -1"),
        (spec(rotary_start=0.0), r"rotary_start must be an integer, got 0\.0"),
        (spec(base=True), "base must be a number, got True"),
        (spec(base=np.True_), "base must be a number, got np.True_"),
        (spec(base="10000"), "base must be a number, got '10000'"),
        (spec(base=None), "base must be a number, got None"),
        (spec(base=1j), "base must be a number, got 1j"),
        (spec(base=float("nan")), "base must be finite and positive, got nan"),
        (spec(base=float("inf")), "base must be finite and positive, got inf"),
        (spec(base=-1e4), r"base must be finite and positive, got -10000\.0"),
        (spec(base=0), "base must be finite and positive, got 0"),
        (spec(base=10**400), "base must be finite and positive, got 1000"),
        (spec(attention_factor=0.0), "attention_factor must be finite and positive, got 0.0"),
        (spec(attention_factor="1"), "attention_factor must be a number, got '1'"),
        (spec(layout="neox"), "layout must be 'interleaved' .* or 'half' .*, got 'neox'"),
        (spec(layout=None), "layout must be .* got None"),
        (spec(layout=["half"]), r"layout must be .* got \['half'\]"),
        (spec(output_layout="Half"), "output_layout must be .* got 'Half'"),
        (spec(schedule="linear"), r"schedule must be a Schedule .*, got 'linear'"),
        (spec(schedule=rs.Linear), "schedule must be a Schedule .*, got <class"),
        (spec(schedule=None), "schedule must be a Schedule .*, got None"),
        (spec(inverse=1), "inverse must be True or False, got 1"),
        (lambda: rs.Linear(0.5), r"Linear: factor must be at least 1, got 0\.5"),
        (lambda: rs.Linear("2"), r"Linear: factor must be a number, got '2' \(str\)"),
        (lambda: rs.Linear(True), "Linear: factor must be a number, got True"),
        (lambda: rs.Linear(float("nan")), "Linear: factor must be finite and positive, got nan"),
        (lambda: rs.Linear(10**400), "Linear: factor must be finite and positive, got 1000"),
        (lambda: rs.Llama3(8, 4, 1, 8192), "Llama3: low_freq_factor must not exceed .* got 4 > 1"),
        (lambda: rs.Llama3(0.9, 1, 4, 8192), r"Llama3: factor must be at least 1, got 0\.9"),
        (lambda: rs.Llama3(8, 1, 4, 0), "Llama3: original_max_position_embeddings .* got 0"),
        (lambda: rs.Llama3(8, 0, 4, 8192), "Llama3: low_freq_factor .* got 0"),
    ],
)
def test_specs_that_cannot_exist(build: Callable[[], Any], said: str) -> None:
    with pytest.raises(rs.SpecError, match=f"^{said}"):
        build()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON: Expecting"),
        ("[]", "expected a JSON object, got list"),
        ("{}", "head_dim is missing"),
        ('{"head_dim": 8, "dim": 8, "theta": 1}', "unknown field 'dim', 'theta'; known: .*base"),
        ('{"head_dim": 8, "base": NaN}', "base must be finite and positive, got nan"),
        ('{"head_dim": 8, "schedule": "linear"}', "schedule must be a Schedule"),
        ('{"head_dim": 8, "schedule": {}}', "rope_type None is not .* known: default, .*linear"),
        (
            '{"head_dim": 8, "schedule": {"rope_type": ["linear"]}}',
            r"rope_type \['linear'\] is not",
        ),
        ('{"head_dim": 8, "schedule": {"rope_type": "linear"}}', "takes factor; got none"),
        (
            '{"head_dim": 8, "schedule": {"rope_type": "default", "factor": 2}}',
            "'default' takes no parameters; got factor",
        ),
    ],
)
def test_json_that_is_no_spec(text: str, said: str) -> None:
    with pytest.raises(rs.SpecError, match=said):
        rs.RotarySpec.from_json(text)


# What is wrong with a call of `rotate`; the three functions that rotate refuse it alike.
CALLS = {
    "last axis": (np.zeros((5, 6)), IDS, {}, rs.ShapeError, r"x: .* head_dim = 4 .* \(5, 6\)"),
    "0-d features": (np.zeros(()), IDS, {}, rs.ShapeError, r"head_dim = 4 long, got shape \(\)"),
    "integer features": (X.astype(int), IDS, {}, rs.DtypeError, "x must be .* got int64.*cast"),
    "complex features": (X.astype(complex), IDS, {}, rs.DtypeError, "x must be .* got complex128"),
    "boolean features": (X.astype(bool), IDS, {}, rs.DtypeError, "x must be .* got bool"),
    "float positions": (
        X,
        IDS.astype(np.float32),
        {},
        rs.PositionError,
        r"positions must be integers, got float32.* 2\*\*24 .*Hint: .*int32 or int64",
    ),
    "boolean positions": (X, IDS > 2, {}, rs.PositionError, "positions must be integers, got bool"),
    "too few positions": (
        X,
        np.arange(4),
        {},
        rs.PositionError,
        r"broadcast against x\.shape\[:-1\] .*\(2, 3, 5\); got shape \(4,\)\.$",
    ),
    "no positions at all": (X, IDS[:0], {}, rs.PositionError, r"\(2, 3, 5\); got shape \(0,\)"),
    "(batch, seq) ids": (
        X,
        np.zeros((2, 5), int),
        {},
        rs.PositionError,
        r"\(2, 3, 5\); got shape \(2, 5\)\. Hint: .* positions\[:, None, :\]",
    ),
    "positions that would grow x": (
        X[:1],
        np.zeros((2, 1, 5), int),
        {},
        rs.PositionError,
        r"\(1, 3, 5\); got shape \(2, 1, 5\)",
    ),
    "too many axes": (
        X[0, 0],
        np.zeros((1, 5), int),
        {},
        rs.PositionError,
        r"\(5,\); got .*\(1, 5",
    ),
    "positions for a vector": (
        X[0, 0, 0],
        np.arange(1),
        {},
        rs.PositionError,
        r"\(\); got .*\(1,\)",
    ),
    "positions for the wrong axis": (
        X,
        IDS,
        {"seq_axis": 1},
        rs.PositionError,
        r"sequence axis last, \(2, 5, 3\); got shape \(5,\)",
    ),
    "seq_axis on the features": (X, IDS, {"seq_axis": -1}, rs.ShapeError, "seq_axis .* got -1"),
    "seq_axis 3": (X, IDS, {"seq_axis": 3}, rs.ShapeError, "seq_axis .* got 3 .*2, 3, 5, 4"),
    "seq_axis too large": (X, IDS, {"seq_axis": 9}, rs.ShapeError, "seq_axis .* got 9"),
    "seq_axis too small": (X, IDS, {"seq_axis": -5}, rs.ShapeError, "seq_axis .* got -5"),
    "seq_axis of a vector": (X[0, 0, 0], 1, {"seq_axis": 0}, rs.ShapeError, "seq_axis .* got 0"),
    "fractional seq_axis": (X, IDS, {"seq_axis": 1.0}, rs.DtypeError, r"seq_axis .* got 1\.0"),
    "named seq_axis": (X, IDS, {"seq_axis": "seq"}, rs.DtypeError, "seq_axis .* got 'seq'"),
    "list of floats": (
        X,
        [0.0, 1.0],
        {},
        rs.DtypeError,
        r"positions must be .* got \[0\.0, 1\.0\]",
    ),
    "list of bools": (X, [True], {}, rs.DtypeError, r"positions must be .* got \[True\]"),
    "a bool": (X, True, {}, rs.DtypeError, "positions must be .* got True"),
    "a float": (X, 1.0, {}, rs.DtypeError, r"positions must be .* got 1\.0"),
    "nested list": (X, [[0, 1]], {}, rs.DtypeError, r"flat list .* got \[\[0, 1\]\]"),
    "no positions": (X, None, {}, rs.DtypeError, "positions must be .* got None"),
    "list of the wrong length": (X, [0, 1], {}, rs.PositionError, r"\(2, 3, 5\); got shape \(2,\)"),
    "beyond int64": (X, 2**63, {}, rs.PositionError, f"2\\*\\*63 - 1, got {2**63}"),
    "list beyond int64": (X, [0, 10**30], {}, rs.PositionError, f"2\\*\\*63 - 1, got {10**30}"),
}


@pytest.mark.parametrize(
    "rotate",
    [rs.rotate, rs.rotate_complex, select("numpy").rotate, select("numpy").rotate_back],
    ids=["reference", "complex", "backend", "backend's gradient"],
)
@pytest.mark.parametrize(
    ("x", "ids", "keywords", "error", "said"), CALLS.values(), ids=CALLS.keys()
)
def test_calls(
    rotate: Any, x: Any, ids: Any, keywords: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        rotate(x, ids, SPEC, **keywords)


@pytest.mark.parametrize("given", ["paper", {"head_dim": 4}, 4, None, rs.RotarySpec], ids=repr)
def test_spec_argument(given: Any) -> None:
    backend = select("numpy")
    for call in (rs.rotate, rs.rotate_complex, backend.rotate, backend.rotate_back):
        with pytest.raises(rs.DtypeError, match="spec must be a RotarySpec, got"):
            call(X, IDS, given)
    for call in (rs.cos_sin, rs.rotation_matrix):
        with pytest.raises(rs.DtypeError, match="spec must be a RotarySpec, got"):
            call(IDS, given)


@pytest.mark.parametrize("function", [rs.cos_sin, rs.rotation_matrix])
def test_positions_of_tables(function: Any) -> None:
    with pytest.raises(rs.PositionError, match="positions must be integers, got float64"):
        function(IDS * 1.0, SPEC)
    for given in ([0, 1], 3):
        with pytest.raises(rs.DtypeError, match=rf"positions is builtins\.{type(given).__name__}"):
            function(given, SPEC)


def test_features_must_be_an_array() -> None:
    for given in ([1.0, 2.0, 3.0, 4.0], None, 1.0):
        with pytest.raises(rs.DtypeError, match=rf"x is builtins\.{type(given).__name__}"):
            rs.rotate(given, IDS, SPEC)


def test_frameworks_do_not_mix() -> None:
    torch = pytest.importorskip("torch")
    for x, ids, named in (
        (torch.from_numpy(X), IDS, r"x is torch\.Tensor, positions is numpy\.ndarray"),
        (X, torch.from_numpy(IDS), r"x is numpy\.ndarray, positions is torch\.Tensor"),
    ):
        with pytest.raises(rs.DtypeError, match=named):
            rs.rotate(x, ids, SPEC)


def test_ids_beyond_32_bits_in_jax() -> None:
    """Without x64 there is no array for them; they must not wrap in silence."""
    jax = pytest.importorskip("jax")
    x = jax.numpy.zeros((1, 4))
    for ids in (2**31, [-(2**31) - 1]):
        with pytest.raises(rs.PositionError, match=r"-2\*\*31 .. 2\*\*31 - 1, got -?21474836"):
            rs.rotate(x, ids, SPEC)


def test_every_error_is_ours_and_pythons() -> None:
    """Callers may catch either family."""
    families = {
        rs.SpecError: ValueError,
        rs.ShapeError: ValueError,
        rs.PositionError: ValueError,
        rs.TargetError: ValueError,
        rs.DtypeError: TypeError,
        rs.BackendUnavailable: ImportError,
    }
    for error, builtin in families.items():
        assert issubclass(error, rs.RotarySpecError)
        assert issubclass(error, builtin)


def test_a_refused_call_computes_nothing() -> None:
    """Arguments are checked before any work: no array of the spec's size is made first."""
    huge = rs.RotarySpec(2**40)
    with pytest.raises(rs.ShapeError, match="head_dim = 1099511627776"):
        rs.rotate(X, IDS, huge)
