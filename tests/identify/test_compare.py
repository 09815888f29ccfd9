"""compare(): equal, equal after a permutation, or different, and from where on."""

import numpy as np
import pytest

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_conformance import compare
from rotary_spec_conformance.catalog import load

HALF = rs.RotarySpec(head_dim=64, layout="half")
PAIRS = rs.RotarySpec(head_dim=64)


def of(spec):
    return lambda x, positions: rs.rotate(x, positions, spec)


def test_equal():
    found = compare(of(HALF), of(HALF), 64, framework="numpy")
    assert found.verdict == "equal"
    assert found.permutation is None
    assert found.compared_to == 2**17 - 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (PAIRS, HALF),
        (HALF, PAIRS),
        (rs.RotarySpec(64, rotary_dim=32), rs.RotarySpec(64, layout="half", rotary_dim=32)),
        (rs.RotarySpec(64, rotary_dim=32), rs.RotarySpec(64, rotary_dim=32, rotary_start=32)),
        (HALF, rs.RotarySpec(64, layout="half", inverse=True)),
        (HALF, rs.RotarySpec(64, output_layout="half")),
    ],
    ids=lambda spec: repr(spec),
)
def test_permutations(a, b):
    found = compare(of(a), of(b), 64, framework="numpy")
    assert found.verdict == "equal after a permutation"
    x = np.random.default_rng(0).standard_normal((1, 2, 8, 64))
    lanes, outputs = list(found.permutation), list(found.output_permutation)
    ids = np.arange(8) * 1000
    np.testing.assert_allclose(
        rs.rotate(x[..., lanes], ids, b), rs.rotate(x, ids, a)[..., outputs], atol=1e-12
    )


@pytest.mark.parametrize(("a", "b"), [(PAIRS, HALF), (HALF, PAIRS)], ids=["to half", "from half"])
def test_the_printed_conversion_keeps_the_scores(a, b):
    found = compare(of(a), of(b), 64, framework="numpy")
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((8, 32))
    q, k = rng.standard_normal((2, 2 * 64, 32))
    ids = np.arange(8)

    def scores(wq, wk, spec):
        heads = ((tokens @ w.T).reshape(8, 2, 64).swapaxes(0, 1) for w in (wq, wk))
        turned = [rs.rotate(h, ids, spec) for h in heads]
        return turned[0] @ turned[1].swapaxes(-1, -2)

    converted = [eval(found.conversion(), {"rs": rs, "weight": w}) for w in (q, k)]
    np.testing.assert_allclose(scores(*converted, b), scores(q, k, a), atol=1e-10)


def test_different_bases_differ_in_the_base_and_soon():
    found = compare(
        of(HALF), of(rs.RotarySpec(64, layout="half", base=10_100)), 64, framework="numpy"
    )
    assert found.verdict == "different"
    assert next(name for name, *_ in found.differences) == "base"
    assert found.differ_from == 1


def test_a_low_precision_table_differs_from_where_it_is_rounded():
    def rounded(x, positions):
        return rs.rotate(x, positions.astype(np.float16).astype(np.int64), HALF)

    found = compare(of(HALF), rounded, 64, framework="numpy", dtypes=("float32",))
    assert found.verdict == "different"
    assert found.differ_from == 2049


def test_meta_style_llama_against_transformers():
    pytest.importorskip("transformers")
    import torch

    def apply_rotary_emb(xq: torch.Tensor, xk: torch.Tensor, freqs_cis: torch.Tensor):
        def turn(x):
            pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
            return torch.view_as_real(pairs * freqs_cis[:, None, :]).flatten(-2).type_as(x)

        return turn(xq), turn(xk)

    from rotary_spec_conformance import identify
    from rotary_spec_conformance.identification.identify import target_of

    llama, _ = load("transformers:llama")
    meta = target_of(apply_rotary_emb, 128, {})
    assert identify(meta).layout == "interleaved"
    found = compare(meta, llama)
    assert found.verdict == "equal after a permutation"
    assert "interleaved -> half" in found.summary()
    assert "from_layout='interleaved', to_layout='half'" in str(found)


def test_head_dims_must_agree():
    other, _ = load("rotary-spec:numpy")
    with pytest.raises(TargetError, match="head_dim"):
        compare(load("onnx:half")[0], other)
