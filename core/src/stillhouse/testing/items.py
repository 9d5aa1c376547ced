"""``test_contract = stillhouse.testing.contract("law")``: every check of a plugin as a pytest item."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import StillhouseError, nearest
from stillhouse.plugins.checks import Check, Outcome
from stillhouse.plugins.manager import CORE, Manager
from stillhouse.plugins.records import PluginRecord, Status
from stillhouse.testing import summary
from stillhouse.testing.plan import Plan

OWN = "expected-failures"
"""Id of the item that says which expected failures name no check."""


def contract(
    plugin: str | Path,
    *,
    expected_failures: Mapping[str, str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[..., None]:
    """A parametrised test with one item per check and component; assign it to a name that begins with ``test``.

    Item ids are stable: ``test_contract[loads]``, ``test_contract[gradients[student:law/cnn]]``. A plugin that is
    not installed, is broken, or brings no components has items that fail and say so. A summary line at the end of the
    run says how many checks ran on how many components.

    Args:
        plugin: name of an installed plugin, or the path of a file of hook implementations.
        expected_failures: reason by check id, for checks that are known to fail. An expected failure is reported as
            such; an id that no check has, or a check that passes after all, fails.
        options: options by component id that stand for the defaults, such as the path of a small sample for a dataset
            that needs files: ``{"law/cases": {"path": "tests/cases.csv"}}``. Paths are relative to the working
            directory. Where components of two kinds share an id, write ``dataset:law/cases``. A dataset of official
            files that needs no options is named with none, ``{"law/courts": {}}``, where a fixture has put a sample of
            them into a folder and set ``STILLHOUSE_DATA`` to it.

    Returns:
        a test function.
    """
    expected = dict(expected_failures or {})
    plan, problem = _plan(plugin, options)
    ids = [*(plan.ids if plan else ["loads"]), *([OWN] if expected else [])]

    @pytest.mark.parametrize("check", [pytest.param(each, id=each) for each in ids])
    def test_contract(
        check: str, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
    ) -> None:
        __tracebackhide__ = True
        _register_summary(request.config)
        if check == OWN:
            _check_expected(expected, plan.ids if plan else ())
            return
        if plan is None:
            pytest.fail(problem, pytrace=False)
        found = plan.run(check)
        outcome: str = found.outcome
        if check in expected:
            outcome = "expected to fail" if found.outcome == "failed" else "failed"
        note = found.note if check == "light-import" else ""
        record_property(summary.PROPERTY, [plan.record.name, plan.components, outcome, note])
        _conclude(found, found.outcome, expected.get(check))

    return test_contract


def _plan(plugin: str | Path, options: Mapping[str, Mapping[str, Any]] | None) -> tuple[Plan | None, str]:
    """The plan, or why there is none."""
    try:
        manager, record = _find(plugin)
        return Plan(manager, record, options=options), ""
    except StillhouseError as error:
        return None, str(error)


def _find(plugin: str | Path) -> tuple[Manager, PluginRecord]:
    if isinstance(plugin, Path) or plugin.endswith(".py"):
        manager = Manager(installed=False)
        return manager, manager.add_file(Path(plugin))
    # No other plugin, so that nothing is proved by what happens to be installed.
    manager = Manager(allow=[] if plugin == CORE else [plugin])
    records = manager.plugin(plugin)
    chosen = [each for each in records if each.name == plugin] or records
    if chosen[0].status is Status.DISABLED:  # asked for by the name of its distribution
        return _find(chosen[0].name)
    return manager, chosen[0]


def _conclude(found: Check, outcome: Outcome, reason: str | None) -> None:
    __tracebackhide__ = True
    problem = "\n".join(filter(None, (f"{found.id}: {found.problem}", f"  fix: {found.fix}" if found.fix else "")))
    if reason is not None:
        if outcome == "failed":
            pytest.xfail(f"{reason} ({found.problem})")
        pytest.fail(f"{found.id} is expected to fail ({reason}) and {outcome}: take it off the list", pytrace=False)
    if outcome == "failed":
        pytest.fail(problem, pytrace=False)
    if outcome == "skipped":
        pytest.skip(problem)


def _check_expected(expected: Mapping[str, str], ids: tuple[str, ...]) -> None:
    __tracebackhide__ = True
    for check_id, reason in expected.items():
        if check_id not in ids:
            pytest.fail(
                f"expected_failures names '{check_id}', which is no check: {nearest(check_id, ids)}", pytrace=False
            )
        if not reason.strip():
            pytest.fail(f"expected_failures gives no reason for '{check_id}': say why it fails", pytrace=False)


def _register_summary(config: pytest.Config) -> None:
    """See to it that the summary is printed, without a pytest plugin that loads itself everywhere."""
    names = (summary.__name__, "stillhouse.testing.fixtures")  # `-p` of the latter brings the summary too
    if not any(config.pluginmanager.has_plugin(name) for name in names):
        config.pluginmanager.register(summary, summary.__name__)
