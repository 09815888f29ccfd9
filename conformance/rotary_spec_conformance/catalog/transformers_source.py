"""Where rotary embeddings are in transformers' source, read without importing it.

Every model of transformers is one file of one pattern: a module class makes the tables, a function
applies them, a model class builds the module from its config. Names and calls in the syntax tree
tell which belongs to which, so no list of models is kept here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

from rotary_spec import TargetError

_TABLES = re.compile(r"(Rotary|Rope|RoPE)\w*Embedding$")
_APPLIES = re.compile(r"apply_\w*(rotary|rope)|^rotate_queries_or_keys$")
_FIRST_PART = re.compile(r"\[(\.\.\.|:, :, :), :[\w.]+\]$")
_POSITIONS = re.compile(r"^create_sinusoidal_positions$")
_MENTION = re.compile(r"^class \w*(Rotary|Rope|RoPE)\w*Embedding\b|\bapply_\w*(rotary|rope)\w*\("
                      r"|\brotate_queries_or_keys\(", re.MULTILINE)  # fmt: skip


@dataclass(frozen=True)
class Use:
    """One rotary embedding of a modeling file: what makes its tables, and from which config.

    Attributes
    ----------
    tables : str or None
        Module class that makes the tables; None where the apply function needs none.
    config : str or None
        Config class that it is built from; None where the code does not say.
    owner : str or None
        Class that builds it.
    appliers : tuple of str
        Functions (or ``Class.method``) that may apply the tables, in the order to be tried.
    """

    tables: str | None
    config: str | None
    owner: str | None
    appliers: tuple[str, ...]


class Modeling:
    """The syntax tree of one ``modeling_*.py``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.parent.name
        self.module = f"transformers.models.{self.folder}.{path.stem}"
        body = ast.parse(path.read_text(encoding="utf-8")).body
        self.classes = {n.name: n for n in body if isinstance(n, ast.ClassDef)}
        self.functions = {n.name: n for n in body if isinstance(n, ast.FunctionDef)}
        self.choices = {  # NAME_ATTENTION_CLASSES = {"eager": NameAttention, ...}
            ast.unparse(n.targets[0]): {ast.unparse(value) for value in n.value.values}
            for n in body
            if isinstance(n, ast.Assign) and isinstance(n.value, ast.Dict)
        }

    @cached_property
    def uses(self) -> list[Use]:
        """Every rotary embedding of the file, one per module class and config."""
        found: list[Use] = []
        for tables in (name for name in self.classes if _TABLES.search(name)):
            builders = [name for name in self.classes if tables in self._calls(name)]
            owners: list[str | None] = [*builders] if builders else [None]
            for owner in owners:
                config = self._given_config(owner, tables) if owner else None
                config = config or self.config_of(tables) or self._main_config()
                found.append(Use(tables, config, owner, self._appliers(owner)))
        if not found:
            found = list(self._without_tables())
        # Two owners may build the same module from the same config.
        return list({(u.tables, u.config, u.appliers): u for u in reversed(found)}.values())[::-1]

    def config_of(self, name: str) -> str | None:
        """Config class that a class takes: by its ``__init__``, its ``config:``, or its bases."""
        node = self.classes.get(name)
        if node is None:
            return None
        for annotation in _config_annotations(node):
            if annotation.endswith("Config") and annotation != "PreTrainedConfig":
                return annotation
        bases = (self.config_of(ast.unparse(base)) for base in node.bases)
        return next((config for config in bases if config), None)

    def condition(self, applier: str) -> str | None:
        """Config flag under which a function is called: ``if self.config.flag:``, or None."""
        for node in self.classes.values():
            for branch in ast.walk(node):
                if isinstance(branch, ast.If) and isinstance(branch.test, ast.Attribute):
                    test = ast.unparse(branch.test)
                    if "config." in test and applier in set(_called(branch.body)):
                        return branch.test.attr
                    if "config." in test and applier in set(_called(branch.orelse)):
                        return f"not {branch.test.attr}"
        return None

    def cuts(self, applier: str) -> bool:
        """Whether every caller passes it a part of the head, ``x_rot = x[..., :n]``."""
        callers = [node for name, node in self.classes.items() if applier in self._calls(name)]
        return bool(callers) and all(
            {ast.unparse(a) for call in _calls_of(node, applier) for a in call.args}
            & _first_parts(node)
            for node in callers
        )

    def _given_config(self, owner: str, tables: str) -> str | None:
        """Config class that ``owner`` hands to the module: its own, where it hands its own."""
        for node in ast.walk(self.classes[owner]):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == tables:
                given = ast.unparse((node.args or [k.value for k in node.keywords])[0])
                if given in ("config", "self.config"):
                    return self.config_of(owner)
        return None

    def _main_config(self) -> str | None:
        for name in self.classes:
            if name.endswith("PreTrainedModel"):
                return self.config_of(name)
        return None

    @cache  # noqa: B019 - lives as long as the tree
    def _calls(self, name: str) -> frozenset[str]:
        return frozenset(_called(self.classes[name].body))

    def _appliers(self, owner: str | None) -> tuple[str, ...]:
        """Apply functions called by what ``owner`` builds; every one of the file, if none is."""
        every = self._every_applier()
        if owner is None:
            return tuple(every)
        reached, waiting = {owner}, [owner]
        while waiting:
            name = waiting.pop()
            new = self._built_by(name) - reached
            reached |= new
            waiting += new
        called = {f for name in reached for f in self._calls(name)}
        near = [f for f in every if f in called or f.rpartition(".")[0] in reached]
        return tuple(near or every)

    def _built_by(self, name: str) -> set[str]:
        """Classes that a class makes instances of, directly or by a table of classes; its bases."""
        node = self.classes[name]
        names = set(self._calls(name)) | {ast.unparse(base) for base in node.bases}
        for part in ast.walk(node):
            if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name):
                names |= self.choices.get(part.value.id, set())
        return names & set(self.classes)

    def _every_applier(self) -> list[str]:
        """Functions and methods that apply tables, without those that only serve another."""
        functions = [name for name in self.functions if _APPLIES.search(name)]
        methods = [
            f"{name}.{item.name}"
            for name, node in self.classes.items()
            for item in node.body
            if isinstance(item, ast.FunctionDef) and _APPLIES.search(item.name)
        ]
        serving = {
            called
            for body in [*(self.functions[name].body for name in functions),
                         *(self._method(name).body for name in methods)]
            for called in _called(body)
        }  # fmt: skip
        wanted = [f for f in functions if f not in serving or self._callers(f, methods)]
        return wanted + methods

    def _method(self, name: str) -> ast.FunctionDef:
        owner, _, method = name.partition(".")
        return next(
            item
            for item in self.classes[owner].body
            if isinstance(item, ast.FunctionDef) and item.name == method
        )

    def _callers(self, function: str, methods: list[str]) -> list[str]:
        """Classes that call a function elsewhere than in the apply ``methods``."""
        return [
            name
            for name, node in self.classes.items()
            for item in node.body
            if isinstance(item, ast.FunctionDef)
            and f"{name}.{item.name}" not in methods
            and function in set(_called(item.body))
        ]

    def _without_tables(self) -> Iterator[Use]:
        """Apply functions of a file that has no module for the tables."""
        maker = next((name for name in self.functions if _POSITIONS.search(name)), None)
        for applier in self._every_applier():
            method = applier.rpartition(".")[2]
            owner = next((name for name in self.classes if method in self._calls(name)), None)
            config = self.config_of(owner) if owner else None
            yield Use(maker, config or self._main_config(), owner, (applier,))


def _called(body: list[ast.stmt]) -> Iterator[str]:
    """Names called in a piece of code: functions, classes and methods of ``self``."""
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Name):
                    yield node.func.id
                elif isinstance(node.func, ast.Attribute):
                    yield node.func.attr


def _calls_of(node: ast.AST, function: str) -> Iterator[ast.Call]:
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and ast.unparse(part.func) == function:
            yield part


def _first_parts(node: ast.AST) -> set[str]:
    """Names that are given the first features of something, ``name = x[..., :n]``."""
    names = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Assign):
            target, value = part.targets[0], part.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            names |= {ast.unparse(t) for t, v in pairs if _FIRST_PART.search(ast.unparse(v))}
    return names


def _config_annotations(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            for argument in item.args.args:
                if "config" in argument.arg and argument.annotation is not None:
                    yield ast.unparse(argument.annotation)
        if isinstance(item, ast.AnnAssign) and ast.unparse(item.target) == "config":
            yield ast.unparse(item.annotation)


def models_folder() -> Path:
    """The ``models`` folder of the installed transformers."""
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        raise TargetError("transformers is not installed; pip install 'rotary-spec[peers]'")
    return Path(spec.origin).parent / "models"


@cache
def modeling(folder: str) -> Modeling | None:
    """The modeling file of ``models/<folder>``, if it defines a rotary embedding."""
    for path in sorted((models_folder() / folder).glob("modeling_*.py")):
        if path.name.startswith(("modeling_tf_", "modeling_flax_")):
            continue
        if _MENTION.search(path.read_text(encoding="utf-8")):
            return Modeling(path)
    return None


def every_modeling() -> Iterator[Modeling]:
    """The modeling files that define a rotary embedding, by folder name."""
    for folder in sorted(path.name for path in models_folder().iterdir() if path.is_dir()):
        found = modeling(folder)
        if found is not None:
            yield found
