"""What ``rotary-spec check --kind linear-attention`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rotary_spec import TargetError
from rotary_spec.spec_options import parsed, spec_from_options
from rotary_spec_conformance.commands.check import run_reports
from rotary_spec_conformance.commands.locate import locate
from rotary_spec_conformance.commands.opening import Opening
from rotary_spec_conformance.commands.terminal import SlowProgress
from rotary_spec_conformance.linear_attention.catalog import (
    LINEAR_CATALOG,
    Listed,
    load,
    names_of,
)
from rotary_spec_conformance.linear_attention.suite import (
    LinearAttentionReport,
    check_linear_attention,
)
from rotary_spec_conformance.linear_attention.target import (
    LinearAttentionTarget,
    adapt_linear_attention,
)

COLUMNS = ("target", "Eq. 19", "features", "numerator", "denominator", "sees")


def run_check_linear_attention(
    names: Sequence[str],
    *,
    spec_fields: Mapping[str, Any],
    opening: Opening,
    checking: Mapping[str, Any],
    as_json: bool,
) -> int:
    """Check every named target, print what was found, and return the exit code.

    Parameters
    ----------
    names : sequence of str
        Names of `linear_attention.catalog`, "linear" for all, ``module:attribute`` or
        ``file.py:attribute``.
    spec_fields, opening, as_json
        As for `run_check`.
    checking : mapping
        Options of `check_linear_attention`; None is left out.
    """
    options = {key: value for key, value in checking.items() if value is not None}

    def report_of(name: str) -> LinearAttentionReport:
        found = _opened(name, spec_fields, opening)
        with SlowProgress(name) as progress:
            told = {**found.options, **options}
            return check_linear_attention(found.target, found.spec, progress=progress, **told)

    each = [entry for given in names for entry in names_of(given) or [given]]
    return run_reports(each, report_of, COLUMNS, _row, as_json=as_json)


def _opened(name: str, spec_fields: Mapping[str, Any], opening: Opening) -> Listed:
    call = {key: value for key, value in opening.call.items() if value is not None}
    if names_of(name):
        if call or opening.apply or opening.config:
            raise TargetError("options of the call and --config are not for the catalog")
        listed = load(name, opening.device)
        return listed._replace(spec=replace(listed.spec, **parsed(spec_fields)))
    other = sorted(set(call) - {"framework", "factory"})
    if other or opening.apply or opening.device:
        given = [*other, *(["apply"] if opening.apply else []),
                 *(["device"] if opening.device else [])]  # fmt: skip
        raise TargetError(f"{', '.join(given)}: not for linear attention")
    if name.startswith("linear:"):
        raise TargetError(f"{name!r} is not in the catalog; known: {', '.join(LINEAR_CATALOG)}")
    found = locate(name)
    spec = spec_from_options(spec_fields, opening.config, opening.layer_type)
    if isinstance(found, LinearAttentionTarget):
        if call:
            raise TargetError(f"{', '.join(call)}: {name} is a LinearAttentionTarget already")
        return Listed(found, spec, {})
    return Listed(adapt_linear_attention(found, spec=spec, name=name, **call), spec, {})


def _row(report: LinearAttentionReport) -> tuple[str, ...]:
    found = report.computes
    verdict = "yes" if report.ok else "no"
    return report.target, verdict, found.features, found.numerator, found.denominator, found.sees
