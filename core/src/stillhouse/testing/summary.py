"""The line that `stillhouse.testing.contract` adds to the end of a pytest run; the module is a pytest plugin."""

from __future__ import annotations

from typing import Any

from stillhouse.plugins.checks import summary

PROPERTY = "stillhouse_contract"
"""Name of the property that each report of an item carries, for the summary."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line per plugin: how many checks ran on how many components, and what came of them."""
    found: dict[str, list[Any]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for name, value in report.user_properties:
                    if name == PROPERTY:
                        found.setdefault(value[0], []).append(value)
    for plugin, values in sorted(found.items()):
        notes = [note for *_, note in values if note]
        line = summary([outcome for _, _, outcome, _ in values], values[0][1])
        terminalreporter.write_line(f"contract of plugin '{plugin}': {'; '.join([line, *notes])}")
