"""Find out how transformers' rotary code is called, by trying.

A trial decides on one property that every rotary embedding has and a wrong call has not: what
happens to a vector depends on its position, and on nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rotary_spec import TargetError
from rotary_spec_conformance.catalog.transformers_calls import IDS, ORDERS, Call, parameters


def settle(call: Call, widths: list[int], cut: bool) -> Call:
    """``call`` with the head_dim, ids and order with which it works.

    Parameters
    ----------
    call : Call
    widths : list of int
        Features per head to try, the likeliest first; what the width of the tables says is tried
        after them.
    cut : bool
        Whether the attention passes only a part of the features to the apply function.

    Raises
    ------
    TargetError
        If no way of calling rotates by position; it says what the likeliest one ran into.
    """
    problems: list[str] = []
    forms: list[tuple[Call, list[int]]] = []  # with what the width of the tables says
    for ids in _possible_ids(call):
        made = replace(call, ids=ids)
        try:
            forms.append((made, _table_widths(made)))
        except TargetError:
            raise
        except Exception as error:  # ids of a wrong shape fail in many ways
            problems.append(_first_line(error))
    candidates: list[tuple[Call, int, int | None]]
    candidates = [(made, width, None) for made, _ in forms for width in widths]
    if cut:
        candidates += [
            (m, w, part) for m, own in forms for w in widths[:1] for part in own if part < w
        ]
    candidates += [(made, width, None) for made, own in forms for width in own]
    for made, width, part in candidates:
        for order in ORDERS:
            candidate = replace(made, head_dim=width, order=order, cut=part)
            failure = _failure(candidate)
            if failure is None:
                return candidate
            problems.append(failure)
    raise TargetError(f"no way of calling it rotates by position: {problems[0]}")


def _failure(call: Call) -> str | None:
    """Why a call is no rotation by position, or None if it may be one."""
    try:
        return _unlike_rotation(call)
    except TargetError:
        raise
    except Exception as error:  # tensors of a wrong shape fail in many ways
        return _first_line(error)


def rotates_pairs(call: Call) -> bool:
    """Whether one call rotates queries and keys."""
    x, ids = _probe(call.head_dim)
    return len(call.rotate_all((x, x), _given(call, ids))) > 1


def rotates(call: Call) -> bool:
    """Whether a settled call can still be made, with a position per axis."""
    return _failure(call) is None


def _given(call: Call, ids: Any) -> Any:
    """Ids as a call takes them, every axis at the same position."""
    if call.ids == "implied":
        return None
    return ids if call.axes is None else ids.expand(call.axes, *ids.shape)


def _possible_ids(call: Call) -> tuple[str, ...]:
    if call.module is None:
        return ("rows",)
    names = [p.name for p in parameters(call.module)]
    return tuple(i for i in IDS if i != "implied") if "position_ids" in names else ("implied",)


def _probe(width: int) -> tuple[Any, Any]:
    """The same vector everywhere, at positions that repeat within and across rows."""
    import torch

    vector = torch.linspace(-1.0, 1.0, width).sin() + 0.1
    return vector.expand(2, 3, 5, width).clone(), torch.tensor([[0, 1, 5, 1, 3], [3, 5, 0, 2, 1]])


def _table_widths(call: Call) -> list[int]:
    """Features per head that the tables fit: full or half width."""
    if call.module is None:
        return []
    x, ids = _probe(8)
    table = call.tables(x, None if call.ids == "implied" else ids)[0]
    width = int(table.shape[-1])
    return [2 * width] if table.is_complex() else [width, 2 * width]


def _unlike_rotation(call: Call) -> str | None:
    """Why a call is no rotation by position, or None if it may be one."""
    import torch

    x, ids = _probe(call.head_dim)
    y = call.rotate(x, _given(call, ids))
    if tuple(y.shape) != tuple(x.shape):
        return f"it gives shape {tuple(y.shape)} for {tuple(x.shape)}"
    if not bool(torch.isfinite(y).all()):
        return "it gives values that are not finite"
    seen: dict[int, Any] = {}
    rows = torch.arange(5).expand(2, 5) if call.ids == "implied" else ids
    for batch, row in enumerate(rows.tolist()):
        for place, position in enumerate(row):
            for head in range(3):
                value = y[batch, head, place]
                if not torch.allclose(value, seen.setdefault(position, value), atol=1e-5):
                    return "the same vector at the same position is not treated alike"
    if all(torch.equal(value, next(iter(seen.values()))) for value in seen.values()):
        return "the position changes nothing"
    return None


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
