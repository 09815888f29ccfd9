"""Attention as an operation of a backend: softmax and linear, with rotary positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from array_api_compat import array_namespace

from rotary_spec import DtypeError, LinearAttentionState, RotarySpec, ShapeError
from rotary_spec._array import device_of, move_axis
from rotary_spec.arguments import check_features, check_spec
from rotary_spec.attention_arguments import (
    check_lengths,
    check_mask,
    default_scale,
    order,
    sequence_last_but_one,
)
from rotary_spec.linear_attention_recurrence import (
    check_onwards,
    check_state,
    last_position,
    seen_after,
    step_positions,
)
from rotary_spec.linear_attention_terms import (
    AnyFeatureMap,
    Denominator,
    LinearAttentionOptions,
    check_denominators,
    check_options,
)
from rotary_spec_backends import chunked
from rotary_spec_backends.blocked_attention import SoftmaxOptions, blocked_attention
from rotary_spec_backends.chunked import Step, Tokens, Tools
from rotary_spec_backends.frameworks import Array

_HOST_ARRAYS = (np.ndarray, np.generic)  # a tuple: torch.compile does not read a union


class AttentionOperations:
    """The attention methods of a `Backend`, on top of its ``_rotate``.

    A backend gets them without writing any; `_scan`, `_run` and `_softmax_attention` are where
    a framework does better.
    """

    chunk: ClassVar[int] = 128
    """Tokens whose weights are held at once in linear attention, where the caller says nothing."""

    if TYPE_CHECKING:  # a `Backend`'s
        name: ClassVar[str]
        accepts: Callable[[object], bool]
        _ids: Callable[[Any, Array], Array]
        _positions: Callable[[Array, Array, RotarySpec], Array]
        _rotate: Callable[..., tuple[Array, ...]]

    def attention(
        self,
        q: Array,
        k: Array,
        v: Array,
        positions: Array,
        spec: RotarySpec,
        *,
        key_positions: Array | None = None,
        causal: bool = False,
        mask: Array | None = None,
        scale: float | None = None,
        seq_axis: int = -2,
        seq_len: int | None = None,
    ) -> Array:
        """Softmax attention on rotated queries and keys (RoFormer Eq. 2 with 14).

        Takes and gives what `rotary_spec.attention` does, with NumPy positions and masks too. The
        rotated q and k are rounded to their own dtype, as fused kernels take them.

        Raises
        ------
        DtypeError, ShapeError, PositionError
            If an argument does not fit; nothing is computed then.
        """
        check_spec(spec)
        xp = self._own(q, k, v)
        q, k, v, axis = sequence_last_but_one(q, k, v, seq_axis, xp)
        check_features(q, spec, name="q")
        check_features(k, spec, name="k")
        positions, key_positions = self._both_positions(q, k, positions, key_positions, spec)
        mask = self._mask(mask, (*q.shape[:-1], k.shape[-2]), "mask", q)
        options = SoftmaxOptions(spec, causal, default_scale(scale, spec.head_dim), seq_len)
        out = self._softmax_attention(q, k, v, positions, key_positions, mask, options)
        return move_axis(out, -2, axis, xp)

    def linear_attention(
        self,
        q: Array,
        k: Array,
        v: Array,
        positions: Array,
        spec: RotarySpec,
        *,
        feature_map: AnyFeatureMap = "elu+1",
        denominator: Denominator = "unrotated",
        causal: bool = False,
        key_positions: Array | None = None,
        key_mask: Array | None = None,
        eps: float = 0.0,
        seq_axis: int = -2,
        seq_len: int | None = None,
        chunk: int | None = None,
    ) -> Array:
        """Linear attention with RoPE in chunks (RoFormer Eq. 19): memory linear in the length.

        Takes and gives what `rotary_spec.linear_attention` does, with NumPy positions and masks
        too. All sums are float32, or float64 for float64. Time is linear in the length too, but
        for causal queries whose keys have positions of their own: those may come in any order.
        Gradients recompute each chunk, so that training memory is linear.

        Parameters
        ----------
        chunk : int or None
            Tokens whose weights are held at once; None is the backend's own choice. It changes
            speed and rounding, not the result. Any length is fine.

        Raises
        ------
        DtypeError, ShapeError, PositionError, SpecError
            If an argument does not fit; nothing is computed then.
        DenominatorError
            If an unrotated denominator is not positive and finite, outside traced functions.
        """
        options = check_options(spec, feature_map, denominator, eps, seq_len)
        xp, chunk = self._own(q, k, v), self._chunk(chunk)
        q, k, v, axis = sequence_last_but_one(q, k, v, seq_axis, xp)
        positions, key_positions = self._both_positions(q, k, positions, key_positions, spec)
        key_mask = self._mask(key_mask, tuple(k.shape[:-1]), "key_mask", k)
        if 0 in (*q.shape[:-1], *k.shape[:-1]):
            out, low = _nothing(q, k, v, xp), None
        elif causal and key_positions is None:
            tokens = Tokens((q, k, v), (positions, key_mask))
            carry = chunked.empty_sums(k, v, options, xp)
            _, (out, low) = self._run(chunked.causal, options, chunk, xp, tokens, carry, None)
        else:
            keys = positions if key_positions is None else key_positions
            keys = Tokens((k, v), (keys, key_mask))
            if causal:
                query_order, key_order = order(q, k, positions, key_positions, spec, xp)
                queries = Tokens((q,), (positions, query_order))
                out, low = self._run(chunked.by_order, options, chunk, xp, queries, keys, key_order)
            else:
                queries = Tokens((q,), (positions,))
                out, low = self._run(chunked.bidirectional, options, chunk, xp, queries, keys)
        if low is not None:
            check_denominators(low, options, xp)
        return move_axis(out, -2, axis, xp)

    def linear_attention_state(
        self,
        k: Array,
        v: Array,
        positions: Array,
        spec: RotarySpec,
        *,
        feature_map: AnyFeatureMap = "elu+1",
        denominator: Denominator = "unrotated",
        key_mask: Array | None = None,
        eps: float = 0.0,
        seq_axis: int = -2,
        seq_len: int | None = None,
        chunk: int | None = None,
    ) -> LinearAttentionState:
        """The state after these keys and values, in chunks.

        Takes and gives what `rotary_spec.linear_attention_state` does; the state is float32, or
        float64 for float64.
        """
        options = check_options(spec, feature_map, denominator, eps, seq_len)
        xp, chunk = self._own(k, v), self._chunk(chunk)
        k, k, v, _ = sequence_last_but_one(k, k, v, seq_axis, xp)
        positions, _ = self._both_positions(k, k, positions, None, spec)
        key_mask = self._mask(key_mask, tuple(k.shape[:-1]), "key_mask", k)
        check_onwards(positions, None, spec, xp)
        sums = chunked.empty_sums(k, v, options, xp)
        if k.shape[-2]:
            keys = Tokens((k, v), (positions, key_mask))
            sums = self._run(chunked.gathered, options, chunk, xp, keys, sums)
        return LinearAttentionState(
            *sums,
            seen_after(None, k, key_mask, xp),
            last_position(None, positions, k, spec, xp),
            options,
        )

    def linear_attention_step(
        self,
        state: LinearAttentionState,
        q: Array,
        k: Array,
        v: Array,
        *,
        positions: Array | None = None,
        key_mask: Array | None = None,
        spec: RotarySpec | None = None,
        seq_axis: int = -2,
        chunk: int | None = None,
    ) -> tuple[LinearAttentionState, Array]:
        """Causal linear attention of the next tokens, by the state.

        Takes and gives what `rotary_spec.linear_attention_step` does.
        """
        xp, chunk = self._own(q, k, v), self._chunk(chunk)
        q, k, v, axis = sequence_last_but_one(q, k, v, seq_axis, xp)
        options = check_state(state, k, v, spec)
        if positions is not None:
            positions = self._positions(positions, k, options.spec)
        positions = step_positions(state, positions, k, xp)
        positions, _ = self._both_positions(q, k, positions, None, options.spec)
        key_mask = self._mask(key_mask, tuple(k.shape[:-1]), "key_mask", k)
        check_onwards(positions, state.position, options.spec, xp)
        if not k.shape[-2]:
            return state, _nothing(q, k, v, xp)
        tokens = Tokens((q, k, v), (positions, key_mask))
        carry = (state.numerator, state.normaliser)
        if 0 in (*q.shape[:-1], *k.shape[:-1]):
            (numerator, normaliser), (out, low) = carry, (_nothing(q, k, v, xp), None)
        else:
            (numerator, normaliser), (out, low) = self._run(
                chunked.causal, options, chunk, xp, tokens, carry, state.seen
            )
        if low is not None:
            check_denominators(low, options, xp)
        after = replace(
            state,
            numerator=numerator,
            normaliser=normaliser,
            seen=seen_after(state.seen, k, key_mask, xp),
            position=last_position(state.position, positions, k, options.spec, xp),
        )
        return after, move_axis(out, -2, axis, xp)

    def _own(self, *arrays: Array) -> Any:
        """The namespace of arrays that must be this framework's."""
        self._check_own(*arrays)
        return self._namespace(*arrays)

    def _check_own(self, *arrays: Array) -> None:
        for array in arrays:
            if not self.accepts(array):
                raise DtypeError(
                    f"backend {self.name!r} takes {self.name} arrays, got "
                    f"{type(array).__module__}.{type(array).__name__}"
                )

    def _namespace(self, *arrays: Array) -> Any:
        return array_namespace(*arrays)

    def _both_positions(
        self, q: Array, k: Array, positions: Array, key_positions: Array | None, spec: RotarySpec
    ) -> tuple[Array, Array | None]:
        positions = self._positions(positions, q, spec)
        if key_positions is not None:
            key_positions = self._positions(key_positions, k, spec)
        check_lengths(q, k, positions, key_positions, spec)
        return _with_tokens(positions, spec), _with_tokens(key_positions, spec)

    def _mask(
        self, mask: Array | None, shape: tuple[int, ...], name: str, like: Array
    ) -> Array | None:
        """A checked mask of this framework, beside ``like``."""
        if isinstance(mask, _HOST_ARRAYS):
            check_mask(np.asarray(mask), shape, name)
            return self._ids(np.asarray(mask, dtype=np.uint8), like) != 0
        if mask is not None:
            self._check_own(mask)
            check_mask(mask, shape, name)
        return mask

    def _chunk(self, chunk: int | None) -> int:
        if chunk is None:
            return self.chunk
        if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
            raise ShapeError(f"chunk must be a positive integer, got {chunk!r}")
        return chunk

    def _turn(
        self, arrays: tuple[Array, ...], positions: Array, options: LinearAttentionOptions
    ) -> tuple[Array, ...]:
        axes = (-2,) * len(arrays)
        return self._rotate(arrays, positions, options.spec, axes, options.seq_len)

    def _scan(
        self, step: Step, carry: Any, tokens: Tokens, sizes: list[int], xp: Any
    ) -> tuple[Any, Any, Any]:
        """`chunked.Tools.scan`; here a loop."""
        return chunked.python_scan(step, carry, tokens, sizes, xp)

    def _tools(self, xp: Any) -> Tools:
        return Tools(xp, self._turn, self._scan, 1, xp.tril)

    def _run(
        self, form: Any, options: LinearAttentionOptions, chunk: int, xp: Any, *arrays: Any
    ) -> Any:
        """One of the forms in `chunked`, on checked arguments."""
        return form(self._tools(xp), options, chunk, *arrays)

    def _softmax_attention(
        self,
        q: Array,
        k: Array,
        v: Array,
        positions: Array,
        key_positions: Array | None,
        mask: Array | None,
        options: SoftmaxOptions,
    ) -> Array:
        """`attention` on checked arguments, (..., heads, seq, features)."""

        def turn(x: Array, ids: Array) -> Array:
            return self._rotate((x,), ids, options.spec, (-2,), options.seq_len)[0]

        return blocked_attention(
            q, k, v, positions, key_positions, mask, options, turn, self._own(q)
        )


def _with_tokens(positions: Any, spec: RotarySpec) -> Any:
    """Positions whose last axis is that of the tokens, not that of `Sections`."""
    alone = positions is not None and spec.sections is not None and len(positions.shape) == 1
    return positions[:, None] if alone else positions


def _nothing(q: Array, k: Array, v: Array, xp: Any) -> Array:
    """The output without keys or without queries: zeros, with a gradient."""
    zeros = xp.zeros((*q.shape[:-1], v.shape[-1]), dtype=q.dtype, device=device_of(q))
    return zeros + xp.astype(xp.sum(q) if k.shape[-2] else xp.sum(v), q.dtype)
