"""The encodings of the paper's Section 2: their equations term by term, and what is measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

import rotary_spec as rs
from rotary_spec.cli import app
from rotary_spec.encodings import (
    T5,
    TUPE,
    DeBERTa,
    Encoding,
    Learned,
    Rotary,
    Shaw,
    Sinusoidal,
    TransformerXL,
    paper_encodings,
    properties,
)
from rotary_spec.encodings.relative import bucket_starts
from tests import oracle
from tests.spaces import SPACES, Space

DIM, LENGTH = 8, 64
ENCODINGS = {encoding.name: encoding for encoding in paper_encodings(DIM, LENGTH)}
M, N = [0, 5, 40, 63], [63, 5, 2]


@pytest.fixture(params=ENCODINGS.values(), ids=ENCODINGS.keys())
def encoding(request: pytest.FixtureRequest) -> Encoding:
    return request.param


def contents(dtype: str = "float64") -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    shapes = (2, len(M), DIM), (2, len(N), DIM)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def sinusoid(i: int) -> Any:
    """Eq. 4, entry by entry."""
    angles = [i / 10_000.0 ** (2 * t / DIM) for t in range(DIM // 2)]
    return np.asarray([f(angle) for angle in angles for f in (np.sin, np.cos)])


def t5_bucket(distance: int, buckets: int, limit: int) -> int:
    """The published formula: log-spaced beyond half of the buckets of a side."""
    side = buckets // 2
    exact, n = side // 2, abs(distance)
    # 1e-9 steps over the rounding of a logarithm whose exact value is a whole number.
    grown = exact + int(np.log(max(n, 1) / exact) / np.log(limit / exact) * (side - exact) + 1e-9)
    return (side if distance < 0 else 0) + (n if n < exact else min(grown, side - 1))


def equation(e: Encoding, x: Any, y: Any, m: int, n: int) -> float:
    """One score as the paper writes it."""
    p = {name: e.parameter(name) for name in e.shapes()}
    w_q, w_k = p["W_q"], p["W_k"]
    content = x @ w_q.T @ w_k @ y
    if isinstance(e, TUPE):  # before T5 and Learned, whose parts it has
        bias = p["b"][t5_bucket(m - n, e.buckets, e.max_distance)]
        return content + p["p"][m] @ p["U_q"].T @ p["U_k"] @ p["p"][n] + bias
    if isinstance(e, Learned | Sinusoidal):  # Eq. 6: the four terms of Eq. 3
        table = sinusoid if isinstance(e, Sinusoidal) else p["p"].__getitem__
        a = w_q.T @ w_k
        return content + x @ a @ table(n) + table(m) @ a @ y + table(m) @ a @ table(n)
    if isinstance(e, Shaw):
        r = min(max(m - n, -e.reach), e.reach)
        return (w_q @ x) @ (w_k @ (y + p["p"][r + e.reach]))
    if isinstance(e, TransformerXL):
        place = w_q.T @ p["W~_k"] @ sinusoid(m - n)
        return content + x @ place + p["u"] @ w_q.T @ w_k @ y + p["v"] @ place
    if isinstance(e, T5):
        return content + p["b"][t5_bucket(m - n, e.buckets, e.max_distance)]
    if isinstance(e, DeBERTa):
        place = p["p"][min(max(m - n, -e.reach), e.reach - 1) + e.reach]
        return content + x @ w_q.T @ w_k @ place + place @ w_q.T @ w_k @ y
    assert isinstance(e, Rotary)  # Eq. 16: R_{n-m} between the projections
    return x @ w_q.T @ oracle.rotation_matrix(n - m, rs.RotarySpec(DIM)) @ w_k @ y


def test_scores_are_the_equations(encoding: Encoding) -> None:
    x, y = contents()
    exact = [
        [[equation(encoding, q, k, m, n) for k, n in zip(keys, N)] for q, m in zip(queries, M)]
        for queries, keys in zip(x, y)
    ]
    # Four terms of three matrix products of length DIM, each of vectors of norm about sqrt(DIM).
    allowed = 4 * 3 * DIM * oracle.UNIT_ROUNDOFF["float64"] * 4 * DIM
    assert np.abs(encoding.scores(x, y, M, N) - exact).max() <= allowed


# One JAX: it compiles every operation, and x64 changes nothing here but the dtype.
@pytest.mark.parametrize("space", [s for s in SPACES if s != "jax-x64"], indirect=True)
def test_scores_in_every_namespace(encoding: Encoding, space: Space) -> None:
    x, y = contents(space.widest)
    got = encoding.scores(space.asarray(x), space.asarray(y), space.ids(M), N)
    host = space.check(got, (2, len(M), len(N)), space.widest)
    allowed = 4 * 3 * DIM * oracle.UNIT_ROUNDOFF[space.widest] * 4 * DIM
    assert np.abs(host - encoding.scores(x, y, M, N)).max() <= allowed


def test_parameters_come_from_the_seed_or_from_the_caller(encoding: Encoding) -> None:
    x, y = contents()
    again = replace(encoding).scores(x, y, M, N)
    assert np.array_equal(again, encoding.scores(x, y, M, N))
    assert not np.array_equal(again, replace(encoding, seed=1).scores(x, y, M, N))
    w_q = encoding.parameter("W_q")
    assert np.abs(w_q @ w_q.T - np.eye(DIM)).max() < DIM * 2.0**-50
    given = replace(encoding, parameters={"W_q": np.zeros((DIM, DIM)), "W_k": w_q})
    assert np.array_equal(given.parameter("W_k"), w_q)
    if isinstance(encoding, Rotary | Learned) and not isinstance(encoding, TUPE):
        assert not given.scores(x, y, M, N).any()


def test_buckets_are_those_of_transformers() -> None:
    module = pytest.importorskip("transformers.models.t5.modeling_t5")
    torch = pytest.importorskip("torch")
    theirs = module.T5Attention._relative_position_bucket(
        torch.arange(-1000, 1001), bidirectional=True, num_buckets=32, max_distance=128
    )
    b = np.arange(32.0)
    e = T5(dim=1, parameters={"W_q": [[0.0]], "W_k": [[0.0]], "b": b})
    ids = np.arange(2001)
    ours = e.scores(np.zeros((1, 1)), np.zeros((2001, 1)), [1000], ids)[0]
    assert np.array_equal(ours, theirs.numpy())  # theirs is of n - m


def test_bucket_starts_are_exact() -> None:
    """8 * 16^(k/8) is whole for even k: no logarithm decides on which side it falls."""
    assert bucket_starts(16, 128)[7:] == [8, 12, 16, 23, 32, 46, 64, 91]
    assert bucket_starts(4, 1000) == [1, 2, 45]


EXPECTED = {  # relative, features, multiplies, beyond
    "learned": (False, DIM, False, "undefined"),
    "sinusoidal": (False, DIM, False, "continues"),
    "Shaw": (True, None, False, "constant"),
    "Transformer-XL": (True, 2 * DIM, False, "continues"),
    "T5 bias": (True, None, False, "constant"),
    "TUPE": (False, None, False, "undefined"),
    "DeBERTa": (True, None, False, "constant"),
    "RoPE": (True, DIM, True, "continues"),
}


def test_properties(encoding: Encoding) -> None:
    if isinstance(encoding, T5 | DeBERTa):  # that they clip shows beyond their reach
        smaller = {"max_distance": 16} if isinstance(encoding, T5) else {"reach": 16}
        encoding = replace(encoding, **smaller)
    found = properties(encoding, length=LENGTH)
    measured = (found.relative, found.features, found.multiplies, found.beyond)
    assert measured == EXPECTED[encoding.name]


def test_only_rope_decays_by_construction() -> None:
    """Before training, equal tokens: RoPE's scores fall, the others' keep their level."""
    far = {name: properties(e, length=LENGTH).decay[-1][1] for name, e in ENCODINGS.items()}
    assert far["RoPE"] < 0.5 < min(value for name, value in far.items() if name != "RoPE")


@dataclass(frozen=True, eq=False, kw_only=True)
class _TwoBases(Rotary):
    """A mistake: keys turn at another rate."""

    name: ClassVar[str] = "two bases"

    def evaluate(self, at: Any) -> Any:
        q = rs.rotate(at.x, at.m, rs.RotarySpec(self.dim))
        return at.products(q, rs.rotate(at.y, at.n, rs.RotarySpec(self.dim, base=100.0)))


@dataclass(frozen=True, eq=False, kw_only=True)
class _Alibi(Encoding):
    """A bias in proportion to the distance: two more features, on and on."""

    name: ClassVar[str] = "linear bias"

    def evaluate(self, at: Any) -> Any:
        return at.content() - 0.1 * at.xp.astype(at.distance, at.x.dtype)


def test_properties_are_measured() -> None:
    """Classes that nobody knows."""
    found = properties(_TwoBases(dim=DIM), length=LENGTH)
    assert (found.relative, found.features, found.multiplies) == (False, DIM, True)
    found = properties(_Alibi(dim=DIM), length=LENGTH)
    assert (found.relative, found.features, found.multiplies) == (True, DIM + 2, False)
    assert found.beyond == "continues"


def test_learned_positions_end() -> None:
    x = np.zeros((1, DIM))
    for position in (LENGTH, -1):
        with pytest.raises(rs.PositionError, match=f"position {position} has no row"):
            ENCODINGS["learned"].scores(x, x, [0], [position])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Learned(dim=0), rs.SpecError, "dim must be at least 1"),
        (lambda: Learned(dim=4, length=0), rs.SpecError, "length must be at least 1"),
        (lambda: Learned(dim=4, seed=-1), rs.SpecError, "seed must be at least 0"),
        (lambda: Sinusoidal(dim=3), rs.SpecError, "even and positive, .* got 3"),
        (lambda: Shaw(dim=4, reach=0), rs.SpecError, "reach must be at least 1"),
        (lambda: T5(dim=4, buckets=6), rs.SpecError, "multiple of 4, got 6"),
        (lambda: T5(dim=4, max_distance=8), rs.SpecError, "max_distance must be at least 9"),
        (lambda: T5(dim=4, parameters={"c": 0}), rs.SpecError, "unknown parameter 'c'"),
        (lambda: T5(dim=4, parameters={"b": [0]}), rs.ShapeError, r"shape \(32,\), got \(1,\)"),
        (lambda: Rotary(dim=4, spec=rs.RotarySpec(8)), rs.SpecError, "head_dim = dim = 4"),
        (lambda: properties(Rotary(dim=4), length=18), rs.SpecError, "multiple of 4"),
        (lambda: properties(Rotary(dim=16), length=60), rs.SpecError, "at least 64 for dim = 16"),
        (lambda: properties(Rotary(dim=4), seed=-1), rs.SpecError, "seed must not be negative"),
        (lambda: properties(Learned(dim=4, length=32), length=64), rs.SpecError, "defined up to"),
        (lambda: properties(T5(dim=1, parameters={"W_k": [[0]]})), rs.SpecError, "W_k must be inv"),
        (lambda: properties(Rotary(dim=2, parameters={"W_q": np.zeros((2, 2))})), rs.SpecError,
         "not all 0, got 0"),
        (lambda: properties("RoPE"), rs.DtypeError, "must be an Encoding, got 'RoPE'"),
    ],
)  # fmt: skip
def test_bad_values_are_named(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.zeros((2, 3)), np.zeros((2, 4)), [0, 1], [0, 1]), rs.ShapeError, "q_in must be of"),
        ((np.zeros((2, 4)), np.zeros(4), [0, 1], [0]), rs.ShapeError, "k_in must be of shape"),
        ((np.zeros((2, 4), int), np.zeros((2, 4)), [0, 1], [0, 1]), rs.DtypeError, "q_in must"),
        ((np.zeros((2, 4)), np.zeros((2, 4)), [0], [0, 1]), rs.PositionError, "q_positions must"),
        ((np.zeros((2, 4)), np.zeros((2, 4)), [0, 1], np.zeros(2)), rs.PositionError, "integers"),
        (([[0.0]], np.zeros((2, 4)), [0], [0]), rs.DtypeError, "q_in"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Rotary(dim=4).scores(*arguments)


def test_command() -> None:
    small = ["encodings", "--dim", "8", "--length", "64"]
    done = CliRunner().invoke(app, [*small, "--json"])
    assert done.exit_code == 0
    rows = {row["encoding"]: row for row in json.loads(done.output)["encodings"]}
    assert list(rows) == list(EXPECTED)
    assert [name for name, row in rows.items() if row["relative"] and row["multiplies"]] == ["RoPE"]

    done = CliRunner().invoke(app, [*small, "--markdown"])
    assert (
        "| RoPE | 14, 16 | m - n | multiplies | 8, 8, 8 | 8 features | continues |" in done.output
    )
    assert done.output.count("\n") == 2 + len(EXPECTED)

    done = CliRunner().invoke(app, small, env={"COLUMNS": "160"})
    assert "Transformer-XL" in done.output

    done = CliRunner().invoke(app, ["encodings", "--dim", "7"])
    assert done.exit_code == 2
    assert "even and positive" in done.output
