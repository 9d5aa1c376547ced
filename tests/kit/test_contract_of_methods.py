"""What the contract gives to methods that cannot be tried on the plainest run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillhouse.plugins import Manager
from stillhouse.testing.plan import Plan

CODE = '''
"""Methods that want more than a default run has."""
from typing import Any

from stillhouse import hookimpl
from stillhouse.errors import IncompatibleError
from stillhouse.methods import Method
from stillhouse.plugins import MethodSpec


@hookimpl
def stillhouse_methods():
    for name, fields in (("helped", {"students": ("helpers",)}), ("featured", {}), ("timed", {"needs": ("times",)})):
        yield MethodSpec(name=name, target=f"wanting_methods:{name.title()}", summary="Wants more", **fields)


class Helped(Method):
    """Learns from helpers.

    Args:
        helpers: students that learn first.
    """

    def __init__(self, *, helpers: list[dict[str, Any]]) -> None:
        self.helpers = helpers

    def train(self, context, student):
        helper = context.build(context.bind("student", self.helpers[0]), seed=context.derived_seed("helper"))
        context.fit(context.supervised(helper), phase="helper")
        context.fit(context.distillation(student, context.as_teacher(helper)), phase="student")
        return student


class Featured(Method):
    """Learns features."""

    def train(self, context, student):
        if all(term.student is None for term in context.terms):
            raise IncompatibleError("it learns features, and no term names taps", where="objectives.soft", fix="one")
        return super().train(context, student)


class Timed(Method):
    """Learns in the order of time."""
'''


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    path = tmp_path / "wanting_methods.py"
    path.write_text(CODE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    manager = Manager(installed=False, files=[path])
    yield Plan(manager, manager.plugin("wanting_methods")[0])
    sys.modules.pop("wanting_methods", None)


def test_students_that_must_be_named_and_terms_with_taps_are_given(plan: Plan) -> None:
    for name in ("options", "builds", "trains", "same-seed", "resumes"):
        for method in ("helped", "featured"):
            found = plan.run(f"{name}[method:wanting_methods/{method}]")
            assert found.outcome == "passed", found
    assert plan.run("resumes[method:wanting_methods/helped]").note == "interrupted 4 times"


def test_rows_have_times_for_a_method_that_needs_them(plan: Plan) -> None:
    assert plan.run("trains[method:wanting_methods/timed]").outcome == "passed"
