"""Components without a spec: ``use: package.module:Attribute`` in a recipe names somebody's own class or function.

The module is installed, or was named by ``--plugin`` (a file, or a folder). Nothing else is imported. What a spec would
say is read from the class where it can be, and has its default otherwise.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from stillhouse.errors import IncompatibleError, MissingDependencyError, PluginError, UnknownComponentError, nearest
from stillhouse.plugins.checks import check_shape
from stillhouse.plugins.component_kinds import KINDS, NAMED_KINDS
from stillhouse.plugins.loading import python_names
from stillhouse.plugins.records import PluginRecord, Status
from stillhouse.plugins.registry import Component
from stillhouse.plugins.spec import TARGET, Spec

EXTRAS = ("target", "mask")
"""What an objective's ``forward`` may take beside the two models' outputs."""


def named_component(kinds: Sequence[str], name: str, records: Sequence[PluginRecord]) -> Component:
    """The component that ``name``, ``"package.module:attribute"``, makes of that class or function.

    Args:
        kinds: kinds that will do; of several the first. None of them: the one that it looks like.
        name: the import target.
        records: all plugins; those that ``--plugin`` named are where modules may come from, too.

    Raises:
        IncompatibleError: components of that kind need a spec, or the target is not of the kind.
        MissingDependencyError: the module imports a package that is not installed.
        PluginError: the module raises, or its name is that of another module.
        UnknownComponentError: there is no such module or attribute.
    """
    chosen = next((kind for kind in kinds if kind in NAMED_KINDS), None)
    if kinds and chosen is None:
        raise IncompatibleError(
            f"a {kinds[0]} cannot be named by its module, as '{name}' is",
            where=name,
            fix=f"give a {KINDS[kinds[0]].spec.__name__} from a file of hook implementations, and name it 'stem/name'",
        )
    if not TARGET.fullmatch(name):
        raise UnknownComponentError(f"'{name}' is not 'package.module:attribute'", fix="e.g. my_method:MyMethod")
    module = _import(name, records)
    target = _attribute(module, name)
    kind = chosen or _looks_like(target, name)
    component = Component(id=name, kind=kind, spec=_spec(kind, name, target), plugin=_record(module, name))
    check_shape(component, target)
    return component


def _import(name: str, records: Sequence[PluginRecord]) -> ModuleType:
    module_name = name.partition(":")[0]
    top = module_name.partition(".")[0]
    given = [each for each in records if each.is_folder and top in python_names(Path(each.location))]
    if given and not _is_from(top, given[0]):
        raise PluginError(
            f"'{top}' in '{given[0].location}' has the name of another module",
            where=name,
            fix="rename it to something that is not installed",
        )
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if f"{module_name}.".startswith(f"{error.name}."):
            raise _unknown_module(name, str(error.name), records) from error
        what = f"'{name}' needs the package '{error.name}'"
        raise MissingDependencyError(what, where=name, fix=f"pip install {error.name}") from error
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"'{module_name}' cannot be imported: {type(error).__name__}: {error}",
            where=name,
            fix="correct the module; --debug shows the traceback",
        ) from error


def _is_from(top: str, record: PluginRecord) -> bool:
    found = sys.modules.get(top)
    origin = getattr(found, "__file__", None) if found else getattr(importlib.util.find_spec(top), "origin", None)
    return origin is not None and Path(origin).is_relative_to(record.location)


def _unknown_module(name: str, missing: str, records: Sequence[PluginRecord]) -> UnknownComponentError:
    here = next((each for each in (f"{missing}.py", missing) if Path(each).exists()), f"{missing}.py")
    fix = f"install it, or give the file or folder that has it: --plugin ./{here}"
    known = {each.name for each in records if each.is_file}
    known |= {each for record in records if record.is_folder for each in python_names(Path(record.location))}
    if "." in missing:
        fix = f"check the name: '{missing.rpartition('.')[0]}' is there"
    elif known and (hint := nearest(missing, known)).startswith("did"):
        fix = hint
    return UnknownComponentError(f"there is no module '{missing}'", where=name, fix=fix)


def _attribute(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.partition(":")[2].split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            own = [
                each
                for each, value in vars(found).items()
                if not each.startswith("_") and callable(value) and getattr(value, "__module__", "") == module.__name__
            ]
            raise UnknownComponentError(
                f"'{module.__name__}' has no '{name.partition(':')[2]}'", where=name, fix=nearest(part, own)
            ) from error
    return found


def _looks_like(target: Any, name: str) -> str:
    """The kind of a target, as far as its form tells."""
    if not callable(target):
        raise IncompatibleError(
            f"'{name}' is a {type(target).__name__}, not a class or function", where=name, fix="name what makes it"
        )
    if _is_method(target):
        return "method"
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(each.kind in positional for each in inspect.signature(target).parameters.values()):
        return "student"
    return "objective" if hasattr(target, "forward") else "metric"


def _is_method(target: Any) -> bool:
    # A class that derives from it has imported it; nobody else has to wait for torch.
    methods = sys.modules.get("stillhouse.methods")
    return methods is not None and isinstance(target, type) and issubclass(target, methods.Method)


def _spec(kind: str, name: str, target: Any) -> Spec:
    attribute = name.rpartition(":")[2].rpartition(".")[2]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", attribute).lower()
    plain = re.sub(r"[^a-z0-9_-]|^[_-]+|[_-]+$", "", re.sub(r"([_-])[_-]+", r"\1", words))
    fields: dict[str, Any] = {}
    if kind == "objective":
        fields = {"extras": _extras(name, target), "adapts": bool(getattr(target, "adapts", False))}
    elif kind == "metric":
        fields = {"higher_is_better": bool(getattr(target, "higher_is_better", True))}
    elif kind == "method" and isinstance(target, type) and not _is_method(target):
        raise IncompatibleError(
            f"'{name}' is not a method: the class does not derive from stillhouse.methods.Method",
            where=name,
            fix=f"class {attribute}(Method)",
        )
    summary = (inspect.getdoc(target) or attribute).strip().partition("\n")[0] or attribute
    return KINDS[kind].spec(name=plain or kind, target=name, summary=summary, **fields)


def _extras(name: str, target: Any) -> tuple[str, ...]:
    """Which batch entries the ``forward`` of an objective takes; none are known of a function that makes one."""
    if not isinstance(target, type):
        return ()
    forward = getattr(target, "forward", None)
    if forward is None:
        raise IncompatibleError(
            f"'{name}' is not an objective: the class has no forward(student, teacher)",
            where=name,
            fix="derive it from torch.nn.Module, and return a scalar loss from forward",
        )
    further = list(inspect.signature(forward).parameters.values())[3:]  # behind self, student and teacher
    for each in further:
        if each.name not in EXTRAS and each.default is each.empty and each.kind is not each.VAR_KEYWORD:
            raise IncompatibleError(
                f"forward of '{name}' takes '{each.name}', which nothing gives",
                where=name,
                fix=f"forward(self, student, teacher), and of {', '.join(EXTRAS)} what it needs",
            )
    return tuple(each.name for each in further if each.name in EXTRAS)


def _record(module: ModuleType, name: str) -> PluginRecord:
    """Who brings the module: its distribution where there is one, and its file with a hash in any case."""
    top = module.__name__.partition(".")[0]
    file = getattr(module, "__file__", None)
    sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    distribution, version = "", ""
    owners = metadata.packages_distributions().get(top, ())
    if len(owners) == 1:
        distribution, version = owners[0], metadata.version(owners[0])
    return PluginRecord(
        name=top,
        distribution=distribution,
        version=version,
        location=str(file or top),
        status=Status.ACTIVE,
        components=(name,),
        sha256=sha256,
    )
