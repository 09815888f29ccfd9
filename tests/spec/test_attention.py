"""Softmax and linear attention in every array namespace, against the paper's sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rotary_spec as rs
from tests import attention_oracle, oracle
from tests.spaces import Space, open_space

SPEC = rs.RotarySpec(4, attention_factor=1.5)
PLAIN = rs.RotarySpec(4)
LENGTH = 5
POSITIONS = np.arange(LENGTH) + 131_071


def inputs(dtype: str = "float32") -> Any:
    rng = np.random.default_rng(0)
    q, k = (rng.normal(size=(2, h, LENGTH, 4)).astype(dtype) for h in (4, 2))
    mask = np.ones((2, 1, LENGTH), dtype=bool)
    mask[1, 0, :2] = False  # so that the first two queries of a causal row attend to nothing
    v = rng.normal(size=(2, 2, LENGTH, 3)).astype(dtype)
    return q, k, v, mask


def exactly(*arrays: Any) -> list[Any]:
    """The same numbers in float64, for the oracle to compute in."""
    return [x.astype(np.float64) for x in arrays]


def softmax_attention(q: Any, k: Any, v: Any, spec: rs.RotarySpec, seen: Any) -> Any:
    """Eq. 2, query by query."""
    k, v = attention_oracle.grouped(k, v, q)
    q, k = (oracle.rotate(x, POSITIONS, spec) for x in (q, k))
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for at in np.ndindex(*q.shape[:-1]):
        weights = np.exp(k[at[:-1]] @ q[at] / 2.0) * seen[at]
        if seen[at].any():
            out[at] = weights @ v[at[:-1]] / weights.sum()
    return out


def allowed(space: Space) -> float:
    """Scores below 30 in float32 or float64, rounded 16 times each; values below 3; the rounding
    of the output to float32.
    """
    u = oracle.UNIT_ROUNDOFF[space.widest]
    return 2 * 3 * 16 * 30 * u + 3 * oracle.UNIT_ROUNDOFF["float32"]


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "all"])
def test_attention(space: Space, causal: bool) -> None:
    q, k, v, mask = inputs()
    seen = attention_oracle.visible(q, k, causal, mask)
    exact = softmax_attention(*exactly(q, k, v), SPEC, seen)
    out = rs.attention(
        *(space.asarray(x) for x in (q, k, v)),
        space.ids(POSITIONS),
        SPEC,
        causal=causal,
        mask=space.asarray(mask[:, :, None, :]),
    )
    host = space.check(out, exact.shape, "float32")
    assert np.all(np.abs(host - exact) <= allowed(space))
    assert np.all(host[1, :, :2] == 0) == causal


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "all"])
@pytest.mark.parametrize("name", ["elu+1", "softmax"])
def test_linear_attention(space: Space, causal: bool, name: str) -> None:
    q, k, v, mask = inputs()
    seen = attention_oracle.visible(q, k, causal, mask)
    wide = exactly(q, k, v)
    exact, terms = attention_oracle.linear_attention(*wide, POSITIONS, PLAIN, seen, name)
    out = rs.linear_attention(
        *(space.asarray(x) for x in (q, k, v)),
        space.ids(POSITIONS),
        PLAIN,
        feature_map=name,
        causal=causal,
        key_mask=space.asarray(mask),
    )
    host = space.check(out, exact.shape, "float32")
    u = oracle.UNIT_ROUNDOFF[space.widest]
    bound = attention_oracle.bound(terms, LENGTH, LENGTH, name, q, k, u, 4)
    # Float64 positions of 2^17 are off by 2^-48 turn; the oracle too by some 1e-15.
    bound = bound + oracle.UNIT_ROUNDOFF["float32"] * np.abs(exact) + 1e-13
    assert np.all(np.abs(host - exact) <= bound)


@pytest.mark.parametrize("name", ["numpy-readonly", "array_api_strict", "torch", "dask"])
def test_recurrence(name: str) -> None:
    with open_space(name) as space:
        check_recurrence(space)


def check_recurrence(space: Space) -> None:
    """A prefix of two and steps of one, two and nothing give the whole; the state stays put."""
    q, k, v, mask = inputs()
    q, k, v, mask = (space.asarray(x) for x in (q, k, v, mask))
    ids = space.ids(POSITIONS)
    whole = rs.linear_attention(q, k, v, ids, PLAIN, causal=True, key_mask=mask)
    state = rs.linear_attention_state(
        k[..., :2, :], v[..., :2, :], ids[:2], PLAIN, key_mask=mask[..., :2]
    )
    before = space.to_numpy(state.numerator).copy()
    first, outs = state, []
    for rows in (slice(2, 3), slice(3, 5), slice(5, 5)):
        state, out = rs.linear_attention_step(
            state,
            *(x[..., rows, :] for x in (q, k, v)),
            key_mask=mask[..., rows],
            spec=PLAIN,
        )
        outs.append(space.to_numpy(out))
    exact = space.to_numpy(whole)[..., 2:, :]
    error = np.abs(np.concatenate(outs, axis=-2) - exact)
    assert np.all(error <= 2 * allowed(space))
    assert np.array_equal(space.to_numpy(first.numerator), before)
    assert int(space.to_numpy(state.position)) == POSITIONS[-1]


def test_attention_factor_is_squared_in_the_scores() -> None:
    q, k, v, _ = inputs("float64")
    out = rs.attention(q, k, v, POSITIONS, SPEC)
    assert np.allclose(out, rs.attention(q, k, v, POSITIONS, PLAIN, scale=1.5**2 / 2), atol=1e-14)
    linear = [rs.linear_attention(q, k, v, POSITIONS, spec) for spec in (SPEC, PLAIN)]
    assert np.allclose(linear[0], 2.25 * linear[1], atol=1e-14)


def test_decoding_with_a_cache() -> None:
    """One query among the keys' own positions is the last row of the whole."""
    q, k, v, _ = inputs("float64")
    for function in (rs.attention, rs.linear_attention):
        whole = function(q, k, v, POSITIONS, PLAIN, causal=True)
        last = function(
            q[..., -1:, :], k, v, POSITIONS[-1:], PLAIN, key_positions=POSITIONS, causal=True
        )
        assert np.allclose(last, whole[..., -1:, :], atol=1e-14)
        early = function(
            q[..., :1, :], k, v, POSITIONS[:1] - 1, PLAIN, key_positions=POSITIONS, causal=True
        )
        assert np.all(early == 0)


def test_sequence_axis_and_no_heads() -> None:
    q, k, v, _ = inputs("float64")
    for function in (rs.attention, rs.linear_attention):
        whole = function(q, k, v, POSITIONS, PLAIN, causal=True)
        moved = function(
            *(np.swapaxes(x, 1, 2) for x in (q, k, v)), POSITIONS, PLAIN, causal=True, seq_axis=1
        )
        assert np.array_equal(np.swapaxes(moved, 1, 2), whole)
        alone = function(q[0, 0], k[0, 0], v[0, 0], POSITIONS, PLAIN, causal=True)
        assert np.allclose(alone, whole[0, 0], atol=1e-15)


def test_shift_invariance() -> None:
    """Eq. 16: only m - n counts, at any offset; cos and sin are exact to 1e-9 at 2^31."""
    q, k, v, _ = inputs("float64")
    for function in (rs.attention, rs.linear_attention):
        near = function(q, k, v, range(LENGTH), PLAIN)
        far = function(q, k, v, range(2**31 - LENGTH, 2**31), PLAIN)
        assert np.allclose(near, far, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("keywords", "error", "said"),
    [
        ({"mask": np.ones((5, 4), bool)}, rs.ShapeError, r"mask must broadcast to \(2, 4, 5, 5\)"),
        ({"mask": np.ones((5, 5))}, rs.DtypeError, "mask must be boolean, True where"),
        ({"scale": "1"}, rs.DtypeError, "scale"),
        ({"key_positions": np.arange(4)}, rs.PositionError, r"\(4,\)"),
    ],
    ids=["shape", "dtype", "scale", "key_positions"],
)
def test_bad_softmax_arguments(keywords: Any, error: Any, said: str) -> None:
    q, k, v, _ = inputs()
    with pytest.raises(error, match=said):
        rs.attention(q, k, v, POSITIONS, PLAIN, **keywords)


class TestFavor:
    """Positive orthogonal random features: what the Performer's paper promises of them."""

    X = np.asarray([0.5, -0.3, 0.2, 0.4])
    Y = np.asarray([0.1, 0.4, 0.6, -0.2])

    def estimates(self, orthogonal: bool, count: int = 100_000) -> Any:
        """So many independent estimates of exp(x . y) from 4 directions each: blocks of one map."""
        phi = rs.favor(4, 4 * count, scale=1.0, orthogonal=orthogonal)
        products = phi.query(self.X) * phi.key(self.Y) * 4 * count
        return products.reshape(count, 4).mean(axis=-1)

    @pytest.mark.parametrize("orthogonal", [True, False])
    def test_unbiased(self, orthogonal: bool) -> None:
        """The mean of the estimates, within 5 of its standard errors."""
        given = self.estimates(orthogonal)
        error = abs(given.mean() - np.exp(self.X @ self.Y))
        assert error <= 5 * given.std() / np.sqrt(len(given))

    def test_variance(self) -> None:
        """Independent: the documented formula, within 5 standard errors of a sample variance of
        this spread. Orthogonal: below it by more than that.
        """
        square = np.sum((self.X + self.Y) ** 2)
        formula = np.exp(2 * self.X @ self.Y) * (np.exp(square) - 1) / 4
        given = self.estimates(orthogonal=False)
        spread = np.std((given - given.mean()) ** 2) / np.sqrt(len(given))
        assert abs(given.var() - formula) <= 5 * spread
        assert self.estimates(orthogonal=True).var() < formula - 5 * spread

    def test_directions(self) -> None:
        """Orthogonal in blocks, as long as normal vectors are, and the same for a seed."""
        w = rs.favor(4, 10, seed=1).query.directions
        gram = w[:4] @ w[:4].T
        assert w.shape == (10, 4)
        assert np.allclose(gram, np.diag(np.diag(gram)), atol=1e-13)
        assert len(set(np.diag(gram))) == 4
        assert rs.favor(4, 10, seed=1) == rs.favor(4, 10, seed=1) != rs.favor(4, 10, seed=2)
        assert np.array_equal(w, rs.favor(4, 10, seed=1).key.directions)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((0, 4), "head_dim must be positive, got 0"),
            ((4, 0), "features must be positive, got 0"),
            ((4, 2.0), "features must be an integer"),
        ],
    )
    def test_bad_numbers(self, arguments: Any, said: str) -> None:
        with pytest.raises(rs.SpecError, match=said):
            rs.favor(*arguments)

    def test_bad_scale_and_width(self) -> None:
        with pytest.raises(rs.SpecError, match="scale must be a positive number, got 0"):
            rs.favor(4, 4, scale=0)
        with pytest.raises(rs.ShapeError, match=r"head_dim = 4, got shape \(3,\)"):
            rs.favor(4, 4).query(np.ones(3))
