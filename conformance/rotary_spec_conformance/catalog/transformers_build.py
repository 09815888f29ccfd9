"""From a rotary embedding in transformers' source to a target: built, called, wrapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

from rotary_spec import TargetError
from rotary_spec_backends.frameworks import TorchFramework
from rotary_spec_conformance.catalog.transformers_calls import Call, parameters
from rotary_spec_conformance.catalog.transformers_configs import head_dims, parts_of, read_config
from rotary_spec_conformance.catalog.transformers_source import Modeling, Use
from rotary_spec_conformance.catalog.transformers_trial import rotates, rotates_pairs, settle
from rotary_spec_conformance.target import Rotary, Target

COLUMN_FIRST = frozenset({"inkling2_vision", "kimi_k25_vision", "step3p5_vision"})
"""Model types whose code takes (row, column) and turns the first pairs by the column, which is the
first axis of their specs."""


@dataclass(frozen=True)
class Built:
    """A rotary embedding of a model type, ready to be called.

    Attributes
    ----------
    name : str
        "transformers:<model type>", and what tells it from its siblings.
    code : str
        The classes and functions that it consists of.
    target : Target
    config : object
        The config it was built from.
    layer_type : str or None
        Which of the config's rotary embeddings it is, where the config has several.
    call : Call or None
        How the code is called; None for those written by hand.
    make : callable or None
        Makes the call's module.
    """

    name: str
    code: str
    target: Target
    config: Any
    layer_type: str | None = None
    call: Call | None = None
    make: Callable[[], Any] | None = None

    def on_axes(self, count: int) -> Built | None:
        """The same with a position per axis, if its module takes them."""
        if self.call is None or self.make is None or self.call.module is None:
            return None
        call = self.call.on_axes(count, flipped=self.config.model_type in COLUMN_FIRST)
        if not rotates(call):
            return None
        return replace(self, call=call, target=_target(self.name, self.code, call, self.make))


@dataclass(frozen=True)
class Unbuilt:
    """A rotary embedding that cannot be called with positions, and why not."""

    name: str
    code: str
    reason: str


def build_use(model_type: str, file: Modeling, use: Use, given: Any) -> Iterator[Built | Unbuilt]:
    """What a use in the source comes to: one per apply function and layer type.

    Parameters
    ----------
    model_type : str
    file : Modeling
    use : Use
        One of the file's.
    given : path, mapping, config object or None
        The config; None: the default of its class.
    """
    name = f"transformers:{model_type}"
    code = " with ".join(filter(None, (use.tables, use.appliers[0] if use.appliers else None)))
    if use.tables is None and use.owner is None:
        yield Unbuilt(name, code, "it is defined and called nowhere: the model does not rotate")
        return
    try:
        module = import_module(file.module)
        config = read_config(getattr(module, str(use.config)), model_type, given)
        make, config = _maker(module, use, config)
        sample = make()
        appliers = _chosen(file, use, config)
    except Exception as error:  # code and configs of others fail in many ways
        yield Unbuilt(name, code, reason_of(error, given))
        return
    for applier in appliers:
        code = " with ".join(filter(None, (use.tables, applier)))
        for layer_type in _layer_types(sample):
            try:
                apply = _applier(module, applier, config)
                call = settle(
                    Call(sample, apply, layer_type=layer_type),
                    head_dims(config, layer_type),
                    file.cuts(applier),
                )
            except Exception as error:
                yield Unbuilt(name, code, reason_of(error, given))
                continue
            target = _target(name, code, call, make)
            yield Built(name, code, target, config, layer_type, call, make)


def _maker(module: Any, use: Use, config: Any) -> tuple[Callable[[], Any], Any]:
    """What makes the module of the tables, and the config (or part of it) that it takes."""
    if use.tables is None:
        return (lambda: None), config
    tables: Any = getattr(module, use.tables)
    if not isinstance(tables, type):
        return (lambda: _Sinusoids(tables, config)), config
    missing = [p.name for p in parameters(tables)[1:]
               if p.name not in ("x", "hidden_states", "position_ids", "layer_type")]  # fmt: skip
    if missing:
        raise TargetError(f"its tables are made from {', '.join(missing)}, not from position ids")
    # An annotation may name the config around the one that is meant.
    taken = next((c for c in [config, *parts_of(config)] if _takes(tables, c)), config)
    return partial(tables, taken), taken


def _takes(tables: Callable[[Any], Any], config: Any) -> bool:
    try:
        tables(config)
    except Exception:  # in whatever way the wrong config fails
        return False
    return True


class _Sinusoids:
    """Tables of a ``create_sinusoidal_positions``: rows of [sin | cos], gathered by position."""

    def __init__(self, create: Callable[..., Any], config: Any) -> None:
        self.length = int(config.n_positions)
        self.table = create(self.length, int(config.rotary_dim))

    def __call__(self, x: Any, position_ids: Any) -> tuple[Any, Any]:
        sin, cos = self.table[position_ids].chunk(2, dim=-1)
        return cos, sin

    forward = __call__


def _chosen(file: Modeling, use: Use, config: Any) -> list[str]:
    """The apply functions that run with this config; all, where it turns rotation off."""
    chosen = []
    for applier in use.appliers:
        condition = file.condition(applier) or ""
        flag = getattr(config, condition.removeprefix("not "), None)
        if flag is None or bool(flag) is not condition.startswith("not "):
            chosen.append(applier)
    return chosen or list(use.appliers)


def _applier(module: Any, name: str, config: Any) -> Callable[..., Any]:
    """A function of the module; a method, of an instance without weights."""
    owner, _, method = name.rpartition(".")
    if not owner:
        return getattr(module, name)  # type: ignore[no-any-return]
    import torch

    with torch.device("meta"):
        instance = getattr(module, owner)(config)
    if hasattr(instance, "num_heads"):
        instance.num_heads = 1  # heads come folded into the batch
    return getattr(instance, method)  # type: ignore[no-any-return]


def _layer_types(module: Any) -> list[str | None]:
    """The layer types for which a module keeps frequencies of their own."""
    if module is None or "layer_type" not in [p.name for p in parameters(module)]:
        return [None]
    buffers = [name for name, _ in module.named_buffers() if name.endswith("_inv_freq")]
    kept = [name.removesuffix("_inv_freq") for name in buffers if "original_inv" not in name]
    return [*kept] or [None]


def _target(name: str, code: str, call: Call, make: Callable[[], Any]) -> Target:
    def fresh() -> Call:
        return replace(call, module=make())

    def build() -> Rotary:
        return fresh().rotate

    def build_pair() -> Callable[[Any, Any, Any], Any]:
        made = fresh()
        return lambda q, k, ids: made.rotate_all((q, k), ids)[:2]

    about = code
    if call.cut is not None:
        about += f", given the first {call.cut} of {call.head_dim} lanes by the attention"
    return Target(
        name=name,
        build=build,
        framework=TorchFramework(),
        head_dim=call.head_dim,
        positions="arange" if call.ids == "implied" else "explicit",
        max_position=getattr(call.module, "length", None),
        row_positions=call.ids != "implied",
        axes=call.axes,
        pair=build_pair if rotates_pairs(call) else None,
        versions={"transformers": version("transformers"), "torch": version("torch")},
        about=about,
    )


def reason_of(error: Exception, given: Any) -> str:
    """What an error means, in one line."""
    if isinstance(error, TargetError):
        return str(error)
    text = (str(error).strip().splitlines() or [""])[0]
    which = "the default config" if given is None else "this config"
    return f"not with {which}: {type(error).__name__}: {text}"
