"""From what is typed on the command line to a target, and the spec to hold it against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import rotary_spec as rs
from rotary_spec import TargetError
from rotary_spec.spec_options import parsed, spec_from_options
from rotary_spec_conformance.adapt import adapt
from rotary_spec_conformance.catalog import is_listed, load
from rotary_spec_conformance.commands.locate import locate
from rotary_spec_conformance.identification.identify import target_of
from rotary_spec_conformance.inference import framework_named
from rotary_spec_conformance.target import Target


@dataclass(frozen=True)
class Opening:
    """Options that say how targets are opened; those that are None were not given.

    Attributes
    ----------
    config : str or None
        Hugging Face config to take the spec from, or to build a catalog target from.
    call : mapping
        ``shape``, ``order``, ``factory``, ``framework``, ``axes``, ``axis_order`` and
        ``coordinates`` of `adapt`.
    apply : str or None
        Function for shape "tables", located as a target is.
    device : str or None
    layer_type : str or None
        Which of the config's specs is meant, where it has one per layer type.
    """

    config: str | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    apply: str | None = None
    device: str | None = None
    layer_type: str | None = None

    def with_spec(self, name: str, spec_fields: Mapping[str, Any]) -> tuple[Target, rs.RotarySpec]:
        """The target of that name, and a spec.

        Parameters
        ----------
        name : str
            A catalog name, ``module:attribute`` or ``file.py:attribute``.
        spec_fields : mapping
            Fields of `RotarySpec` that were given, the schedule as text, the sections as a
            mapping of the fields of `Sections`; for catalog targets they replace its own.

        Raises
        ------
        RotarySpecError
            If the target or the spec cannot be made.
        """
        fields = parsed(spec_fields)
        if is_listed(name):
            target, spec = self._from_catalog(name)
            return target, replace(spec, **fields)
        found = locate(name)
        spec = self._spec(fields)
        if isinstance(found, Target):
            self._refuse_call(f"{name} is a Target already")
            return found, spec
        return adapt(found, spec=spec, name=name, **self._adapting()), spec

    def alone(self, name: str, head_dim: int | None) -> Target:
        """The target of that name, when there is no spec to hold it against."""
        if is_listed(name):
            return self._from_catalog(name)[0]
        found = locate(name)
        if isinstance(found, Target):
            self._refuse_call(f"{name} is a Target already")
            return found
        if head_dim is None and self.config is not None:
            head_dim = self._spec({}).head_dim
        if head_dim is None:
            raise TargetError(f"{name}: head_dim is missing. Hint: give --head-dim or --config")
        return target_of(found, head_dim, {"name": name, **self._adapting()})

    def _from_catalog(self, name: str) -> tuple[Target, rs.RotarySpec]:
        self._refuse_call("not for targets of the catalog")
        if self.layer_type is not None:
            raise TargetError(
                f"layer_type {self.layer_type!r}: not for targets of the catalog, whose names end "
                "in it. Hint: rotary-spec targets"
            )
        return load(name, config=self.config, device=self.device)

    def _spec(self, fields: Mapping[str, Any]) -> rs.RotarySpec:
        return spec_from_options(fields, self.config, self.layer_type)

    def _refuse_call(self, why: str) -> None:
        given = [key for key, value in self.call.items() if value is not None]
        if given or self.apply:
            raise TargetError(f"{', '.join(given) or 'apply'}: {why}")

    def _adapting(self) -> dict[str, Any]:
        """Options of `adapt`."""
        options = {key: value for key, value in self.call.items() if value is not None}
        if self.device is not None:
            if "framework" not in options:
                raise TargetError("device needs --framework beside it")
            options["framework"] = framework_named(options["framework"], self.device)
        if self.apply is not None:
            options["apply"] = locate(self.apply)
        return options
