"""The kit is proven: for every check a plugin that is good but for one thing fails that check, and no other."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stillhouse.scaffold import KINDS
from stillhouse.testing.plan import Plan

PAGE = Path(__file__).parents[2] / "docs" / "plugins" / "contract.md"
PACKAGE = "stillhouse_proof"
SOURCE = f"src/{PACKAGE}"
PLUGIN, DATASETS, AUGMENTERS, TEACHERS, STUDENTS, HEADS, OBJECTIVES, METHODS, METRICS, RECIPE = (
    f"{SOURCE}/{name}"
    for name in (
        "plugin.py",
        "datasets.py",
        "augmenters.py",
        "teachers.py",
        "students.py",
        "heads.py",
        "objectives.py",
        "methods.py",
        "metrics.py",
        "recipes/example.yaml",
    )
)
PROCESS = ("light-import", "import-order", "unregister", "non-interference")
"""Checks that start processes; they are run where they are what is to be proven, and once for the good plugin."""
PROVEN_BESIDE = ("time-gap",)
"""Checks whose bad plugin is in test_proof_of_contents.py, since it needs rows of another kind."""
SLOW = ("non-interference",)

# A reader whose state is what its class is made of.
READER = """
from stillhouse.data.readers import ColumnsReader


class Rows:
    def __init__(self, columns):
        self.columns = columns

    def state(self):
        return self.columns.state()

    @classmethod
    def from_state(cls, state):
        return cls(ColumnsReader.from_state(state))

    def read(self, path):
        return self.columns.read(path)
"""
WITH_READER = {
    f"{SOURCE}/reader.py": [("", READER)],
    PLUGIN: [("stillhouse.data.readers:ColumnsReader", f"{PACKAGE}.reader:Rows")],
    DATASETS: [
        ("        reader=reader,", "        reader=Rows(reader),"),
        ("\nCLASSES = (", f"\nfrom {PACKAGE}.reader import Rows\n\nCLASSES = ("),
    ],
}
WITHOUT_METRIC = ("metrics: [proof/top-k]\n", "")
WITHOUT_EXTRA_ROWS = ("extra_rows: {use: proof/noisy, per_row: 2}\n", "")
WITHOUT_METHOD = ("method: {use: proof/soft-first, soft_epochs: 4}\n", "")


def between_phases(code: str) -> dict[str, list[tuple[str, str]]]:
    """A line of the method between its two fits."""
    second = "        context.fit(context.distillation(student), phase="
    lines = [
        (second, f"        {code}\n{second}"),
        ("from stillhouse.methods import", "import torch\nfrom stillhouse.methods import"),
    ]
    return {METHODS: lines, RECIPE: [WITHOUT_METHOD]}


# As a plugin that changes the core behind its back would do it: a default, when the module is imported.
MEDDLING = """
import importlib

_genuine = importlib.import_module


def _import_module(name, package=None):
    module = _genuine(name, package)
    if name == "stillhouse.components.models":
        module.mlp.__kwdefaults__["dropout"] = 0.5
    return module


importlib.import_module = _import_module
"""


def after_imports(code: str) -> tuple[str, str]:
    return "\n\n\n@hookimpl\ndef stillhouse_datasets", f"\n{code}\n\n@hookimpl\ndef stillhouse_datasets"


@dataclass(frozen=True)
class Bad:
    """One fault.

    Args:
        fails: the only check that may fail.
        says: part of what it says.
        changes: texts to replace, by file.
        reinstall: write the metadata again from what was changed.
    """

    fails: str
    says: str
    changes: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    reinstall: bool = False


CASES = [
    Bad("loads", "'stillhouse_head' is not a hook", {PLUGIN: [("stillhouse_heads()", "stillhouse_head()")]}),
    Bad("metadata", "the version is 0.2.0", {"pyproject.toml": [('"0.1.0"', '"0.2.0"')]}),
    Bad(
        "metadata",
        "not installed as a dependency: numpy>=1",
        {"pyproject.toml": [('    "torch>=2.4",', '    "torch>=2.4",\n    "numpy>=1",')]},
    ),
    Bad("requirement", "has no upper bound", {"pyproject.toml": [("stillhouse>=0.1,<0.2", "stillhouse>=0.1")]}, True),
    Bad("requirement", "pins one version", {"pyproject.toml": [(">=0.1,<0.2", "==0.1.0")]}, True),
    Bad("requirement", "does not say", {"pyproject.toml": [('    "stillhouse>=0.1,<0.2",\n', "")]}, True),
    Bad(
        "hooks",
        "other specs when they are called again: top-k",
        {
            PLUGIN: [
                ("from collections.abc import Iterable", "import itertools\nfrom collections.abc import Iterable"),
                after_imports("COUNT = itertools.count()\n"),
                ('summary="Share of rows', 'summary=f"{next(COUNT)} Share of rows'),
            ]
        },
    ),
    Bad(
        "spec[dataset:proof/example]",
        "cannot be written as JSON",
        {PLUGIN: [('licence="simulated, no rights reserved"', "licence=frozenset()")]},
    ),
    Bad(
        "target[metric:proof/top-k]",
        "has no 'top_j'",
        {PLUGIN: [("metrics:top_k", "metrics:top_j")], RECIPE: [WITHOUT_METRIC]},
    ),
    Bad(
        "shape[metric:proof/top-k]",
        "1 positional parameter, and a metric is given 0",
        {METRICS: [("def top_k(*, k", "def top_k(k")], RECIPE: [WITHOUT_METRIC]},
    ),
    Bad(
        "shape[metric:proof/top-k]",
        "takes **keywords",
        {METRICS: [("def top_k(*, k: int = 2)", "def top_k(*, k: int = 2, **more)")], RECIPE: [WITHOUT_METRIC]},
    ),
    Bad("shape[recipe:proof/example]", "is not YAML", {RECIPE: [("seeds: [0, 1, 2]", "seeds: [0, 1, 2")]}),
    Bad("options[metric:proof/top-k]", "has no type", {METRICS: [("k: int = 2", "k=2")]}),
    Bad("options[metric:proof/top-k]", "has no help", {METRICS: [("        k: how", "        j: how")]}),
    Bad(
        "data[dataset:proof/example]",
        "its info declares float32 (13,)",
        {DATASETS: [("TensorSpec((len(COLUMNS),))", "TensorSpec((len(COLUMNS) + 1,))")]},
    ),
    Bad(
        "data[dataset:proof/example]",
        "DataInfo.simulated is False",
        {DATASETS: [("            simulated=True,\n", "")]},
    ),
    Bad(
        "disjoint[dataset:proof/example]",
        "is in both 'train' and 'val'",
        {DATASETS: [('"index": where}', '"index": where - start}')]},
    ),
    Bad(
        "disjoint[dataset:proof/example]",
        "group 'u0' of",
        {DATASETS: [('"index": where})', '"index": where}, groups=[f"u{i % 50}" for i in range(size)])')]},
    ),
    Bad(
        "same-seed[dataset:proof/example]",
        "differ when the dataset is made again",
        {
            DATASETS: [
                ("    values, target = _sim", "    target_of = torch.randint(3, (rows,))\n    values, target = _sim"),
                ("    splits, start", "    target[:rows] = target_of\n    splits, start"),
            ]
        },
    ),
    Bad(
        "reader[dataset:proof/example]",
        "a different state",
        WITH_READER
        | {f"{SOURCE}/reader.py": [("", READER.replace("from_state(state))", "from_state({**state, 'input': 'y'}))"))]},
    ),
    Bad(
        "reader[dataset:proof/example]",
        "the reader Rows lacks read",
        WITH_READER | {f"{SOURCE}/reader.py": [("", READER.replace("def read(", "def reed("))]},
    ),
    Bad(
        "data[dataset:proof/example]",
        "the spec names no reader",
        {
            PLUGIN: [
                ('        reader="stillhouse.data.readers:ColumnsReader",\n', ""),
                (f'        sample="{PACKAGE}.datasets:sample",\n', ""),
            ]
        },
    ),
    *(
        Bad("copies[dataset:proof/example]", says, {DATASETS: [("    # Means and", f"    {code}\n    # Means and")]})
        for says, code in (
            (
                "100 of 1000 test rows have inputs that are in the training rows",
                "values[:100] = values[700:800]",
            ),
            (
                "300 of 300 validation rows have inputs that are in the training rows",
                "values[400:700] = values[:300]",
            ),
            ("50 of 1000 test rows have inputs that are in the validation rows", "values[400:450] = values[700:750]"),
        )
    ),
    *(
        Bad("target-leak[dataset:proof/example]", says, {DATASETS: [("    return 20 + 5 * x, target", code)]})
        for says, code in (
            (
                "input 'x' at [3] is the target, up to scale and shift",
                "    x[:, 3] = target\n    return 20 + 5 * x, target",
            ),
            (
                "input 'x' at [0] is the target but for 0.",
                "    x[:, 0] = target - 0.003 * x[:, 0]\n    return 20 + 5 * x, target",
            ),
        )
    ),
    Bad(
        "statistics[dataset:proof/example]",
        "input 'x' has mean 0 and standard deviation 1 over training and test rows",
        {DATASETS: [("fit(COLUMNS, values[:rows])", "fit(COLUMNS, torch.cat([values[:rows], values[700:1700]]))")]},
    ),
    Bad(
        "statistics[dataset:proof/example]",
        "input 'x' reaches from 0 to 1 exactly over all rows",
        {
            DATASETS: [
                (
                    "reader = ColumnsReader.fit(COLUMNS, values[:rows])",
                    "low, high = values[:1700].min(dim=0).values, values[:1700].max(dim=0).values\n"
                    "    reader = ColumnsReader(\n"
                    "        columns=COLUMNS, mean=tuple(low.tolist()), std=tuple((high - low).tolist())\n"
                    "    )",
                )
            ]
        },
    ),
    Bad(
        "reader-rows[dataset:proof/example]",
        "in the dataset, and the reader makes",
        {
            DATASETS: [
                (
                    "        reader=reader,",
                    "        reader=ColumnsReader(columns=COLUMNS, mean=MEAN, std=(1.0,) * 12),",
                ),
                ("\nROWS, ", "\nMEAN = (20.0,) * 12\nROWS, "),
            ]
        },
    ),
    Bad(
        "reader-rows[dataset:proof/example]",
        "the reader subtracts 0 and divides by 1",
        {
            DATASETS: [
                (
                    "        reader=reader,",
                    "        reader=ColumnsReader(columns=COLUMNS, mean=(0.0,) * 12, std=(1.0,) * 12),",
                )
            ]
        },
    ),
    *(
        Bad("data[dataset:proof/example]", says, {DATASETS: [('"target": target[where]', f'"target": {code}')]})
        for says, code in (
            ("the targets are float32 [N], and multiclass takes classes [N] int64", "target[where].float()"),
            ("the targets are int64 [N, 1], and multiclass takes", "target[where, None]"),
            ("the targets are int32 [N], and multiclass takes", "target[where].int()"),
            ("the targets reach from 1 to 3, and DataInfo.classes has 3 names", "target[where] + 1"),
            (
                "the target of row 3 is nan (1 such rows)",
                "torch.where(where == 3, torch.nan, target[where].float())",
            ),
        )
    ),
    *(
        Bad(
            "loss[objective:proof/hellinger]",
            says,
            {OBJECTIVES: [("        both = [", f"        {code}\n        both = [")]},
        )
        for says, code in (
            ("the objective changes what the teacher said in place", "teacher /= self.temperature"),
            ("the objective changes what the student said in place", "student.sub_(student.mean())"),
        )
    ),
    Bad(
        "forward[student:proof/small]",
        "declares the input 'x' in its spec, and its forward takes features",
        {
            STUDENTS: [
                ("def forward(self, x: Tensor)", "def forward(self, features: Tensor)"),
                ("self.hidden(x)", "self.hidden(features)"),
            ]
        },
    ),
    Bad(
        "data[dataset:proof/example]",
        "ZeroDivisionError: division by zero (at dataset 'proof/example', ",
        {DATASETS: [("    splits, start = {}, 0", "    splits, start = {}, 0 / 0")]},
    ),
    Bad(
        "forward[student:proof/small]",
        "ZeroDivisionError: division by zero (at student 'proof/small', ",
        {STUDENTS: [("        return logits", "        return 1 / 0")]},
    ),
    Bad(
        "loss[head:proof/classes]",
        "no gradient flows from hard_loss",
        {
            HEADS: [
                (
                    "    def evaluate",
                    "    def hard_loss(self, prediction, batch):\n"
                    "        return super().hard_loss(prediction, batch).detach()\n\n    def evaluate",
                )
            ]
        },
    ),
    Bad(
        "loss[head:proof/classes]",
        "its spec says multiclass, macro_f1",
        {PLUGIN: [('primary="accuracy"', 'primary="macro_f1"')]},
    ),
    Bad(
        "metrics[head:proof/classes]",
        "'accuracy' of a perfect prediction is 0, and of a wrong one 1",
        {HEADS: [('found | {"worst', 'found | {"accuracy": 1 - found["accuracy"], "worst')]},
    ),
    Bad(
        "edges[head:proof/classes]",
        "of a prediction with NaN gave",
        {HEADS: [("super().evaluate(prediction, rows)", "super().evaluate(prediction.nan_to_num(), rows)")]},
    ),
    Bad(
        "decode[head:proof/classes]",
        "are not plain values",
        {
            HEADS: [
                (
                    "    def evaluate",
                    "    def decode(self, prediction):\n"
                    '        return {"label": list(prediction.argmax(dim=1))}\n\n    def evaluate',
                )
            ]
        },
    ),
    Bad(
        "forward[teacher:proof/wide]",
        "has shape (6, 4), the head needs (6, 3)",
        {TEACHERS: [("nn.Linear(width, task.outputs)", "nn.Linear(width, task.outputs + 1)")]},
    ),
    Bad(
        "gradients[student:proof/small]",
        "no gradient reaches 2 of 6 trainable parameters: unused.weight",
        {STUDENTS: [("        self.output =", "        self.unused = nn.Linear(2, 2)\n        self.output =")]},
    ),
    Bad(
        "same-weights[student:proof/small]",
        "the weights differ when the model is built again",
        {
            STUDENTS: [
                (
                    "task.outputs)\n",
                    "task.outputs)\n        nn.init.normal_(self.output.weight, generator=FRESH)\n",
                ),
                ("\n\nclass Small", "\nFRESH = torch.Generator()\n\n\nclass Small"),
            ]
        },
    ),
    Bad(
        "state[student:proof/small]",
        "predicts something else after it was saved and loaded",
        {
            STUDENTS: [
                ("        self.hidden =", "        self.seen = 0\n        self.hidden ="),
                (
                    "        return logits",
                    "        self.seen += self.training\n        return logits + self.seen",
                ),
            ]
        },
    ),
    Bad(
        "loss[objective:proof/hellinger]",
        "no finite gradient reaches the student",
        {OBJECTIVES: [("in (student, teacher)", "in (student.detach(), teacher)")]},
    ),
    Bad(
        "loss[objective:proof/hellinger]",
        "of a student that equals the teacher is 1",
        {OBJECTIVES: [("(1 - overlap).mean()", "overlap.mean()")]},
    ),
    Bad(
        "builds[method:proof/soft-first]",
        "made SoftFirst, not a stillhouse.methods.Method",
        {METHODS: [("class SoftFirst(Method)", "class SoftFirst")], RECIPE: [WITHOUT_METHOD]},
    ),
    Bad(
        "trains[method:proof/soft-first]",
        "differs from the baseline in 'spare': (2,) and absent",
        between_phases('student.model.register_buffer("spare", torch.zeros(2))'),
    ),
    Bad(
        "teacher-untouched[method:proof/soft-first]",
        "the teacher changed during distillation",
        between_phases("next(context.teachers[0].model.parameters()).data.add_(1)"),
    ),
    Bad(
        "same-seed[method:proof/soft-first]",
        "two runs with the same seeds end with different weights",
        between_phases("next(student.model.parameters()).data.add_(torch.tensor(__import__('time').time_ns() % 1e6))"),
    ),
    Bad(
        "resumes[method:proof/soft-first]",
        "a run that was interrupted and went on ends with other weights",
        # The global generator is where the first fit left it, unless that was finished before.
        between_phases("next(student.model.parameters()).data.add_(torch.randn(()))"),
    ),
    *(
        Bad(fails, says, {AUGMENTERS: changes, RECIPE: [WITHOUT_EXTRA_ROWS]})
        for fails, says, changes in (
            ("rows[augmenter:proof/noisy]", "made 140 rows, 70 were", [("(count,)", "(2 * count,)")]),
            ("rows[augmenter:proof/noisy]", "have a target", [('({"x": chosen', '({"target": chosen, "x": chosen')]),
            ("rows[augmenter:proof/noisy]", "info declares float32", [("* drawn})", "* drawn.double()})")]),
            ("rows[augmenter:proof/noisy]", "have no input 'x'", [('TensorSplit({"x"', 'TensorSplit({"y"')]),
            ("rows[augmenter:proof/noisy]", "is not finite", [("* drawn})", "* drawn.log()})")]),
            (
                "same-seed[augmenter:proof/noisy]",
                "with the same seed make different rows",
                [("drawn = torch.randn(chosen.shape, generator=generator)", "drawn = torch.randn(chosen.shape)")],
            ),
            (
                "same-seed[augmenter:proof/noisy]",
                "another seed makes the same",
                [("manual_seed(seed)", "manual_seed(0)")],
            ),
            ("training-rows[augmenter:proof/noisy]", "are others after", [("chosen = x[", "chosen = x.mul_(2)[")]),
        )
    ),
    Bad(
        "metrics[metric:proof/top-k]",
        "of a perfect multiclass prediction it is 0",
        {METRICS: [("return float(", "return 1 - float(")]},
    ),
    Bad(
        "edges[metric:proof/top-k]",
        "of a prediction with NaN gave",
        {METRICS: [('        judged(prediction, rows, head="top-k")', "        assert len(prediction)")]},
    ),
    Bad(
        "valid[recipe:proof/example]",
        "no head 'proof/clases'",
        {RECIPE: [("proof/classes", "proof/clases")]},
    ),
    Bad(
        "valid[recipe:proof/example]",
        "its spec says 'proof/other'",
        {PLUGIN: [('dataset="proof/example"', 'dataset="proof/other"')]},
    ),
    Bad(
        "trains[recipe:proof/example]",
        "nowhere",
        {RECIPE: [("teacher: proof/wide", "teacher: {use: proof/wide, checkpoint: nowhere}")]},
    ),
    Bad("light-import", "imports PIL", {PLUGIN: [after_imports("import PIL\n")]}),
    Bad(
        "import-order",
        "'stillhouse_proof.metrics', imported before the other modules, fails with ImportError: cannot import name",
        {
            # Heads first works, metrics first does not; the other checks load heads first.
            HEADS: [("\n\nclass ", "\nHEAD = 'classes'\nfrom stillhouse_proof.metrics import top_k\n\n\nclass ")],
            METRICS: [("\n\ndef top_k", "\nfrom stillhouse_proof.heads import HEAD\n\n\ndef top_k")],
        },
    ),
    Bad("unregister", "the state of the random module", {PLUGIN: [after_imports("import random\n\nrandom.seed(0)\n")]}),
    Bad("non-interference", "dropout: 0.5", {PLUGIN: [after_imports(MEDDLING)]}),
]


PROVEN = {each.fails.partition("[")[0] for each in CASES} | {"components", *PROVEN_BESIDE}


def names_of(ids: list[str] | tuple[str, ...]) -> set[str]:
    return {each.partition("[")[0] for each in ids}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", importlib.import_module)  # one of the cases changes it


def marked(case: Bad) -> object:
    return pytest.param(case, marks=[pytest.mark.slow] if case.fails in SLOW else [], id=f"{case.fails}: {case.says}")


@pytest.mark.parametrize("case", [marked(each) for each in CASES])
def test_fault_fails_its_check_and_no_other(case: Bad, distribution: Any) -> None:
    for file, pairs in case.changes.items():
        distribution.change(file, *pairs)
    if case.reinstall:
        distribution.write_metadata()
    manager, record = distribution.load()
    plan = Plan(manager, record)
    # What costs seconds and cannot be touched by the fault is left to the good plugin below.
    declared = Plan(manager, record, quick=True).ids
    started = PROCESS if case.fails in SLOW else [each for each in PROCESS if each not in SLOW]
    ids = [*declared, *started] if case.fails in PROCESS else [each for each in plan.ids if each not in PROCESS]
    if "method" not in case.fails and not any("method" in file for file in case.changes):
        ids = [each for each in ids if "[method:" not in each]
    found = {each: plan.run(each) for each in ids}
    failed = {each: check for each, check in found.items() if check.outcome == "failed"}
    assert list(failed) == [case.fails], {each: check.problem for each, check in failed.items()}
    check = failed[case.fails]
    assert case.says in check.problem
    assert check.fix


def test_plugin_without_components_fails_that_check_only(distribution: Any) -> None:
    (distribution.source / PLUGIN).write_text('"""Nothing."""\n')
    manager, record = distribution.load()
    plan = Plan(manager, record, quick=True)
    failed = [each.id for each in plan.report().checks if each.outcome == "failed"]
    assert failed == ["components"]


def test_good_plugin_fails_nothing_and_each_check_has_a_bad_one(distribution: Any) -> None:
    for file, pairs in WITH_READER.items():
        distribution.change(file, *pairs)
    manager, record = distribution.load()
    assert {each.kind for each in manager.components_of(record)} == set(KINDS)
    plan = Plan(manager, record)
    found = [plan.run(each) for each in plan.ids if each not in SLOW]
    assert {each.outcome for each in found} == {"passed"}, [each for each in found if each.outcome != "passed"]
    assert names_of(plan.ids) == PROVEN


def test_every_check_is_explained_and_none_that_is_not_there() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`([a-z-]+)(?:\[\.\.\.\])?`", row)}
    assert explained - {"expected-failures"} == PROVEN
