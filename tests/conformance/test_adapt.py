"""`adapt`: which call shape, which framework, which instance, and what it refuses."""

from __future__ import annotations

import functools
import re
from dataclasses import replace

import jax
import numpy as np
import pytest
import torch

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec_conformance import SHAPES, adapt, check
from rotary_spec_conformance.inference import framework_named

SPEC = rs.RotarySpec(head_dim=8, layout="half")


def written(source: str, **imports):
    """The function ``f`` of a module that holds these names and nothing else."""
    namespace = dict(imports)
    exec(source, namespace)
    return namespace["f"]


# Call shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "shape", "positions"),
    [
        ("x, positions", "x-positions", "explicit"),
        ("x, position_ids", "x-positions", "explicit"),
        ("x, pos, extra=None", "x-positions", "explicit"),
        ("q, input_pos", "x-positions", "explicit"),
        ("hidden, t", "x-positions", "explicit"),
        ("x, offset", "x-offset", "offset"),
        ("x, offset=0", "x-offset", "offset"),
        ("x, scale=1.0, start_pos=0", "x-offset", "offset"),
        ("x, *, seqlen_offset=0", "x-offset", "offset"),
        ("x", "x", "arange"),
        ("x, seq_len=None", "x", "arange"),
        ("x, *args, **kwargs", "x", "arange"),
        ("x, cos, sin", "x-cos-sin", "explicit"),
        ("x, cos, sin, interleaved=False", "x-cos-sin", "explicit"),
        ("q, k, cos, sin", "qk-cos-sin", "explicit"),
        ("q, k, cos, sin, unsqueeze_dim=1", "qk-cos-sin", "explicit"),
        ("xq, xk, freqs_cis", "qk-freqs-cis", "explicit"),
        ("xq, xk, freqs", "qk-freqs-cis", "explicit"),
    ],
)
def test_shape_is_read_off_the_parameters(parameters, shape, positions):
    target = adapt(written(f"def f({parameters}): ..."), spec=SPEC, framework="numpy")
    assert target.about == SHAPES[shape]
    assert target.positions == positions
    assert target.given_tables == shape.endswith(("cos-sin", "cis"))
    assert (target.pair is not None) == shape.startswith("qk")


def test_a_module_is_read_by_its_forward():
    class Rotary(torch.nn.Module):
        def forward(self, x, offset=0):
            return x

    assert adapt(Rotary(), spec=SPEC).positions == "offset"


def test_tables_are_what_apply_makes_of_them():
    target = adapt(
        written("def f(x, position_ids): ..."),
        spec=SPEC,
        framework="numpy",
        apply=written("def f(q, k, cos, sin): ..."),
    )
    assert target.about == SHAPES["tables"]
    assert target.row_positions  # ids (batch, seq) are what such modules take
    assert not target.given_tables


def test_a_shape_that_is_given_is_not_guessed():
    target = adapt(written("def f(a, b, c=1): ..."), spec=SPEC, framework="numpy", shape="x-offset")
    assert target.positions == "offset"


def test_what_is_declared_is_kept():
    target = adapt(
        written("def f(x, positions): ..."),
        spec=SPEC,
        framework="numpy",
        name="mine",
        max_position=512,
        dtypes=("float32",),
        in_place=True,
        versions={"mine": "1.0"},
        about="as I call it",
    )
    assert (target.name, target.max_position, target.dtypes) == ("mine", 512, ("float32",))
    assert (target.in_place, target.versions) == (True, {"mine": "1.0"})
    assert target.about == "as I call it"


# The calls that are made ----------------------------------------------------------------------


def rotate_half_with(x, cos, sin):
    first, second = np.split(x, 2, -1)
    return x * cos + np.concatenate([-second, first], -1) * sin


def rotate_pairs_with(x, cos, sin):
    first, second = np.split(x, 2, -1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


@pytest.mark.parametrize("rotate", [rotate_half_with, rotate_pairs_with])
@pytest.mark.parametrize("order", ["bhsd", "bshd"])
def test_tables_come_in_the_width_and_order_that_is_taken(rotate, order):
    build = adapt(rotate, spec=SPEC, framework="numpy", order=order).build
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 8))
    ids = np.arange(10, 15)
    np.testing.assert_allclose(build()(x, ids), rs.rotate(x, ids, SPEC), atol=1e-15)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_full_tables_are_laid_out_as_the_layout_needs(layout):
    spec = replace(SPEC, layout=layout)

    def rotate(x, cos, sin):
        first, second = (
            (x[..., :4], x[..., 4:]) if layout == "half" else (x[..., ::2], x[..., 1::2])
        )
        turned = np.concatenate([-second, first], -1)
        if layout == "interleaved":
            turned = np.stack([-second, first], -1).reshape(x.shape)
        return x * cos + turned * sin

    x, ids = np.random.default_rng(0).standard_normal((1, 2, 4, 8)), np.arange(4)
    out = adapt(rotate, spec=spec, framework="numpy").build()(x, ids)
    np.testing.assert_allclose(out, rs.rotate(x, ids, spec), atol=1e-15)


def test_a_pair_maker_rotates_queries_and_keys_of_their_own_head_counts():
    def rotate(q, k, cos, sin):
        return rotate_pairs_with(q, cos, sin), rotate_pairs_with(k, cos, sin)

    pair = adapt(rotate, spec=SPEC, framework="numpy").pair
    rng = np.random.default_rng(0)
    q, k, ids = rng.standard_normal((2, 4, 5, 8)), rng.standard_normal((2, 1, 5, 8)), np.arange(5)
    for got, x in zip(pair()(q, k, ids), (q, k), strict=True):
        np.testing.assert_allclose(got, rs.rotate(x, ids, SPEC), atol=1e-15)


def test_an_offset_is_passed_by_its_own_name():
    seen = []

    def rotate(x, *, start_pos=0):
        seen.append(start_pos)
        return x

    adapt(rotate, spec=SPEC, framework="numpy").build()(np.zeros((1, 1, 2, 8)), 7)
    assert seen == [7]


# Instances ------------------------------------------------------------------------------------


class Counter:
    def __init__(self):
        self.calls = 0

    def __call__(self, x, positions):
        self.calls += 1
        return x + self.calls


@pytest.mark.parametrize(
    ("obj", "factory"), [(Counter, True), (functools.partial(Counter), True), (Counter(), False)]
)
def test_every_build_is_a_new_instance(obj, factory):
    target = adapt(obj, spec=SPEC, framework="numpy", factory=factory)
    x = np.zeros((1, 1, 1, 8))
    assert target.fresh
    assert [target.build()(x, None).max() for _ in range(3)] == [1, 1, 1]


def test_functions_and_what_refuses_to_be_copied_have_one_instance():
    class Single(Counter):
        def __deepcopy__(self, memo):
            raise TypeError("there is one of me")

    single = Single()
    for obj in (written("def f(x, positions): ..."), single, single.__call__):
        assert not adapt(obj, spec=SPEC, framework="numpy").fresh


def test_adapting_does_not_use_up_the_instance():
    """The trial call that tells the framework is made on a copy."""
    counter = Counter()
    adapt(counter, spec=SPEC)
    assert counter.calls == 0


# Frameworks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "framework"),
    [("torch.Tensor", "torch"), ("jax.Array", "jax"), ("np.ndarray", "numpy"), ("mx.array", "mlx")],
)
def test_framework_by_annotation(annotation, framework):
    pytest.importorskip("mlx" if framework == "mlx" else framework)
    function = written(f"def f(x: '{annotation}', positions): return x")
    if framework == "mlx":
        function.__annotations__["x"] = "mlx.core.array"
    assert adapt(function, spec=SPEC).framework.name == framework


@pytest.mark.parametrize(
    ("imports", "framework"),
    [
        ({"torch": torch}, "torch"),
        ({"jnp": jax.numpy}, "jax"),
        ({"np": np}, "numpy"),
        ({"np": np, "torch": torch}, "torch"),  # NumPy beside another is a helper
    ],
)
def test_framework_by_imports(imports, framework):
    function = written("def f(x, positions): return helper(x)", **imports)
    assert adapt(function, spec=SPEC).framework.name == framework


def test_framework_by_the_imports_that_the_function_uses():
    source = "def f(x, positions): return jnp.asarray(x)"
    function = written(source, torch=torch, jnp=jax.numpy)
    assert adapt(function, spec=SPEC).framework.name == "jax"


@pytest.mark.parametrize(
    ("body", "framework"),
    [("x.astype(x.dtype).copy()", "numpy"), ("x.clone()", "torch"), ("x.at[0].set(0)", "jax")],
)
def test_framework_by_trial(body, framework):
    assert (
        adapt(written(f"def f(x, positions): return {body}"), spec=SPEC).framework.name == framework
    )


def test_framework_by_trial_of_tables_and_apply():
    module = written("def f(x, position_ids): return x, x.clone()")
    apply = written("def f(q, k, cos, sin): return q * cos, k * sin")
    assert adapt(module, spec=SPEC, apply=apply).framework.name == "torch"


def test_framework_by_trial_in_the_order_that_is_taken():
    """With heads in the place of the sequence, this call would fail in every framework."""
    body = "def f(x, positions): return x.clone() + 0 * positions[:, None, None]"
    assert adapt(written(body), spec=SPEC, order="bshd").framework.name == "torch"


def test_a_framework_that_is_given_is_not_guessed():
    function = written("def f(x: 'torch.Tensor', positions): return x")
    assert adapt(function, spec=SPEC, framework="jax").framework.name == "jax"
    own = framework_named("numpy")
    assert adapt(function, spec=SPEC, framework=own).framework is own


# Refusals -------------------------------------------------------------------------------------


class NeedsDimension:
    def __init__(self, dim):
        self.dim = dim

    def __call__(self, x, positions):
        return x


class CannotBeBuilt:
    def __init__(self):
        raise OSError("no such checkpoint")


@pytest.mark.parametrize(
    ("obj", "options", "says"),
    [
        (3, {}, "must be callable, got 3 (int)"),
        (NeedsDimension, {}, "NeedsDimension is a class. Hint: factory=True"),
        (NeedsDimension, {"factory": True}, "missing a required argument: 'dim'"),
        (CannotBeBuilt, {"factory": True}, "CannotBeBuilt raised OSError: no such checkpoint"),
        (lambda: 3, {"factory": True}, "gave 3, which is not callable"),
        (lambda x, a, b: x, {}, "cannot tell how to call"),
        (lambda q, k: (q, k), {}, "cannot tell how to call"),
        (lambda *args: args, {}, "cannot tell how to call"),
        (lambda x, sin, cos: x, {}, "cannot tell how to call"),
        (lambda x, positions: x, {"shape": "guess"}, "shape must be auto or one of x-positions"),
        (lambda x, ids: (x, x), {"shape": "tables"}, "needs apply="),
        (lambda x, positions: x, {"framework": "abacus"}, "framework must be one of numpy"),
        (lambda x, positions: x.nothing, {}, "cannot tell the framework"),
        (lambda x, positions: [x], {}, "cannot tell the framework"),
        (lambda x, pos: x, {"framework": "numpy", "positions": "later"}, "positions must be"),
        (lambda x, pos: x, {"framework": "numpy", "dtypes": ("int8",)}, "dtypes must be of"),
    ],
)
def test_what_cannot_be_adapted_says_why(obj, options, says):
    with pytest.raises(TargetError, match=re.escape(says)):
        adapt(obj, spec=SPEC, **options)


def test_an_unknown_shape_lists_the_known_ones():
    with pytest.raises(TargetError) as caught:
        adapt(lambda x, a, b: x, spec=SPEC)
    assert all(shape in str(caught.value) for shape in SHAPES)


def test_check_adapts_with_its_options():
    report = check(rotate_pairs_with, SPEC, framework="numpy", name="mine", dtypes=["float32"])
    assert report.target == "mine"
    assert report.ok
