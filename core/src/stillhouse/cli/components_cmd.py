"""``stillhouse components``, ``show`` and ``recipes``: what the active plugins bring."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.cli.output import assembled, print_fields, print_json, print_lines, print_table, print_warning, styled
from stillhouse.cli.shared import JsonOption, complete_component, get_manager
from stillhouse.cli.usage import FIND, Command, examples
from stillhouse.errors import StillhouseError, UsageError, nearest

if TYPE_CHECKING:
    from rich.text import Text

    from stillhouse.plugins.manager import Manager
    from stillhouse.plugins.registry import Component


class Kind(StrEnum):
    """Kinds of components, as ``--kind`` takes them: those of `stillhouse.plugins.component_kinds`, which is slow to
    import."""

    DATASET = "dataset"
    AUGMENTER = "augmenter"
    TEACHER = "teacher"
    STUDENT = "student"
    HEAD = "head"
    OBJECTIVE = "objective"
    METHOD = "method"
    METRIC = "metric"
    RECIPE = "recipe"


KindOption = Annotated[
    Kind | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help="Only components of this kind: dataset, augmenter, teacher, student, head, objective, method, metric or "
        "recipe.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command(
        "recipes",
        cls=Command,
        rich_help_panel=FIND,
        epilog=examples("recipes", "recipes --offline --minutes 1", "recipes fraud --from finance"),
    )(recipes)
    app.command(
        "components",
        cls=Command,
        rich_help_panel=FIND,
        epilog=examples("components --kind objective --output regression", "components tree"),
    )(components)
    app.command(
        "show",
        cls=Command,
        rich_help_panel=FIND,
        epilog=examples("show core/soft-targets", "show mlp --kind student", "show industrial/rul-fd001"),
    )(show)


WordArgument = Annotated[
    str, typer.Argument(metavar="[WORD]", help="Only those with this word in their id, tags or summary.")
]
FromOption = Annotated[str | None, typer.Option("--from", metavar="PLUGIN", help="Only those of this plugin.")]


def components(
    ctx: typer.Context,
    word: WordArgument = "",
    kind: KindOption = None,
    plugin: FromOption = None,
    tag: Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Only components with this tag.")] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="KIND", help="Only those that serve this output kind, e.g. regression."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the components of all active plugins."""
    manager = get_manager(ctx)
    found = _chosen(manager, str(kind) if kind else None, word, plugin)
    found = [each for each in found if tag is None or tag in each.spec.tags]
    if output is not None:
        from stillhouse.kinds import OutputKind

        if output not in set(OutputKind):
            raise UsageError(f"there is no output kind '{output}'", where="--output", fix=nearest(output, OutputKind))
        found = [each for each in found if output in _outputs(each)]
    if json:
        print_json(components=[each.describe() for each in found])
    elif found:
        rows = [(each.kind, each.id, _summary(each)) for each in found]
        print_table(("Kind", "Id", "Summary"), rows, wrap=("Summary",))
    else:
        print_lines("No component fits. All of them: stillhouse components")


def _chosen(manager: Manager, kind: str | None, word: str, plugin: str | None) -> list[Component]:
    """Components by kind, plugin and a word.

    Raises:
        UnknownComponentError: there is no such plugin.
    """
    names = {record.name for record in manager.plugin(plugin)} if plugin else set()
    wanted = word.lower()
    return [
        each
        for each in manager.registry.components(kind)
        if (plugin is None or each.plugin.name in names)
        and (not wanted or any(wanted in text.lower() for text in (each.id, each.spec.summary, *each.spec.tags)))
    ]


def _outputs(component: Component) -> list[str]:
    """Output kinds that a component serves; all of them where its spec leaves them open."""
    from stillhouse.kinds import OutputKind

    described = component.spec.describe()
    return [described["output"]] if "output" in described else list(described.get("kinds") or OutputKind)


def recipes(
    ctx: typer.Context,
    word: WordArgument = "",
    plugin: FromOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only those that need no files.")] = False,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="M", help="Only those that take at most so long.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the recipes that can be run by name."""
    if minutes is not None and not minutes > 0:
        raise UsageError(f"--minutes is {minutes:g}", where="--minutes", fix="a number above 0, e.g. 1")
    found = _chosen(get_manager(ctx), "recipe", word, plugin)
    found = [each for each in found if not offline or each.spec.describe()["offline"]]
    if minutes is not None:
        found = [each for each in found if 0 < each.spec.describe()["minutes"] <= minutes]
    if json:
        print_json(recipes=[each.describe() for each in found])
    elif found:
        rows = []
        for each in found:
            described = each.spec.describe()
            about = f"{described['minutes']:g}" if described["minutes"] else "?"
            rows.append((each.id, "no" if described["offline"] else "yes", about, _summary(each)))
        print_table(("Recipe", "Needs data", "Minutes", "Summary"), rows, wrap=("Summary",), right=("Minutes",))
        print_lines("Run one with: stillhouse run RECIPE")
    else:
        print_lines("No recipe fits. All of them: stillhouse recipes")


def show(
    ctx: typer.Context,
    id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="plugin/name, or a name that only one plugin has.", autocompletion=complete_component
        ),
    ],
    kind: KindOption = None,
    json: JsonOption = False,
) -> None:
    """Show a component: its source, its options, defaults and help."""
    registry = get_manager(ctx).registry
    found = [registry.get(str(kind), id)] if kind else registry.find(id)
    if json:
        print_json(components=[_details(each) for each in found])
        return
    for position, each in enumerate(found):
        if position:
            print_lines("")
        _print(each)


def _details(component: Component) -> dict[str, Any]:
    """Description with the options; ``options`` is null when the target cannot be imported."""
    described = component.describe() | {"plugin": component.plugin.name}
    try:
        if component.kind == "recipe":
            return described | {"options": [], "options_error": "", "text": component.load()}
        from stillhouse.plugins.options import describe_options

        return described | {"options": describe_options(component), "options_error": ""}
    except StillhouseError as error:
        return described | {"options": None, "options_error": str(error)}


def _print(component: Component) -> None:
    details = _details(component)
    print_lines(assembled((component.id, "bold"), f"  {component.kind}\n  {component.spec.summary}\n"))
    handled = (
        "id",
        "kind",
        "summary",
        "distribution",
        "version",
        "plugin",
        "options",
        "options_error",
        "text",
    )
    source = f"{component.plugin.source} (plugin {component.plugin.name})"
    rest = [
        (name, line) for name, value in details.items() if name not in handled for name, line in _lines(name, value)
    ]
    print_fields([("from", source), *rest])
    print_lines("")
    if "text" in details:
        print_lines(details["text"].rstrip())
    elif details["options"] is None:
        print_warning(f"the options are not known: {details['options_error']}")
    elif details["options"]:
        rows = [
            (
                each["name"],
                each["type"],
                "(required)" if each["required"] else str(each["default"]),
                each["help"],
            )
            for each in details["options"]
        ]
        print_table(("Option", "Type", "Default", "Help"), rows, wrap=("Type", "Default", "Help"))
    else:
        print_lines("It has no options.")


def _lines(name: str, value: Any) -> list[tuple[str, str]]:
    """A field of a spec as lines for a reader; a mapping takes one line per entry, named once."""
    if isinstance(value, bool):
        return [(name, "yes" if value else "no")]
    if isinstance(value, dict):
        names = [name] + [""] * len(value)
        return [(label, f"{key}: {item}") for label, (key, item) in zip(names, value.items(), strict=False)]
    return [(name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))]


def _summary(component: Component) -> Text:
    text = styled(component.spec.summary)
    return text.append(" (deprecated)", "yellow") if component.spec.deprecated else text
