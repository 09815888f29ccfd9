"""Converted projections give the scores that they gave; their values are moved, not computed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rotary_spec as rs
from rotary_spec.layouts import lane_permutation
from tests import strategies
from tests.spaces import Space

HIDDEN, SEQ = 12, 5
DIMENSIONS = [
    pytest.param({"head_dim": 8}, id="all lanes"),
    pytest.param({"head_dim": 8, "rotary_dim": 4}, id="first lanes"),
    pytest.param({"head_dim": 8, "rotary_dim": 4, "rotary_start": 4}, id="last lanes"),
    pytest.param({"head_dim": 10, "rotary_dim": 6, "rotary_start": 1}, id="middle lanes"),
]
CHANGES = [("half", "interleaved"), ("interleaved", "half")]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def heads_of(projected: Any, head_dim: int) -> Any:
    """(seq, heads * head_dim) to (heads, seq, head_dim)."""
    return np.moveaxis(projected.reshape(SEQ, -1, head_dim), 1, 0)


def scores(q: Any, k: Any, spec: rs.RotarySpec) -> Any:
    """(heads, seq, seq); every head of k serves as many of q."""
    q, k = rs.rotate(q, range(SEQ), spec), rs.rotate(k, range(SEQ), spec)
    return q @ np.swapaxes(np.repeat(k, len(q) // len(k), axis=0), -1, -2)


@pytest.fixture(params=CHANGES, ids=" to ".join)
def change(request: pytest.FixtureRequest) -> dict[str, str]:
    return dict(zip(("from_layout", "to_layout"), request.param))


@pytest.mark.parametrize("dimensions", DIMENSIONS)
class TestScores:
    """Old weights by the old rotation, new weights by the new one."""

    def specs(self, dimensions: Any, change: Any) -> tuple[rs.RotarySpec, rs.RotarySpec]:
        old = rs.RotarySpec(**dimensions, layout=change["from_layout"], base=50.0)
        return old, replace(old, layout=change["to_layout"])

    @pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (3, 1)])
    def test_separate(self, dimensions: Any, change: Any, heads: int, kv_heads: int) -> None:
        """Weights, biases and norms over the lanes of a head, as in Qwen 2 and Qwen 3."""
        head_dim, x = dimensions["head_dim"], normal(SEQ, HIDDEN)
        parts = {
            "q": normal(heads * head_dim, HIDDEN),
            "q_bias": normal(heads * head_dim),
            "q_norm": normal(head_dim),
            "k": normal(kv_heads * head_dim, HIDDEN),
            "k_bias": normal(kv_heads * head_dim, seed=1),
            "k_norm": normal(head_dim, seed=1),
        }

        def attend(parts: Any, spec: rs.RotarySpec) -> Any:
            normed = []
            for name in "qk":
                lanes = heads_of(x @ parts[name].T + parts[f"{name}_bias"], head_dim)
                size = np.sqrt(np.mean(lanes**2, axis=-1, keepdims=True))
                normed.append(lanes / size * parts[f"{name}_norm"])
            return scores(*normed, spec)

        moved = {n: rs.convert_projection(p, **change, **dimensions) for n, p in parts.items()}
        old, new = self.specs(dimensions, change)
        np.testing.assert_allclose(attend(moved, new), attend(parts, old), rtol=0, atol=1e-11)
        assert np.max(np.abs(attend(parts, new) - attend(parts, old))) > 0.1

    @pytest.mark.parametrize(
        ("packing", "heads", "kv_heads"),
        [
            ("concatenated", 4, 2),
            ("concatenated", 2, 2),
            ("per-head", 3, 3),
            ("per-group", 4, 2),
            ("per-group", 3, 1),
            ("per-group", 2, 2),
        ],
    )
    @pytest.mark.parametrize("axis", [0, 1])
    def test_fused(
        self, dimensions: Any, change: Any, packing: Any, heads: int, kv_heads: int, axis: int
    ) -> None:
        head_dim, x = dimensions["head_dim"], normal(SEQ, HIDDEN)
        weight = normal((heads + 2 * kv_heads) * head_dim, HIDDEN)

        def split(weight: Any) -> tuple[Any, Any, Any]:
            projected = heads_of(x @ weight.T, head_dim)
            if packing == "concatenated":
                return tuple(np.split(projected, [heads, heads + kv_heads]))  # type: ignore[return-value]
            groups = projected.reshape(kv_heads, -1, SEQ, head_dim)
            return groups[:, :-2].reshape(heads, SEQ, head_dim), groups[:, -2], groups[:, -1]

        given = weight if axis == 0 else weight.T
        counts = {} if packing == "per-head" else {"heads": heads, "kv_heads": kv_heads}
        moved = rs.convert_projection(
            given, **change, **dimensions, packing=packing, axis=axis, **counts
        )
        old, new = self.specs(dimensions, change)
        q, k, v = split(weight)
        new_q, new_k, new_v = split(moved if axis == 0 else moved.T)
        np.testing.assert_allclose(scores(new_q, new_k, new), scores(q, k, old), rtol=0, atol=1e-11)
        assert np.array_equal(new_v, v)

    def test_there_and_back(self, space: Space, dimensions: Any, change: Any) -> None:
        host = normal(2 * dimensions["head_dim"], HIDDEN).astype("float32")
        weight = space.asarray(host)
        there = rs.convert_projection(weight, **change, **dimensions)
        moved = space.check(there, host.shape, "float32")
        back = {"from_layout": change["to_layout"], "to_layout": change["from_layout"]}
        again = space.check(
            rs.convert_projection(there, **back, **dimensions), host.shape, "float32"
        )
        assert again.tobytes() == host.tobytes()
        expected = rs.convert_projection(host, **change, **dimensions)
        assert np.array_equal(moved, expected)
        assert not np.array_equal(moved, host)
        assert np.array_equal(space.to_numpy(weight), host)


class TestLanePermutation:
    @given(st.data())
    def test_rotations_agree(self, data: st.DataObject) -> None:
        """Bit for bit: the same products are summed, in another place."""
        old = data.draw(strategies.specs(output_layout=None))
        layout, inverse = data.draw(st.sampled_from(strategies.LAYOUTS)), data.draw(st.booleans())
        new = replace(old, layout=layout, inverse=inverse)
        order = list(lane_permutation(old, new))
        x, position = data.draw(strategies.vectors(old)), data.draw(strategies.positions)
        rotated = rs.rotate(x[order], position, new)
        expected = rs.rotate(x, position, old)[order]
        if old.inverse == inverse:
            assert np.array_equal(rotated, expected)
        else:  # a - b and -b + a
            np.testing.assert_allclose(rotated, expected, rtol=1e-12, atol=1e-300)

    @given(st.data())
    def test_inverse(self, data: st.DataObject) -> None:
        old = data.draw(strategies.specs())
        new = replace(old, layout=data.draw(st.sampled_from(strategies.LAYOUTS)))
        there, back = lane_permutation(old, new), lane_permutation(new, old)
        assert [there[lane] for lane in back] == list(range(old.head_dim))
        outside = {*range(old.rotary_start), *range(old.rotary_start + old.rotary_dim, len(there))}
        assert all(there[lane] == lane for lane in outside)

    @pytest.mark.parametrize(
        ("other", "name"),
        [
            (rs.RotarySpec(10), "head_dim"),
            (rs.RotarySpec(8, rotary_dim=6), "rotary_dim"),
        ],
    )
    def test_other_lanes(self, other: rs.RotarySpec, name: str) -> None:
        with pytest.raises(rs.SpecError, match=f"must agree on {name}.*Hint"):
            lane_permutation(rs.RotarySpec(8), other)

    def test_other_start(self) -> None:
        specs = [rs.RotarySpec(8, rotary_dim=4, rotary_start=start) for start in (0, 2)]
        with pytest.raises(rs.SpecError, match="must agree on rotary_start, got 0 and 2"):
            lane_permutation(*specs)

    def test_not_a_spec(self) -> None:
        with pytest.raises(rs.DtypeError, match="must be a RotarySpec"):
            lane_permutation("half", rs.RotarySpec(8))  # type: ignore[arg-type]


@given(st.data())
def test_any_permutation(data: st.DataObject) -> None:
    head_dim = data.draw(st.integers(1, 9))
    order = data.draw(st.permutations(range(head_dim)))
    heads = data.draw(st.integers(1, 3))
    weight = normal(heads * head_dim, 2)
    moved = rs.convert_projection(weight, permutation=order, head_dim=head_dim)
    expected = weight.reshape(heads, head_dim, 2)[:, order]
    assert np.array_equal(moved.reshape(expected.shape), expected)


def test_bits_are_moved_whatever_they_mean() -> None:
    """NaN payloads, negative zeros and subnormals included."""
    weight = np.random.default_rng(0).integers(0, 2**16, size=(16, 8192), dtype=np.uint16)
    options: Any = {"from_layout": "half", "to_layout": "interleaved", "head_dim": 8}
    moved = rs.convert_projection(weight.view(np.float16), **options)
    assert np.array_equal(moved.view(np.uint16), rs.convert_projection(weight, **options))


def test_the_permutation_of_the_llama_conversion_script() -> None:
    """What transformers' convert_llama_weights_to_hf.py does to Meta's weights."""
    heads, head_dim = 4, 8
    weight = normal(heads * head_dim, HIDDEN)
    theirs = weight.reshape(heads, head_dim // 2, 2, HIDDEN).swapaxes(1, 2)
    ours = rs.convert_projection(
        weight, from_layout="interleaved", to_layout="half", head_dim=head_dim
    )
    assert np.array_equal(ours, theirs.reshape(weight.shape))


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", "float64", "float8_e4m3fn", "float8_e5m2", "int8", "uint8"]
)
class TestDtypes:
    OPTIONS: Any = {"from_layout": "half", "to_layout": "interleaved", "head_dim": 8}  # noqa: RUF012

    def test_torch(self, dtype: str) -> None:
        torch = pytest.importorskip("torch")
        weight = torch.arange(96).reshape(16, 6).to(getattr(torch, dtype))
        moved = rs.convert_projection(weight, **self.OPTIONS)
        assert moved.dtype == weight.dtype
        expected = rs.convert_projection(weight.double().numpy(), **self.OPTIONS)
        assert np.array_equal(moved.double().numpy(), expected)

    def test_jax(self, dtype: str) -> None:
        jax = pytest.importorskip("jax")
        with jax.enable_x64(dtype == "float64"):
            weight = jax.numpy.arange(96).reshape(16, 6).astype(dtype)
            convert = jax.jit(lambda x: rs.convert_projection(x, **self.OPTIONS))
            moved = convert(weight)
            assert moved.dtype == weight.dtype
            host, out = (np.asarray(x.astype("float32")) for x in (weight, moved))
        assert np.array_equal(out, rs.convert_projection(host, **self.OPTIONS))


HALF: dict[str, Any] = {"from_layout": "half", "to_layout": "interleaved", "head_dim": 8}


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        ((20, 4), {}, rs.ShapeError, "weight: expected a multiple of head_dim = 8 rows, got 20.*H"),
        ((0, 4), {}, rs.ShapeError, "got 0"),
        ((), {}, rs.ShapeError, "axis must name one of its 0 axes"),
        ((16,), {"axis": 1}, rs.ShapeError, "got 1 for shape"),
        ((16,), {"axis": "q"}, rs.SpecError, "axis must be an integer, got 'q'"),
        ((16,), {"from_layout": "neox"}, rs.SpecError, "from_layout must be .*got 'neox'.*Hint"),
        ((16,), {"to_layout": None}, rs.SpecError, "to_layout must be .*got None"),
        ((16,), {"head_dim": 7}, rs.SpecError, "head_dim must be even and positive"),
        ((16,), {"rotary_dim": 10}, rs.SpecError, "rotary_dim must not exceed head_dim"),
        ((16,), {"rotary_start": 2}, rs.SpecError, "rotary_start must lie in 0"),
        ((16,), {"permutation": range(8)}, rs.SpecError, "takes the place of from_layout"),
        ((32, 4), {"heads": 2}, rs.ShapeError, "expected 2 heads of q or 2 of k, got 32 rows"),
        ((24, 4), {"packing": "qkv"}, rs.SpecError, "packing must be 'concatenated', .*got 'qkv'"),
        ((24,), {"packing": "concatenated"}, rs.SpecError, "'concatenated' needs heads and kv_h"),
        ((24,), {"packing": "per-group"}, rs.SpecError, "'per-group' needs heads and kv_heads"),
        ((32,), {"packing": "per-head"}, rs.ShapeError, "a multiple of 24 rows; got 32"),
        ((48,), {"packing": "per-head", "heads": 3}, rs.ShapeError, "has 72 rows; got 48"),
        (
            (64,),
            {"packing": "per-head", "heads": 4, "kv_heads": 2},
            rs.SpecError,
            "as many heads of k and v as of q, got heads = 4 and kv_heads = 2. Hint: 'per-group'",
        ),
        (
            (64,),
            {"packing": "concatenated", "heads": 4},
            rs.ShapeError,
            "4 heads of q and 4 of k and v, of head_dim = 8, has 96 rows; got 64",
        ),
        ((32,), {"heads": 4, "kv_heads": 3}, rs.SpecError, "positive multiple of kv_heads"),
        ((32,), {"heads": 0}, rs.SpecError, "got heads = 0"),
        ((32,), {"kv_heads": 2}, rs.SpecError, "kv_heads needs heads beside it"),
    ],
)
def test_refused(shape: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        rs.convert_projection(np.zeros(shape), **{**HALF, **options})


@pytest.mark.parametrize(
    ("permutation", "message"),
    [
        ((0, 1, 2), "once, got 3 numbers"),
        ((0, 1, 2, 2), r"once, got \(0, 1, 2, 2\)"),
        ((1, 2, 3, 4), "every lane 0 .. head_dim - 1 = 3"),
        ((0, 1, 2, -1), "every lane"),
        ((0, 1, 2, 3.0), "permutation must be an integer, got 3.0"),
        (3, "must be a sequence of lane numbers, got 3"),
    ],
)
def test_not_a_permutation(permutation: Any, message: str) -> None:
    with pytest.raises(rs.SpecError, match=message):
        rs.convert_projection(np.zeros(8), permutation=permutation, head_dim=4)


def test_not_an_array() -> None:
    with pytest.raises(rs.DtypeError, match="expected an array"):
        rs.convert_projection([[0.0]] * 8, **HALF)
