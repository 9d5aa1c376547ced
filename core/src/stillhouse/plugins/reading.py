"""What a target is by its source, without importing it: a function of the same signature and docstring that does
nothing. ``stillhouse plugins check --quick`` looks at these, so that nothing waits for torch."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib.util
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse import ranges
from stillhouse.errors import MissingDependencyError, SpecError
from stillhouse.plugins import deprecation
from stillhouse.plugins.component_kinds import KINDS
from stillhouse.plugins.registry import Component, Registry

KNOWN: dict[str, Any] = {
    **{name: getattr(typing, name) for name in ("Annotated", "Any", "Literal", "Mapping", "Sequence", "Callable")},
    **{name: getattr(ranges, name) for name in ("Choices", "Range")},
    **{name: getattr(deprecation, name) for name in ("Deprecated", "Renamed")},
    "Path": Path,
}
"""What an annotation may name; one that names something else is taken for ``Any``."""
PLAIN = ("nn.Module", "torch.nn.Module", "ABC", "object")
"""Bases whose constructor has no options."""
NOTHING = next(each for each in ast.parse("def __init__(self): pass").body if isinstance(each, ast.FunctionDef))
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, kw_only=True)
class ReadComponent(Component):
    """A component whose target is read, not imported, where its source says enough."""

    def load(self) -> Any:
        """A function that does nothing in place of the target; the target itself where its source says too little.

        Raises:
            SpecError: the module or the attribute does not exist.
            MissingDependencyError: a package that the spec requires is not installed.
        """
        if KINDS[self.kind].given is None:
            return super().load()
        for package in self.spec.requires:
            if importlib.util.find_spec(package.partition(".")[0]) is None:
                raise MissingDependencyError(
                    f"{self.kind} '{self.id}' needs the package '{package}'",
                    where=self.spec.target,
                    fix=f"pip install {package}",
                )
        found = read_target(self.spec.target, who=self.label)
        return super().load() if found is None else found


def read(registry: Registry) -> Registry:
    """The same components, to be read."""
    records = {id(each.plugin): each.plugin for each in registry.components()}
    return Registry([read_component(each) for each in registry.components()], list(records.values()))


def read_component(component: Component) -> ReadComponent:
    """The same component, to be read."""
    return ReadComponent(id=component.id, kind=component.kind, spec=component.spec, plugin=component.plugin)


def read_target(target: str, *, who: str) -> Callable[..., None] | None:
    """A function with the signature and docstring of ``"package.module:attribute"``; None where its source does not
    show them (an inherited constructor of another package, a value that is computed).

    Raises:
        SpecError: the module or attribute is missing, naming ``who`` asked for it.
    """
    module, _, attribute = target.partition(":")
    path = _source(module)
    if path is None:
        if importlib.util.find_spec(module.partition(".")[0]) is not None and not _is_package(module):
            return None  # not a plain source file
        raise SpecError(
            f"there is no module '{module}'", where=f"{who}, target '{target}'", fix="correct the spec's target"
        )
    tree = _tree(path)
    if "." in attribute or any(_is_star(each) for each in tree.body):
        return None
    if attribute not in _names(tree):
        raise SpecError(
            f"'{module}' has no '{attribute}'", where=f"{who}, target '{target}'", fix="correct the spec's target"
        )
    found = _definition(module, attribute)
    return None if found is None else _stub(*found)


def _source(module: str) -> Path | None:
    root, *rest = module.split(".")
    spec = importlib.util.find_spec(root)
    if spec is None or spec.origin is None:
        return None
    if not rest:
        return Path(spec.origin)
    folder = Path(spec.origin).parent.joinpath(*rest[:-1])
    for path in (folder / f"{rest[-1]}.py", folder / rest[-1] / "__init__.py"):
        if path.is_file():
            return path
    return None


def _is_package(module: str) -> bool:
    """Whether the root is a package of plain files, so that a module without one is missing."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    return spec is not None and spec.origin is not None and Path(spec.origin).name == "__init__.py"


def _tree(path: Path) -> ast.Module:
    return _parsed(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _parsed(path: Path, changed: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _is_star(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and any(each.name == "*" for each in node.names)


def _names(tree: ast.Module) -> set[str]:
    """Every name that the module may have, also those under an ``if`` or ``try``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {each.asname or each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def _definition(
    module: str, name: str, depth: int = 0
) -> tuple[Definition, ast.FunctionDef | ast.AsyncFunctionDef] | None:
    """What defines a name, and the function that has its parameters (of a class, its nearest ``__init__``)."""
    path = _source(module)
    if path is None or depth > 5:
        return None
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return node, node
        if isinstance(node, ast.ClassDef) and node.name == name:
            for each in node.body:
                if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                    return node, each
            base = node.bases[0] if node.bases else None
            if node.decorator_list:
                return None  # a dataclass, say, whose constructor is made
            if base is None or ast.unparse(base) in PLAIN:
                return node, NOTHING
            return _definition(module, base.id, depth + 1) if isinstance(base, ast.Name) else None
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for imported in node.names:
                if (imported.asname or imported.name) == name:
                    return _definition(node.module, imported.name, depth + 1)
    return None


def _stub(node: Definition, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Callable[..., None]:
    given = function.args
    is_class = isinstance(node, ast.ClassDef)
    positional = [*given.posonlyargs, *given.args][1 if is_class else 0 :]
    arguments = ast.arguments(
        posonlyargs=[],
        args=[ast.arg(each.arg) for each in positional],
        vararg=ast.arg(given.vararg.arg) if given.vararg else None,
        kwonlyargs=[ast.arg(each.arg, _annotation(each.annotation)) for each in given.kwonlyargs],
        kw_defaults=[None if each is None else _default(each) for each in given.kw_defaults],
        kwarg=ast.arg(given.kwarg.arg) if given.kwarg else None,
        defaults=[ast.Constant(None)] * min(len(given.defaults), len(positional)),
    )
    made = ast.parse("def target(): pass").body[0]
    assert isinstance(made, ast.FunctionDef)
    made.args = arguments
    namespace: dict[str, Any] = dict(KNOWN)
    exec(compile(ast.fix_missing_locations(ast.Module(body=[made], type_ignores=[])), "<read>", "exec"), namespace)
    stub: Callable[..., None] = namespace["target"]
    stub.__name__ = stub.__qualname__ = node.name
    own = [ast.get_docstring(function) if is_class else None, ast.get_docstring(node)]
    stub.__doc__ = "\n\n".join(text for text in reversed(own) if text) or None
    return stub


def _annotation(annotation: ast.expr | None) -> ast.expr | None:
    if annotation is None:
        return None
    names = {each.id for each in ast.walk(annotation) if isinstance(each, ast.Name)}
    known = all(name in KNOWN or hasattr(builtins, name) for name in names)
    plain = known and not any(isinstance(each, ast.Attribute) for each in ast.walk(annotation))
    return annotation if plain else ast.Name("Any", ast.Load())


def _default(default: ast.expr) -> ast.expr:
    try:
        ast.literal_eval(default)
    except (ValueError, TypeError):
        return ast.Constant(None)
    return default
