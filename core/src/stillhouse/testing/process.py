"""Checks that need a process of their own: light import, nothing left behind, and the core's figures unchanged."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from stillhouse.errors import PluginError
from stillhouse.plugins.checks import Planned, Skipped
from stillhouse.plugins.manager import CORE
from stillhouse.plugins.records import PluginRecord

TIMEOUT = 300
"""Seconds after which a process is given up."""


def plan_process(record: PluginRecord, module: Any, *, reference: bool = True) -> list[Planned]:
    """``light-import``, ``unregister`` and ``non-interference``.

    Args:
        record: the plugin.
        module: its hook implementations.
        reference: plan ``non-interference`` too, which takes seconds.
    """
    planned = [
        Planned(id="light-import", verify=lambda: _light(record, module)),
        Planned(id="unregister", verify=lambda: _unregister(record, module)),
    ]
    if reference and record.name != CORE:
        planned.append(Planned(id="non-interference", verify=lambda: _unchanged(record, module)))
    return planned


def _light(record: PluginRecord, module: Any) -> str:
    found = _imported(_request(record, module))
    if found["heavy"]:
        raise PluginError(
            f"importing the plugin imports {', '.join(found['heavy'])}",
            where=record.location,
            fix="import in the modules that targets name, not in the module of hooks: every command would wait for it",
        )
    return f"imported in {found['milliseconds']:.1f} ms"


def _unregister(record: PluginRecord, module: Any) -> None:
    found = _imported(_request(record, module))
    if found["left"]:
        raise PluginError(
            f"after the plugin is removed, this is not what it was: {', '.join(found['left'][:5])}",
            where=record.location,
            fix="change nothing outside of the plugin at import or in a hook; do it in the code that a run calls",
        )


def _unchanged(record: PluginRecord, module: Any) -> str:
    request = _request(record, module)
    plain, given = {}, {}
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(_reference(each)) for each in ({}, request) if each or not _plain.cache_info().currsize]
        answers = [_answer(each) for each in running]
    given = answers[-1]
    plain = _plain(json.dumps(answers[0])) if len(answers) == 2 else _plain("")
    return _compare(plain, given)
