"""The fixed entries of the catalog: other people's code, judged as it deserves."""

from importlib.util import find_spec

import pytest

from rotary_spec import BackendUnavailable, TargetError
from rotary_spec_backends import status
from rotary_spec_conformance import check, identify
from rotary_spec_conformance.catalog import CATALOG, load, names_of

CONFORMING = [
    "transformers:llama",
    "transformers:gpt_neox",
    "transformers:gptj",
    "transformers:roformer",
    *(f"{library}:{layout}"
      for library in ("onnx", "onnxruntime", "diffusers", "mlx")
      for layout in ("half", "interleaved")),
]  # fmt: skip
GIVEN_TABLES = ("onnx", "onnxruntime")


def loaded(name):
    if find_spec(CATALOG[name].module) is None:
        pytest.skip(f"{CATALOG[name].module} is not installed")
    return load(name)


@pytest.mark.parametrize("name", CONFORMING)
def test_conforms(name):
    target, spec = loaded(name)
    report = check(target, spec)
    assert report.ok, report
    if name.startswith(GIVEN_TABLES):
        assert report.grades == []
    else:
        # RoFormer's tables come from float64.
        precision = "exact" if name == "transformers:roformer" else "float32"
        assert {grade.precision for grade in report.grades if grade.dtype == "float32"} == {
            precision
        }


def test_llama_is_trusted_as_far_as_float32_goes():
    report = check(*loaded("transformers:llama"))
    (grade,) = (grade for grade in report.grades if grade.dtype == "float32")
    assert 2**15 < grade.trusted_to < 2**18


@pytest.mark.parametrize("name", CONFORMING)
def test_is_identified(name):
    target, spec = loaded(name)
    found = identify(target)
    assert found.spec == spec, found


def test_rotary_embedding_torch_rounds_positions_and_remembers_it():
    report = check(*loaded("rotary-embedding-torch"), dtypes=("float32", "bfloat16"))
    assert not report.ok
    failed = {result.clause: result for result in report.failures}
    assert set(failed) == {"PREC-2", "STATE-2"}
    assert "positions 256 and 257 give the same rotation" in failed["PREC-2"].message
    assert "float32 after bfloat16" in failed["STATE-2"].message
    low = next(grade for grade in report.grades if grade.dtype == "bfloat16")
    assert (low.precision, low.trusted_to) == ("low", 256)


def test_cupy_is_not_run_without_a_device():
    if status("cupy").usable:
        pytest.skip("there is a CUDA device")
    with pytest.raises(BackendUnavailable, match=r"no CUDA device|not installed"):
        load("rotary-spec:cupy")


def test_liger_says_what_it_needs():
    if find_spec("liger_kernel") is not None:
        pytest.skip("liger-kernel is installed")
    with pytest.raises(TargetError, match="liger_kernel is not installed"):
        load("liger")


def test_families():
    assert names_of("rotary-spec") == [
        f"rotary-spec:{n}" for n in ("numpy", "torch", "jax", "cupy")
    ]
    assert names_of("onnx") == ["onnx:half", "onnx:interleaved"]
    assert names_of("nobody") == []


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nobody", {}, "not in the catalog"),
        ("mlx:half", {"config": "config.json"}, "not built from a config"),
        ("onnx:half", {"device": "cuda"}, "device"),
    ],
)
def test_bad_requests(name, options, words):
    with pytest.raises(TargetError, match=words):
        load(name, **options)
