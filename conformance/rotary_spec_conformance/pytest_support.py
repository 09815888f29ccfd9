"""`parametrize_with_checks`: one pytest item per target and clause.

pytest is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import rotary_spec as rs
from rotary_spec_conformance.registry import CLAUSES
from rotary_spec_conformance.results import Report
from rotary_spec_conformance.runner import check
from rotary_spec_conformance.target import Target


@dataclass
class _Run:
    """One report, made when the first of its items asks for it."""

    target: Any
    spec: rs.RotarySpec
    options: dict[str, Any]
    _report: Report | None = field(default=None, repr=False)

    def report(self) -> Report:
        if self._report is None:
            self._report = check(self.target, self.spec, **self.options)
        return self._report


@dataclass(frozen=True)
class RotaryCheck:
    """One clause on one target; calling it passes, fails or skips the test that it is in."""

    run: _Run
    clause: str

    def __call__(self) -> None:
        """Raise pytest's outcome of the clause: fail before xfail, skip if all are skipped."""
        import pytest

        results = [r for r in self.run.report().results if r.clause == self.clause]
        texts = {
            s: [r.message for r in results if r.status == s] for s in ("fail", "xfail", "skip")
        }
        if texts["fail"]:
            pytest.fail(f"{self.clause}: " + "\n".join(texts["fail"]), pytrace=False)
        if texts["xfail"]:
            pytest.xfail(f"{self.clause}: " + "\n".join(texts["xfail"]))
        if len(texts["skip"]) == len(results):
            pytest.skip(texts["skip"][0] if results else "no dtype under test is of its kind")


def parametrize_with_checks(
    targets: Sequence[tuple[Target | Any, rs.RotarySpec]], **options: Any
) -> Any:
    """Parametrise a test over targets and clauses.

    Parameters
    ----------
    targets : sequence of (target, spec)
        A target is whatever `check` takes.
    **options
        Passed to `check`: ``expected_failures``, ``dtypes``, ``framework``, ...

    Returns
    -------
    pytest mark decorator for a test with one argument ``rotary_check``

    Examples
    --------
    >>> import rotary_spec as rs
    >>> from rotary_spec_conformance import parametrize_with_checks
    >>> spec = rs.RotarySpec(head_dim=64)
    >>> def my_rope(x, positions):
    ...     return rs.rotate(x, positions, spec)
    >>> @parametrize_with_checks([(my_rope, spec)], framework="numpy")
    ... def test_my_rope(rotary_check):
    ...     rotary_check()
    """
    import pytest

    items = []
    for target, spec in targets:
        run = _Run(target, spec, options)
        name = target.name if isinstance(target, Target) else getattr(target, "__name__", "target")
        items += [pytest.param(RotaryCheck(run, c), id=f"{name}-{c}") for c in CLAUSES]
    return pytest.mark.parametrize("rotary_check", items)
