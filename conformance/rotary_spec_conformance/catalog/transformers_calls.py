"""How transformers' rotary code can be called.

The tables come from ``module(x, position_ids)`` with ids of several shapes, and go into an apply
function that wants its tensors in one of several orders of axes. `transformers_trial` finds out
which.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from rotary_spec import TargetError

IDS = ("rows", "axes 2", "axes 3", "axes 4", "last 2", "flat 3", "flat 2", "flat", "implied")
"""Shapes of the position ids that a module is given; axes get the same position. A module for two
axes ignores a third, so three are tried before two."""

ORDERS = ("bhsd", "bshd", "bhsd+", "bshd+", "shd", "bsd")
"""Orders of the tensors' axes; with +, the tables come with the heads axis. What has no batch axis
gets it folded into the sequence, what has no heads axis gets it folded into the batch."""

_TABLE = {"cos": 0, "sin": 1, "cos_k": 0, "sin_k": 1}
_WHOLE = ("freqs_cis", "freqs_ci", "freqs", "relative_position_embeddings")
_IDS = ("pos", "pos_ids", "position_ids", "positions")


@dataclass(frozen=True)
class Call:
    """One way to rotate: a module, an apply function, and how both are called.

    Attributes
    ----------
    module : callable or None
        Gives the tables; None where the apply function takes positions.
    apply : callable
    head_dim : int
        Features per head.
    cut : int or None
        The first so many features go through the apply function, the others past it, as the
        attention around it does; None: all.
    ids : str
        One of `IDS`.
    order : str
        One of `ORDERS`.
    layer_type : str or None
        Passed to the module where it keeps a table per layer type.
    axes : int or None
        On how many axes positions say where they stand, axes first; None: one position for all.
    flipped : bool
        Whether the code takes these axes in the opposite order.
    """

    module: Callable[..., Any] | None
    apply: Callable[..., Any]
    head_dim: int = 0
    ids: str = "rows"
    order: str = "bhsd"
    layer_type: str | None = None
    cut: int | None = None
    axes: int | None = None
    flipped: bool = False

    def on_axes(self, count: int, *, flipped: bool) -> Call:
        """The same call with a position per axis."""
        kind = self.ids.partition(" ")[0].replace("rows", "axes")  # text may leave the axes out
        return replace(self, ids=f"{kind} {count}", axes=count, flipped=flipped)

    def rotate(self, x: Any, positions: Any) -> Any:
        """``x`` of shape (batch, heads, seq, head_dim), rotated.

        Positions have shape (seq,) or (batch, seq), per axis where the call has ``axes``.
        """
        return self.rotate_all((x,), positions)[0]

    def rotate_all(self, tensors: tuple[Any, ...], positions: Any) -> tuple[Any, ...]:
        """Every tensor that the apply function returns, for as many given (the last repeated)."""
        batch, _, seq, _ = tensors[0].shape
        if self.axes is not None:
            positions = positions[:, None] if positions.ndim == 2 else positions
            positions = positions.flip(0) if self.flipped else positions
        ids = None if positions is None else positions.expand(*positions.shape[:-2], batch, seq)
        tables = [] if self.module is None else self.tables(tensors[0], ids)
        entering = tuple(x if self.cut is None else x[..., : self.cut] for x in tensors)
        result = self.apply(*self._arguments(entering, tables, ids))
        results = result if isinstance(result, tuple | list) else (result,)
        left = [self._leave(y, batch, seq) for y in results if y is not None]
        if self.cut is None:
            return tuple(left)
        return tuple(_joined(y, x[..., self.cut :]) for x, y in zip(tensors, left, strict=False))

    def tables(self, x: Any, ids: Any) -> list[Any]:
        """What the module gives: each table of shape (batch, seq, width), or as it came."""
        assert self.module is not None
        batch, _, seq, _ = x.shape
        extra = {"layer_type": self.layer_type} if self.layer_type is not None else {}
        if self.ids == "implied":
            made = self.module(x.transpose(1, 2).flatten(2), **extra)
        else:
            made = self.module(x, self._shaped(ids), **extra)
        tables = list(made) if isinstance(made, tuple | list) else [made]
        if self.ids != "implied":
            return [_by_rows(table, batch, seq) for table in tables]
        if any(seq not in table.shape[:-1] for table in tables):
            shapes = " and ".join(str(tuple(table.shape)) for table in tables)
            raise TargetError(f"its tables, of shape {shapes}, have no row per position")
        if len(tables) == 1 and self._wants_cos_and_sin():  # the angles
            tables = [tables[0].cos(), tables[0].sin()]
        return [t if t.ndim > 3 else t.reshape(-1, t.shape[-1]) for t in tables]

    def _wants_cos_and_sin(self) -> bool:
        return any(p.name in _TABLE for p in parameters(self.apply))

    def _arguments(self, tensors: tuple[Any, ...], tables: list[Any], ids: Any) -> Iterator[Any]:
        """The apply function's positional arguments, by the names of its parameters."""
        entered = [self._enter(x) for x in tensors]
        tables = [self._with_heads(table) for table in tables]
        given = 0
        names = [p.name for p in parameters(self.apply)]
        last = max((i for i, name in enumerate(names) if _is_role(name)), default=0)
        if not tables and any(name in _TABLE or name in _WHOLE for name in names):
            raise TargetError("its tables come from elsewhere than a rotary module")
        for index, parameter in enumerate(parameters(self.apply)):
            name, optional = parameter.name, parameter.default is not inspect.Parameter.empty
            if index > last and optional:
                return
            if name in _TABLE:
                yield tables[_TABLE[name]]
            elif name in _WHOLE:
                yield tables[0]
            elif name in _IDS:
                yield parameter.default if optional else self._positions(name, tensors[0], ids)
            elif index < last:
                yield entered[min(given, len(entered) - 1)]
                given += 1
            else:
                raise TargetError(f"its apply function needs {name}, which positions do not give")

    def _positions(self, name: str, x: Any, ids: Any) -> Any:
        if ids is None:
            import torch

            return torch.arange(x.shape[2], device=x.device)[None]
        if self.module is None:  # the function makes its own tables, here for three axes
            return (ids[:, None],) * 3 if name == "pos_ids" else ids[:, None]
        return self._shaped(ids)

    def _shaped(self, ids: Any) -> Any:
        """Ids in the form that the module takes; those without axes are the same on each."""
        kind, _, number = self.ids.partition(" ")
        if number and self.axes is None:
            ids = ids.expand(int(number), *ids.shape)
        if kind == "last":
            return ids.movedim(0, -1)
        if kind == "flat":
            return ids.flatten(1).T if number else ids.reshape(-1)
        return ids

    def _enter(self, x: Any) -> Any:
        if self.order in ("bhsd", "bhsd+"):
            return x
        if self.order == "bsd":
            return x.flatten(0, 1)
        swapped = x.transpose(1, 2)
        return swapped.flatten(0, 1) if self.order == "shd" else swapped

    def _leave(self, y: Any, batch: int, seq: int) -> Any:
        if self.order in ("bhsd", "bhsd+"):
            return y
        if self.order == "bsd":
            return y.unflatten(0, (batch, -1))
        return (y.unflatten(0, (batch, seq)) if self.order == "shd" else y).transpose(1, 2)

    def _with_heads(self, table: Any) -> Any:
        if table.ndim != 3 or self.ids == "implied":
            return table
        if self.order == "shd":
            return table.flatten(0, 1)
        if self.order == "bhsd+":
            return table[:, None]
        return table[:, :, None] if self.order == "bshd+" else table


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Named parameters of a function, or of a module's ``forward``."""
    forward = getattr(function, "forward", function)
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in inspect.signature(forward).parameters.values() if p.kind not in kinds]


def _is_role(name: str) -> bool:
    return name in _TABLE or name in _WHOLE or name in _IDS


def _by_rows(table: Any, batch: int, seq: int) -> Any:
    """``table`` as (batch, seq, width), if it has one row per id."""
    rows = [n for n in table.shape[:-1] if n != 1]
    if rows not in ([batch, seq], [batch * seq], [n for n in (batch, seq) if n != 1]):
        raise ValueError(f"tables of shape {tuple(table.shape)} for ids of shape {(batch, seq)}")
    return table.reshape(batch, seq, table.shape[-1])


def _joined(rotated: Any, passed: Any) -> Any:
    import torch

    return torch.cat((rotated, passed), dim=-1)
